"""Training objectives: segmentation, patient contrast and their sum (Eq. 8, 10-12).

Shapes: B subjects, R ROIs, D slices, H W pixels, C patient channels, K classes of an ROI
(background and its nuclei), N keys, d embedding channels.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from monai.losses import DiceLoss
from torch import Tensor, nn
from torch.nn import functional

from mrn_components.data.target import HC_PD, Score, Target


class NucleiLoss(nn.Module):
    """Weighted cross entropy of every crop's nuclei mask (Eq. 10), and Dice loss where asked for.

    A class weighs 1 minus its share of the crop (section 3.4), per subject and ROI. Subjects are
    averaged, ROIs summed as in Eq. 10.

    Args:
        mean_over: "weights" divides a crop's weighted sum by the weights of its voxels; "voxels" by
            their number, as the first author's public C3R_UDA does. Paper: silent.
        dice_weight: factor of MONAI's ``DiceLoss``, which C3R_UDA adds. Paper: Eq. 10 has none.

    Raises:
        ValueError: for another ``mean_over``.
    """

    def __init__(
        self, *, mean_over: Literal["weights", "voxels"] = "weights", dice_weight: float = 0.0
    ) -> None:
        super().__init__()
        if mean_over not in ("weights", "voxels"):
            raise ValueError(f"mean_over must be 'weights' or 'voxels', got {mean_over!r}.")
        self.mean_over = mean_over
        self.dice_weight = dice_weight
        self.dice = DiceLoss(softmax=True, to_onehot_y=True)

    def forward(
        self, logits: Mapping[str, Sequence[Tensor]], masks: Mapping[str, Sequence[Tensor]]
    ) -> Tensor:
        """Return the scalar loss.

        Args:
            logits: B tensors (K, D, H, W) of every ROI.
            masks: B tensors (D, H, W) of every ROI: class indices, int64, in [0, K).
        """
        by_roi = [
            torch.stack([self._of_crop(*c) for c in zip(crops, masks[roi], strict=True)]).mean()
            for roi, crops in logits.items()
        ]
        return torch.stack(by_roi).sum()

    def _of_crop(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Loss of one crop: logits (K, D, H, W), mask (D, H, W)."""
        classes = torch.arange(len(logits), device=mask.device)[:, None]
        counts = (mask.flatten() == classes).sum(1).float()  # (K,); bincount would wait for a GPU
        weight = 1 - counts / mask.numel()
        scores, truth = logits[None].float(), mask[None]
        loss = functional.cross_entropy(scores, truth, weight, reduction="sum")
        if self.mean_over == "voxels":
            loss = loss / mask.numel()
        else:
            # Two classes or more weigh at least 1 together; one alone weighs 0: its loss is 0,
            # not 0/0.
            loss = loss / (counts * weight).sum().clamp(min=1)
        if self.dice_weight:
            loss = loss + self.dice_weight * self.dice(scores, truth[None])
        return loss


class PatientContrastiveLoss(nn.Module):
    """Contrast of patient embeddings against the teacher's keys (Eq. 8).

    Keys of its own class attract an anchor, those of the other classes repel it. The loss of an
    anchor is the mean over its positives, that of the batch the mean over its anchors. An anchor
    that lacks a positive or a negative contributes 0 but counts, so that a distributed run's mean
    over ranks is the mean over all anchors.

    Args:
        temperature: softness of the similarities, above 0. Paper: 0.1 (section 4.1.2).
        denominator: "negatives" sets each positive against all negatives, as C3R does, which Eq. 8
            follows; "supcon" sets it against all keys (Khosla et al. 2020).

    Raises:
        ValueError: for a temperature of 0 or less, or another denominator.
    """

    def __init__(
        self, *, temperature: float = 0.1, denominator: Literal["negatives", "supcon"] = "negatives"
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {temperature}.")
        if denominator not in ("negatives", "supcon"):
            raise ValueError(f"denominator must be 'negatives' or 'supcon', got {denominator!r}.")
        self.temperature = temperature
        self.denominator = denominator

    def forward(
        self,
        queries: Tensor,
        labels: Tensor,
        keys: Tensor,
        key_labels: Tensor,
        own_keys: Tensor | None = None,
    ) -> Tensor:
        """Return the scalar loss.

        Args:
            queries: anchors of the student (B, d), unit length.
            labels: their classes (B,).
            keys: embeddings of the teacher (N, d), unit length, no gradient.
            key_labels: their classes (N,); -1 for a key that is none.
            own_keys: the teacher's keys (B, d) of the anchors; a key equal to an anchor's own is
                not its positive.
        """
        positive = labels[:, None] == key_labels  # (B, N)
        negative = ~positive & (key_labels >= 0)
        if own_keys is not None:
            positive = positive & (own_keys[:, None] != keys).any(dim=-1)
        # Sums of zeros, not a choice of rows: how many there are only a GPU would know.
        usable = (positive.any(dim=1) & negative.any(dim=1))[:, None]  # (B, 1)
        positive = positive & usable

        with torch.autocast(queries.device.type, enabled=False):  # 16 bits blur the similarities
            similarity = queries @ keys.T / self.temperature
            others = negative if self.denominator == "negatives" else positive | negative
            # Of no key at all the gradient would be NaN, also where it is multiplied by zero.
            total = _masked_logsumexp(similarity, others | ~usable)
            if self.denominator == "negatives":
                pull = functional.softplus(total - similarity)
            else:
                pull = total - similarity
            per_anchor = pull.masked_fill(~positive, 0).sum(dim=1) / positive.sum(1).clamp(min=1)
            return per_anchor.sum() / len(queries)


class ScoreLoss(nn.Module):
    """Smooth L1 loss of a score, in units of its range.

    Errors below a tenth of the range count squared, larger ones linearly: a label of a clinical
    scale is itself no more certain, and an outlier must not lead.
    """

    def __init__(self, *, target: Score) -> None:
        super().__init__()
        self.target = target

    def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of outputs (B, 1) and labels (B,)."""
        from_middle = self.target.scaled(labels) - 0.5
        return functional.smooth_l1_loss(outputs[:, 0], from_middle, beta=0.1)


class MRNLoss(nn.Module):
    """Classification and segmentation parts of the overall objective (Eq. 11 and 12).

    The contrastive part of Eq. 12 is added by ``MSupMoCoHandler``. A prediction without masks (a
    network without DPT) has no segmentation part. ``terms`` holds the last call's unweighted terms,
    detached, for the curves.

    Args:
        cls_weight: factor of the classification loss. Paper: 1 in Eq. 12, and 0 while pretraining,
            which ``PretrainPhaseHandler`` sets.
        target: what is predicted. Paper: HC or PD.
        seg_weight: factor of the segmentation loss, the first trade-off of Eq. 12 (paper silent).
        classification: loss of (logits, labels); None is cross entropy (Eq. 11) or ``ScoreLoss``.
        segmentation: loss of (mask logits, masks) by ROI; ``NucleiLoss`` when None (Eq. 10).
    """

    def __init__(
        self,
        *,
        target: Target = HC_PD,
        cls_weight: float = 1.0,
        seg_weight: float = 1.0,
        classification: nn.Module | None = None,
        segmentation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.cls_weight = cls_weight
        self.seg_weight = seg_weight
        usual = ScoreLoss(target=target) if isinstance(target, Score) else nn.CrossEntropyLoss()
        self.classification = classification or usual
        self.segmentation = segmentation or NucleiLoss()
        self.terms: dict[str, Tensor] = {}

    def forward(self, pred: Mapping[str, Any], target: Mapping[str, Any]) -> Tensor:
        """Return the scalar loss.

        Args:
            pred: the network's output: "logits" (B, K) and, with a DPT, "masks".
            target: "label" (B,) and, where ``pred`` has masks, "masks".

        Raises:
            ValueError: when the batch lacks the label or the masks that the loss needs.
        """
        needed = {"label", "masks"} if "masks" in pred else {"label"}
        if missing := needed - target.keys():
            raise ValueError(
                f"target must hold {sorted(missing)} for training, got {sorted(target)}; add them "
                "to the data, or train without masks by --network_def#res#dpt#_disabled_ True."
            )
        # A weight of 0 keeps the term in the graph: a distributed run waits for every parameter.
        classification = self.classification(pred["logits"].float(), target["label"])
        self.terms = {"classification": classification.detach()}
        loss = self.cls_weight * classification
        if "masks" in pred:
            segmentation = self.segmentation(pred["masks"], target["masks"])
            self.terms["segmentation"] = segmentation.detach()
            loss = loss + self.seg_weight * segmentation
        return loss


def _masked_logsumexp(similarity: Tensor, mask: Tensor) -> Tensor:
    """Log-sum-exp over the keys where the mask holds: (B, N) -> (B, 1)."""
    return similarity.masked_fill(~mask, float("-inf")).logsumexp(dim=1, keepdim=True)
