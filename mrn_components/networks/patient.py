"""PatientClassifier: one encoder for all ROIs, and a diagnosis from their features (section 4.2).

B subjects, R ROIs, C features of an ROI, D slices, H rows, W columns of a crop.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal, Protocol, Self

from torch import Tensor, nn

from mrn_components.networks.masking import (
    MaskMode,
    check_mask_mode,
    mask_images,
    mask_tokens,
)
from mrn_components.networks.precision import PRECISIONS, autocast
from mrn_components.networks.tensors import TensorNetwork


class HasClasses(Protocol):
    """What a network needs to know of an ROI."""

    @property
    def num_classes(self) -> int:
        """Classes of the crop's mask, background included."""


class VolumeEncoder(Protocol):
    """What ``PatientClassifier`` needs of its encoder, a module: ``SERes10`` or ``VolumeViT``."""

    channels: int

    def build(self, num_classes: Mapping[str, int]) -> None:
        """Create what depends on the ROIs: image and ``num_classes`` mask channels of each."""

    def __call__(self, volumes: Sequence[Tensor], rois: Sequence[str]) -> Tensor:
        """Features (V, C) of V volumes (1 + K, D, H, W), given the ROI of each."""

    def on_tensors(self, rois: Sequence[str]) -> nn.Module:
        """Itself as a module that maps a tensor (B, 1 + K, D, H, W) an ROI to features (B, C)."""


class PatientClassifier(nn.Module):
    """A subject's ROIs to a diagnosis by one encoder of volumes: the baselines of the paper.

    The features of the ROIs, side by side, represent the subject and go to the same head as MRN's.
    It offers what MRN offers, so that mSupMoCo and the trainer take either.

    Args:
        rois: the ROIs, by name; their order is the order of their features.
        encoder: volumes to features, not yet built. Paper: ``SERes10`` (section 4.2), or an
            M3D-CLIP vision transformer (Table 9).
        num_classes: diagnoses. Paper: 2, HC and PD.
        dropout: rate in the classification head. Paper: 0.5 (section 4.1.2).
        hidden_channels: hidden width of the head. None is C; the paper is silent.
        masked_rois: ROIs to hide in all channels (Table 4).
        mask_mode: how they are hidden, as of ``MRN``.
        precision: "bf16" computes under autocast to bfloat16, "auto" where the hardware gains by
            it. Outputs are float32 in any case.

    Attributes:
        patient_channels: width R * C of the patient representation.

    Raises:
        ValueError: for no ROI, a masked ROI that is none of ``rois``, or an unknown ``precision``.
    """

    def __init__(
        self,
        *,
        rois: Mapping[str, HasClasses],
        encoder: VolumeEncoder,
        num_classes: int = 2,
        dropout: float = 0.5,
        hidden_channels: int | None = None,
        masked_rois: Sequence[str] = (),
        mask_mode: MaskMode = "voxels",
        precision: Literal["fp32", "bf16", "auto"] = "fp32",
    ) -> None:
        super().__init__()
        check_arguments(rois, masked_rois, mask_mode, precision)
        self.rois = tuple(rois)
        self.masked_rois = frozenset(masked_rois)
        self.mask_mode = mask_mode
        self.precision = precision
        # Image and mask channels of each ROI, as ROIMaskChannelsd makes them.
        self.in_channels = {name: 1 + roi.num_classes for name, roi in rois.items()}
        self.encoder = encoder
        encoder.build({name: roi.num_classes for name, roi in rois.items()})
        self.patient_channels = len(rois) * encoder.channels
        self.classifier: nn.Module | None = diagnosis_head(
            self.patient_channels, hidden_channels or encoder.channels, num_classes, dropout
        )

    def forward(
        self,
        image: Mapping[str, Sequence[Tensor]] | Tensor,
        qsm1: Tensor | None = None,
        qsm2: Tensor | None = None,
        qsm3: Tensor | None = None,
    ) -> Any:
        """Diagnose a batch of B subjects.

        Args:
            image: B volumes (1 + K, D, H, W) in [0, 1] of each ROI: image and one-hot mask; or, for
                tools that know tensors by name, those of the first ROI as one tensor
                (B, 1 + K, D, H, W), see ``TensorNetwork``.
            qsm1: with a tensor ``image``, that of the ROI of this name; None hides it.
            qsm2: as ``qsm1``.
            qsm3: as ``qsm1``.

        Returns:
            "logits" (B, num_classes) and "patient" (B, R * C). For tensors only the logits.
        """
        if isinstance(image, Tensor):
            return TensorNetwork(self)(image, qsm1, qsm2, qsm3)
        return self._diagnose(image)

    def _diagnose(self, images: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
        images = mask_images(images, self.masked_rois, self.mask_mode)
        volumes, rois = gather(images, self.in_channels)
        with autocast(volumes[0].device, self.precision):
            features = self.encoder(volumes, rois)  # (R * B, C)
        patient = features.unflatten(0, (len(self.rois), -1)).transpose(0, 1).flatten(1).float()
        patient = mask_tokens(patient, self.rois, self.masked_rois, self.mask_mode)
        if self.classifier is None:
            return {"patient": patient}
        return {"logits": self.classify(patient), "patient": patient}

    def classify(self, patient: Tensor) -> Tensor:
        """Logits (B, num_classes) of patient representations (B, R * C)."""
        assert self.classifier is not None
        with autocast(patient.device, self.precision):
            return self.classifier(patient).float()

    def patient_encoder(self) -> Self:
        """A copy without classifier, which maps images to {"patient"}: the teacher."""
        encoder = deepcopy(self)
        encoder.classifier = None
        return encoder

    def tensor_encoder(self) -> nn.Module:
        """The encoder on tensors, for ``TensorNetwork``."""
        return self.encoder.on_tensors(self.rois)

    def __prepare_scriptable__(self) -> nn.Module:  # torch.jit.script compiles this instead
        """The network on tensors."""
        return TensorNetwork(self)


def diagnosis_head(
    in_channels: int, hidden_channels: int, num_classes: int, dropout: float
) -> nn.Sequential:
    """Build the classification head of section 3.3.1: two layers with dropout between them."""
    return nn.Sequential(
        nn.Linear(in_channels, hidden_channels),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(hidden_channels, num_classes),
    )


def check_arguments(
    rois: Mapping[str, HasClasses], masked_rois: Sequence[str], mask_mode: str, precision: str
) -> None:
    """Refuse what neither MRN nor the baselines can be built with.

    Raises:
        ValueError: for no ROI, a masked ROI that is none of ``rois``, or an unknown ``mask_mode``
            or ``precision``.
    """
    if not rois:
        raise ValueError("network rois must name at least one ROI, got none.")
    if unknown := set(masked_rois) - set(rois):
        raise ValueError(
            f"network masked_rois {sorted(unknown)} are none of the ROIs {list(rois)}; "
            "mask some of these or none."
        )
    check_mask_mode(mask_mode)
    if precision not in PRECISIONS:
        raise ValueError(f"network precision must be one of {PRECISIONS}, got {precision!r}.")


def gather(
    images: Mapping[str, Sequence[Tensor]], channels: Mapping[str, int]
) -> tuple[list[Tensor], list[str]]:
    """Line the volumes of all ROIs up, subjects within ROIs.

    Args:
        images: B volumes (channels, D, H, W) of each ROI.
        channels: the network's ROIs in their order, and the channels of each.

    Returns:
        The R * B volumes, and the ROI of each.

    Raises:
        ValueError: for a missing ROI, ROIs of unequal numbers of subjects, and volumes of another
            shape.
    """
    if missing := [roi for roi in channels if roi not in images]:
        raise ValueError(
            f"images lack the ROIs {missing}, which the network was built for; they hold "
            f"{list(images)}. Give both the same `rois`."
        )
    counts = {roi: len(images[roi]) for roi in channels}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise ValueError(f"images must hold the same subjects for every ROI, got {counts}.")
    for roi, expected in channels.items():
        for image in images[roi]:
            if image.ndim != 4 or len(image) != expected:
                hint = " ROIMaskChannelsd adds the mask's channels." if expected > 1 else ""
                raise ValueError(
                    f"images[{roi!r}] must hold volumes ({expected}, D, H, W), "
                    f"got {tuple(image.shape)}.{hint}"
                )
    rois = [roi for roi in channels for _ in images[roi]]
    return [image for roi in channels for image in images[roi]], rois
