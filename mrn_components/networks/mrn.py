"""MRN: multi-ROI driven classification network (section 3.3, Figure 1)."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor, nn

from mrn_components.networks.masking import (
    MaskMode,
    check_mask_mode,
    mask_images,
    mask_tokens,
)
from mrn_components.networks.precision import bf16_pays
from mrn_components.networks.res import RES


class _HasClasses(Protocol):
    @property
    def num_classes(self) -> int: ...


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
        rois: Mapping[str, _HasClasses],
        res: RES,
        num_classes: int = 2,
        dropout: float = 0.5,
        hidden_channels: int | None = None,
        masked_rois: Sequence[str] = (),
        mask_mode: MaskMode = "voxels",
        precision: Literal["fp32", "bf16", "auto"] = "fp32",
    ) -> None:
        super().__init__()
        if not rois:
            raise ValueError("MRN rois must name at least one ROI, got none.")
        if unknown := set(masked_rois) - set(rois):
            raise ValueError(
                f"MRN masked_rois {sorted(unknown)} are none of the ROIs {list(rois)}; "
                "mask some of these or none."
            )
        if precision not in ("fp32", "bf16", "auto"):
            raise ValueError(f"MRN precision must be 'fp32', 'bf16' or 'auto', got {precision!r}.")
        check_mask_mode(mask_mode)
        self.rois = tuple(rois)
        self.masked_rois = frozenset(masked_rois)
        self.mask_mode = mask_mode
        self.precision = precision
        self.res = res
        res.build({name: roi.num_classes for name, roi in rois.items()})
        self.patient_channels = len(rois) * res.encoder.channels
        hidden = hidden_channels or res.encoder.channels
        self.classifier: nn.Module | None = nn.Sequential(
            nn.Linear(self.patient_channels, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, images: Mapping[str, Sequence[Tensor]]) -> dict[str, Any]:
        """Diagnose a batch of B subjects (Eq. 4-7).

        Args:
            images: B volumes (1, D, H, W) in [0, 1] of each ROI.

        Returns:
            "logits" (B, num_classes) and "patient" (B, R * C); in training with a DPT also "masks",
            logits (K, D, H, W) of every volume, B for each ROI.
        """
        volumes, rois = self._gather(mask_images(images, self.masked_rois, self.mask_mode))
        with self._autocast(volumes[0].device):
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
        with self._autocast(patient.device):
            return self.classifier(patient).float()

    def patient_encoder(self) -> Self:
        """A copy without DPT and classifier, which maps images to {"patient"}: the teacher."""
        encoder = deepcopy(self)
        encoder.classifier = None
        encoder.res.dpt = None
        return encoder

    def _gather(self, images: Mapping[str, Sequence[Tensor]]) -> tuple[list[Tensor], list[str]]:
        """Volumes (D, H, W) of all ROIs, subjects within ROIs, and the ROI of each."""
        if missing := [roi for roi in self.rois if roi not in images]:
            raise ValueError(
                f"images lack the ROIs {missing}, which the network was built for; they hold "
                f"{list(images)}. Give both the same `rois`."
            )
        counts = {roi: len(images[roi]) for roi in self.rois}
        if len(set(counts.values())) != 1 or 0 in counts.values():
            raise ValueError(f"images must hold the same subjects for every ROI, got {counts}.")
        volumes, rois = [], []
        for roi in self.rois:
            for image in images[roi]:
                if image.ndim != 4 or len(image) != 1:
                    raise ValueError(
                        f"images[{roi!r}] must hold volumes (1, D, H, W), got {tuple(image.shape)}."
                    )
                volumes.append(image[0])
                rois.append(roi)
        return volumes, rois

    def _autocast(self, device: torch.device) -> torch.autocast:
        enabled = self.precision == "bf16" or (self.precision == "auto" and bf16_pays(device))
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)
