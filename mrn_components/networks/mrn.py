"""MRN: multi-ROI driven classification network (section 3.3, Figure 1).

B subjects, R ROIs, C features of an ROI, O outputs; D slices, H rows, W columns of a crop.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal, Protocol, Self

from torch import Tensor, nn

from mrn_components.networks.masking import MaskMode, check_mask_mode, mask_images, mask_tokens
from mrn_components.networks.packing import EncodedVolume
from mrn_components.networks.precision import PRECISIONS, autocast
from mrn_components.networks.res import RES
from mrn_components.networks.tensors import TensorNetwork, tensor_class
from mrn_components.regions.roi import ROI


class HasOutputs(Protocol):
    """What a network needs to know of its target, such as ``Classes`` or ``Score``."""

    @property
    def num_outputs(self) -> int:
        """Numbers O that the head gives: a logit a class, or a score."""


class VolumeEncoder(Protocol):
    """What MRN needs of a part that maps crops to features, an ``nn.Module``: RES offers it too.

    One encoder serves all ROIs. It creates its parameters in the constructor or in ``build``.

    Attributes:
        channels: features C of an ROI; read after ``build``.
        uses_masks: whether crops have the channels of ``ROIMaskChannelsd``. A part without this
            attribute gets them.
    """

    channels: int

    def build(self, num_classes: Mapping[str, int]) -> None:
        """Create what depends on the ROIs' classes K, background included; MRN calls this once."""

    def __call__(
        self, volumes: Sequence[Tensor], rois: Sequence[str]
    ) -> tuple[Tensor, Sequence[Tensor | None] | None]:
        """Encode V crops of any sizes.

        Args:
            volumes: V crops (1 + K, D, H, W) in [0, 1]: the image, and the one-hot mask of
                ``ROIMaskChannelsd``. Without ``uses_masks`` the image alone, (1, D, H, W).
            rois: name of each crop's ROI.

        Returns:
            Features (V, C); and, in training of a part that segments, mask logits (K, D, H, W) of
            each crop, None for a crop without; or None in place of all.
        """

    def on_tensors(self, rois: Sequence[str]) -> nn.Module:
        """Return a module that TorchScript compiles, with the same parameters.

        It maps a list of tensors (B, 1 + K, D, H, W), one for each of ``rois``, to a list of
        features (B, C). Needed for tensors and exports alone, not for training and prediction.
        """


class MRN(nn.Module):
    """Multi-ROI driven classification network: a subject's ROIs to a diagnosis.

    One RES serves all ROIs; their tokens, side by side, represent the subject (Eq. 4-6). With
    ``encoder`` in place of ``res`` it is one of the paper's baselines (section 4.2, Table 9).
    Subjects and ROIs may differ in size: a batch gives the numbers of its subjects alone.

    Args:
        rois: the ROIs, by name; their order is the order of ROI tokens.
        res: the shared RES, not yet built. It sees the image of a crop, and with a ``NucleusPool``
            the mask.
        encoder: another part, not yet built, that sees a crop's image and one-hot mask: ``SERes10``
            (section 4.2), ``VolumeViT`` (M3D-CLIP, Table 9) or your own.
        target: what is predicted, such as ``Classes``; None has two outputs. Paper: HC and PD.
        dropout: rate in the classification head. Paper: 0.5 (section 4.1.2).
        hidden_channels: hidden width of the head. None is C, 768 for ViT-B; the paper is silent.
        masked_rois: ROIs to hide, in all channels (Table 4).
        mask_mode: "voxels" puts zeros, "noise" or "mean" these, all keeping the crop's geometry;
            "token" puts a zero ROI token, which tells nothing at all. The paper is silent.
        precision: "bf16" computes under autocast to bfloat16, "auto" where the hardware gains by
            it. Outputs are float32 in any case.

    Attributes:
        patient_channels: width R * C of the patient representation.

    Raises:
        ValueError: for no ROI, both or none of ``res`` and ``encoder``, a masked ROI that is none
            of ``rois``, or an unknown mode or precision.
    """

    def __init__(
        self,
        *,
        rois: Mapping[str, ROI],
        res: RES | None = None,
        encoder: VolumeEncoder | None = None,
        target: HasOutputs | None = None,
        dropout: float = 0.5,
        hidden_channels: int | None = None,
        masked_rois: Sequence[str] = (),
        mask_mode: MaskMode = "voxels",
        precision: Literal["fp32", "bf16", "auto"] = "fp32",
    ) -> None:
        super().__init__()
        _check_arguments(rois, masked_rois, mask_mode, precision)
        if (res is None) == (encoder is None):
            raise ValueError("MRN must have either res or encoder, got both or none of them.")
        self.rois = tuple(rois)
        self.masked_rois = frozenset(masked_rois)
        self.mask_mode = mask_mode
        self.precision = precision
        self.res, self.encoder = res, encoder  # the names of the weights; one is None
        num_classes = {name: roi.num_classes for name, roi in rois.items()}
        masked = getattr(self.roi_encoder, "uses_masks", True)
        self.in_channels = {name: 1 + count if masked else 1 for name, count in num_classes.items()}
        self.roi_encoder.build(num_classes)
        channels = self.roi_encoder.channels
        self.patient_channels = len(rois) * channels
        self.classifier: nn.Module | None = nn.Sequential(
            nn.Linear(self.patient_channels, hidden_channels or channels),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_channels or channels, target.num_outputs if target else 2),
        )  # two layers (section 3.3.1)

    @property
    def roi_encoder(self) -> VolumeEncoder:
        """The part that maps crops to features."""
        part = self.encoder if self.res is None else self.res
        assert part is not None
        return part

    def forward(
        self, image: Mapping[str, Sequence[Tensor]] | Tensor, **others: Tensor | None
    ) -> Any:
        """Diagnose a batch of B subjects (Eq. 4-7).

        Args:
            image: B crops (1, D, H, W) in [0, 1] of each ROI, or (1 + K, D, H, W) for a part that
                ``uses_masks``; or, for tools that know tensors by name, those of the first ROI as
                one tensor (B, 1 or 1 + K, D, H, W).
            others: with a tensor ``image``, those of the other ROIs by name; one that is left out
                or None is hidden.

        Returns:
            "logits" (B, O) and "patient" (B, R * C); in training with a DPT also "masks", logits
            (K, D, H, W) of every crop, B for each ROI with nuclei. For tensors only the logits.

        Raises:
            ValueError: for a missing ROI, a crop of another shape, or a tensor of no ROI.
        """
        if isinstance(image, Tensor):
            if unknown := sorted(others.keys() - self.rois[1:]):
                raise ValueError(
                    f"tensors {unknown} belong to no ROI of the network, which has "
                    f"{list(self.rois)}; the first is `image`, the others go by these names."
                )
            return self.on_tensors()(image, **others)
        images = mask_images(image, self.masked_rois, self.mask_mode)
        volumes, rois = _gather(images, self.in_channels)
        with autocast(volumes[0].device, self.precision):
            roi_tokens, masks = self.roi_encoder(volumes, rois)  # (R * B, C), Eq. 4
        patient = roi_tokens.unflatten(0, (len(self.rois), -1)).transpose(0, 1).flatten(1).float()
        patient = mask_tokens(patient, self.rois, self.masked_rois, self.mask_mode)
        if self.classifier is None:
            return {"patient": patient}
        output: dict[str, Any] = {"logits": self.classify(patient), "patient": patient}
        if masks is not None:
            output["masks"] = {}
            for roi, mask in zip(rois, masks, strict=True):
                if mask is not None:
                    output["masks"].setdefault(roi, []).append(mask)
        return output

    def classify(self, patient: Tensor) -> Tensor:
        """Logits (B, O) of patient representations (B, R * C) (Eq. 7)."""
        assert self.classifier is not None
        with autocast(patient.device, self.precision):
            return self.classifier(patient).float()

    def patient_encoder(self) -> Self:
        """A copy without DPT and classifier, which maps images to {"patient"}: the teacher."""
        encoder = deepcopy(self)
        encoder.classifier = None
        if encoder.res is not None:
            encoder.res.dpt = None
        return encoder

    def on_tensors(self) -> TensorNetwork:
        """The network on one tensor an ROI, its arguments named as they are: for exports."""
        return tensor_class(self.rois[1:])(self)

    __prepare_scriptable__ = on_tensors  # torch.jit.script compiles this instead


def _check_arguments(
    rois: Mapping[str, ROI], masked_rois: Sequence[str], mask_mode: str, precision: str
) -> None:
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


def _gather(
    images: Mapping[str, Sequence[Tensor]], channels: Mapping[str, int]
) -> tuple[list[Tensor], list[str]]:
    """Return the R * B crops, subjects within ROIs, and the ROI of each; refuse other shapes.

    ``channels`` has the network's ROIs in their order, and the channels of each.
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
            if isinstance(image, EncodedVolume):
                continue
            if image.ndim != 4 or len(image) != expected:
                hint = " ROIMaskChannelsd adds the mask's channels." if expected > 1 else ""
                raise ValueError(
                    f"images[{roi!r}] must hold volumes ({expected}, D, H, W), "
                    f"got {tuple(image.shape)}.{hint}"
                )
    rois = [roi for roi in channels for _ in images[roi]]
    return [image for roi in channels for image in images[roi]], rois
