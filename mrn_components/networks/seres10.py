"""SERes10: the paper's 3D CNN baseline, an SE-ResNet of ten layers (section 4.2)."""

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, List  # noqa: UP035  TorchScript knows List

from monai.networks.blocks import ChannelSELayer
from monai.networks.nets import ResNet
from monai.networks.nets.resnet import ResNetBlock
from torch import Tensor, autocast, nn, stack
from torch.func import functional_call
from torch.nn.functional import pad

from mrn_components.networks.joint_norm import largest_of_all

_KERNEL = 7  # of the first convolution, as in MONAI's ResNet
_REDUCTION = 16  # of the squeeze, as in the squeeze-and-excitation networks
_TRUNK_STRIDE = 16  # a pooling and three of the four stages halve every side


class SERes10(nn.Module):
    """3D SE-ResNet of ten layers, with a stem for each ROI and a trunk they share (section 4.2).

    MONAI's ResNet of one basic block a stage, with MONAI's squeeze and excitation before the
    residual sum. Ten layers: the stem's convolution, two in each of the four blocks, and the
    classifier behind.

    In training the crops of one ROI are padded with zeros, centred, to the largest box among them,
    because batch normalisation needs one batch; with ``join_batch_norms`` it is that of all
    processes. In evaluation every crop runs alone, as it is: a batch gives the numbers of its
    subjects alone. The trunk's weights are shared, its running statistics are those of each ROI.
    CPUs compute in fp32, whatever the precision.

    Args:
        widths: channels of the four stages. Paper: the last has 512 (section 4.2).
        stem_stride: of the first convolution, along slices, rows and columns. The paper is silent;
            crops have some ten slices, which the trunk shrinks enough.

    Attributes:
        channels: features C of an ROI, the last of ``widths``.

    Raises:
        ValueError: for other than four widths or three strides.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = (64, 128, 256, 512),
        stem_stride: Sequence[int] = (1, 2, 2),
    ) -> None:
        super().__init__()
        if len(widths) != 4 or len(stem_stride) != 3:
            raise ValueError(
                "SERes10 has four widths and three numbers of stem_stride (slices, rows, columns), "
                f"got {list(widths)} and {list(stem_stride)}."
            )
        self.widths = tuple(widths)
        self.channels = self.widths[-1]
        slices, rows, columns = stem_stride
        self.stem_stride = (slices, rows, columns)
        self.trunk = _trunk(self.widths)
        self.stems = nn.ModuleDict()
        self.statistics = nn.ModuleDict()  # the trunk's running statistics of each ROI
        self.register_load_state_dict_pre_hook(_refuse_shared_statistics)

    def build(self, num_classes: Mapping[str, int]) -> None:
        """Create the stems; MRN calls this once.

        Args:
            num_classes: classes K of each ROI's mask, background included.
        """
        width = self.widths[0]
        for roi, classes in num_classes.items():
            conv = nn.Conv3d(
                1 + classes, width, _KERNEL, self.stem_stride, padding=_KERNEL // 2, bias=False
            )
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            self.stems[roi] = nn.Sequential(conv, nn.BatchNorm3d(width))
            self.statistics[roi] = _Statistics(self.trunk)

    def forward(self, volumes: Sequence[Tensor], rois: Sequence[str]) -> tuple[Tensor, None]:
        """Map volumes to features.

        Args:
            volumes: V volumes (1 + K, D, H, W): image and one-hot mask, K as its ROI has classes.
            rois: ROI of each volume.

        Returns:
            Features (V, C), and None: it segments nothing.

        Raises:
            ValueError: in training, for a single crop too small for batch normalisation.
        """
        features: dict[int, Tensor] = {}
        for roi in dict.fromkeys(rois):
            members = [i for i, name in enumerate(rois) if name == roi]
            for batch in [members] if self.training else [[i] for i in members]:
                crops = _stack_centred([volumes[i] for i in batch], joint=self.training)
                if self.training:
                    self._check_size(crops, roi)
                # In fp32 on CPUs: torch 2.15 corrupts memory in the bf16 gradient of a 7 x 7 x 7
                # convolution there.
                with autocast("cpu", enabled=False):
                    stem, buffers = self.stems[roi](crops), _named(self.statistics[roi])
                    encoded = functional_call(self.trunk, buffers, (stem,))
                features.update(zip(batch, encoded, strict=True))
        return stack([features[i] for i in range(len(volumes))]), None

    def on_tensors(self, rois: Sequence[str]) -> nn.Module:
        """Itself with one tensor (B, 1 + K, D, H, W) an ROI, for ``TensorNetwork``."""
        shared = {id(parameter): parameter for parameter in self.trunk.parameters()}
        encoders = []
        for roi in rois:
            trunk = deepcopy(self.trunk, dict(shared))
            for name, buffer in _named(self.statistics[roi]).items():
                trunk.get_buffer(name).copy_(buffer)
            encoders.append(nn.Sequential(self.stems[roi], trunk))
        return _TensorSERes10(nn.ModuleList(encoders))

    def _check_size(self, crops: Tensor, roi: str) -> None:
        sides = zip(crops.shape[2:], self.stem_stride, strict=True)
        deepest = [math.ceil(side / (_TRUNK_STRIDE * stride)) for side, stride in sides]
        if len(crops) * math.prod(deepest) == 1:
            raise ValueError(
                f"a batch of one {tuple(crops.shape[2:])} crop of ROI {roi!r} shrinks to one voxel "
                "and batch normalisation trains on two or more; enlarge the crops (--image_size), "
                "let the stem keep their size (--network_def#encoder#stem_stride [1,1,1]), or "
                "choose a --batch_size that leaves no last batch of one."
            )


class _TensorSERes10(nn.Module):
    """Stem and trunk of each ROI on one tensor."""

    def __init__(self, encoders: nn.ModuleList) -> None:
        super().__init__()
        self.encoders = encoders

    def forward(self, volumes: List[Tensor]) -> List[Tensor]:  # noqa: UP006
        features: List[Tensor] = []  # noqa: UP006
        for i, encoder in enumerate(self.encoders):
            features.append(encoder(volumes[i]))
        return features


class _Statistics(nn.Module):
    """The buffers of a network once more."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        for name, buffer in network.named_buffers():
            self.register_buffer(name.replace(".", "-"), buffer.clone())


def _named(statistics: nn.Module) -> dict[str, Tensor]:
    """Return the buffers of ``_Statistics`` by the names that the network's own have."""
    return {name.replace("-", "."): buffer for name, buffer in statistics.named_buffers()}


def _refuse_shared_statistics(
    _module: nn.Module, state: Mapping[str, Any], prefix: str, *_others: Any
) -> None:
    """Name the cause, where the weights have one set of running statistics for all ROIs."""
    names = [name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)]
    if "trunk" in names and "statistics" not in names:
        raise ValueError(
            "these weights are of a SERes10 before 2026-11-26, whose running statistics were a "
            "mixture of the ROIs; train it again, or use the version of mrn-components that they "
            "were trained with."
        )


def _trunk(widths: Sequence[int]) -> Any:
    """Build the ResNet behind the stems, which take the places of ``conv1`` and ``bn1``."""
    resnet: nn.Module = ResNet(
        _SEBlock, [1, 1, 1, 1], list(widths), feed_forward=False, bias_downsample=False
    )
    resnet.conv1 = resnet.bn1 = nn.Identity()
    return resnet


class _SEBlock(ResNetBlock):
    """MONAI's basic block with squeeze and excitation before the residual sum."""

    def __init__(self, in_planes: int, planes: int, **args: Any) -> None:
        super().__init__(in_planes, planes, **args)
        self.bn2 = nn.Sequential(self.bn2, ChannelSELayer(3, planes, r=_REDUCTION))


def _stack_centred(volumes: Sequence[Tensor], joint: bool = False) -> Tensor:
    """Volumes (C, D, H, W) in the middle of their common box, zeros around: (V, C, D, H, W).

    ``joint``: the box that they have in common with those of the other processes.
    """
    box = [max(sides) for sides in zip(*(volume.shape[1:] for volume in volumes), strict=True)]
    if joint:
        box = largest_of_all(box, volumes[0].device)
    padded = []
    for volume in volumes:
        margins: list[Any] = []
        for whole, side in zip(reversed(box), reversed(volume.shape[1:]), strict=True):
            margins += [(whole - side) // 2, whole - side - (whole - side) // 2]
        padded.append(pad(volume, margins))
    return stack(padded)
