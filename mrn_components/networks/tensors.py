"""The network on one plain tensor an ROI: what TorchScript and ONNX compile, other tools call.

Training and prediction hand over ragged crops by ROI. MONAI's ``verify_net_in_out``,
``ckpt_export`` and ``onnx_export``, and MONAI Deploy, know tensors by name. Parts and parameters
are the network's own; only the bookkeeping of ragged crops is left out: the numbers are the same.

B subjects, R ROIs, C features of an ROI, O outputs; D slices, H rows, W columns of a crop.
"""

import linecache
from functools import cache
from keyword import iskeyword
from typing import TYPE_CHECKING, Any, List, Optional  # noqa: UP035  TorchScript knows these

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from mrn_components.networks.mrn import MRN


class TensorNetwork(nn.Module):
    """A network called with a tensor an ROI; ``tensor_class`` gives it a ``forward``.

    It uses the network's parts and parameters, not copies of them, and computes in float32,
    whatever the network's precision.

    Raises:
        ValueError: for a network that masks ROIs or has no classifier.
        TypeError: for a part without ``on_tensors``.
    """

    def __init__(self, network: "MRN") -> None:
        super().__init__()
        if network.masked_rois or network.classifier is None:
            raise ValueError(
                f"{type(network).__name__} takes tensors with its classifier and all ROIs visible; "
                "leave masked_rois empty, and leave out the tensor of an ROI to hide it."
            )
        self.channels = [network.in_channels[roi] for roi in network.rois]
        self.zero_tokens = network.mask_mode == "token"
        self.encoder = tensor_form(network.roi_encoder, network.rois)
        self.classifier = network.classifier

    def diagnose(self, image: Tensor, others: List[Optional[Tensor]]) -> Tensor:  # noqa: UP006, UP045
        """Diagnose B subjects whose crops of an ROI have one size.

        Args:
            image: crops (B, channels, D, H, W) in [0, 1] of the network's first ROI.
            others: those of the other ROIs; None hides one as the network's ``mask_mode`` says
                ("noise" and "mean", which need a crop, as "voxels": zeros as large as ``image``).

        Returns:
            Logits (B, O).
        """
        volumes = [image.float()]
        for i, given in enumerate(others):
            if given is None:
                shape = [image.shape[0], self.channels[i + 1]] + list(image.shape[2:])  # noqa: RUF005
                given = torch.zeros(shape, device=image.device)
            volumes.append(given.float())
        features: List[Tensor] = self.encoder(volumes)  # noqa: UP006
        if self.zero_tokens:
            for i, given in enumerate(others):
                if given is None:
                    features[i + 1] = torch.zeros_like(features[i + 1])
        return self.classifier(torch.cat(features, 1))


def tensor_form(part: Any, *args: Any) -> nn.Module:
    """Return ``part.on_tensors(...)``; a part without it can be trained but not exported."""
    if not hasattr(part, "on_tensors"):
        raise TypeError(
            f"{type(part).__name__} has no method `on_tensors`, without which a network cannot be "
            "called with tensors or exported; add it, or give the network {roi: [crops]}."
        )
    return part.on_tensors(*args)


@cache  # TorchScript tells modules apart by their class
def tensor_class(others: tuple[str, ...]) -> type[TensorNetwork]:
    """Make the class whose ``forward`` maps ``image``, the first ROI, and ``others`` to logits.

    The tensors of the other ROIs are optional arguments of these names, or a ValueError says which
    name cannot be one. TorchScript compiles no ``**others``, and reads the source of what it
    compiles.
    """
    for name in others:
        known = iskeyword(name) or name in ("self", "image", "others")
        if known or not (name.isidentifier() and name.isascii()):
            raise ValueError(
                f"ROI {name!r} cannot be the name of a tensor: rename it to letters, digits and _, "
                "no word of Python's and not image or others, or give the network {roi: [crops]}."
            )
    arguments = ["self", "image: Tensor", *(f"{name}: Optional[Tensor] = None" for name in others)]
    source = (
        f"def forward({', '.join(arguments)}) -> Tensor:\n"
        f"    others: List[Optional[Tensor]] = [{', '.join(others)}]\n"
        "    return self.diagnose(image, others)\n"
    )
    file = f"<forward of {', '.join(('image', *others))}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    names: dict[str, Any] = {"Tensor": Tensor, "Optional": Optional, "List": List}  # noqa: UP006
    exec(compile(source, file, "exec"), names)  # of identifiers alone
    return type(TensorNetwork.__name__, (TensorNetwork,), {"forward": names["forward"]})
