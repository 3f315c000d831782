"""MRN: multi-ROI driven classification network (section 3.3, Figure 1)."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal, Self

from torch import Tensor, nn

from mrn_components.networks.masking import MaskMode, mask_images, mask_tokens
from mrn_components.networks.patient import HasClasses, check_arguments, diagnosis_head, gather
from mrn_components.networks.precision import autocast
from mrn_components.networks.res import RES
from mrn_components.networks.tensors import TensorNetwork


class MRN(nn.Module):
    """Multi-ROI driven classification network: a subject's ROIs to a diagnosis.

    One RES serves all ROIs; their tokens, side by side, represent the subject (Eq. 4-6).
    Subjects and ROIs may differ in size: a batch gives the numbers of its subjects alone.

    Args:
        rois: the ROIs, by name; their order is the order of ROI tokens.
        res: the shared RES, not yet built.
        num_classes: diagnoses. Paper: 2, HC and PD.
        dropout: rate in the classification head. Paper: 0.5 (section 4.1.2).
        hidden_channels: hidden width of the head. None is C, 768 for ViT-B; the paper is silent.
        masked_rois: ROIs to hide (Table 4).
        mask_mode: "voxels" puts zeros, "noise" or "mean" these, all keeping the crop's geometry;
            "token" puts a zero ROI token, which tells nothing at all. The paper is silent.
        precision: "bf16" computes under autocast to bfloat16, "auto" where the hardware gains by
            it. Outputs are float32 in any case.

    Attributes:
        patient_channels: width R * C of the patient representation.

    Raises:
        ValueError: for no ROI, a masked ROI that is none of ``rois``, or an unknown mode or
            precision.
    """

    def __init__(
        self,
        *,
        rois: Mapping[str, HasClasses],
        res: RES,
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
        self.in_channels = dict.fromkeys(rois, 1)
        self.masked_rois = frozenset(masked_rois)
        self.mask_mode = mask_mode
        self.precision = precision
        self.res = res
        res.build({name: roi.num_classes for name, roi in rois.items()})
        self.patient_channels = len(rois) * res.encoder.channels
        self.classifier: nn.Module | None = diagnosis_head(
            self.patient_channels, hidden_channels or res.encoder.channels, num_classes, dropout
        )

    def forward(
        self,
        image: Mapping[str, Sequence[Tensor]] | Tensor,
        qsm1: Tensor | None = None,
        qsm2: Tensor | None = None,
        qsm3: Tensor | None = None,
    ) -> Any:
        """Diagnose a batch of B subjects (Eq. 4-7).

        Args:
            image: B volumes (1, D, H, W) in [0, 1] of each ROI; or, for tools that know tensors by
                name, those of the first ROI as one tensor (B, 1, D, H, W), see ``TensorNetwork``.
            qsm1: with a tensor ``image``, that of the ROI of this name; None hides it.
            qsm2: as ``qsm1``.
            qsm3: as ``qsm1``.

        Returns:
            "logits" (B, num_classes) and "patient" (B, R * C); in training with a DPT also "masks",
            logits (K, D, H, W) of every volume, B for each ROI. For tensors only the logits.
        """
        if isinstance(image, Tensor):
            return TensorNetwork(self)(image, qsm1, qsm2, qsm3)
        return self._diagnose(image)

    def _diagnose(self, images: Mapping[str, Sequence[Tensor]]) -> dict[str, Any]:
        volumes, rois = self._gather(mask_images(images, self.masked_rois, self.mask_mode))
        with autocast(volumes[0].device, self.precision):
            roi_tokens, masks = self.res(volumes, rois, segment=self.training)  # (R * B, C), Eq. 4
        patient = roi_tokens.unflatten(0, (len(self.rois), -1)).transpose(0, 1).flatten(1).float()
        patient = mask_tokens(patient, self.rois, self.masked_rois, self.mask_mode)
        if self.classifier is None:
            return {"patient": patient}
        output: dict[str, Any] = {"logits": self.classify(patient), "patient": patient}
        if masks is not None:
            output["masks"] = {roi: [] for roi in self.rois}
            for roi, mask in zip(rois, masks, strict=True):
                output["masks"][roi].append(mask)
        return output

    def classify(self, patient: Tensor) -> Tensor:
        """Logits (B, num_classes) of patient representations (B, R * C) (Eq. 7)."""
        assert self.classifier is not None
        with autocast(patient.device, self.precision):
            return self.classifier(patient).float()

    def patient_encoder(self) -> Self:
        """A copy without DPT and classifier, which maps images to {"patient"}: the teacher."""
        encoder = deepcopy(self)
        encoder.classifier = None
        encoder.res.dpt = None
        return encoder

    def tensor_encoder(self) -> nn.Module:
        """RES without DPT on tensors, for ``TensorNetwork``."""
        return self.res.on_tensors()

    def __prepare_scriptable__(self) -> nn.Module:  # torch.jit.script compiles this instead
        """The network on tensors."""
        return TensorNetwork(self)

    def _gather(self, images: Mapping[str, Sequence[Tensor]]) -> tuple[list[Tensor], list[str]]:
        """Volumes (D, H, W) of all ROIs, subjects within ROIs, and the ROI of each."""
        crops, rois = gather(images, self.in_channels)
        volumes = [crop[0] for crop in crops]
        return volumes, rois
