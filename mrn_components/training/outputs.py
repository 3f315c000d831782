"""What an evaluation makes of a network's output: columns of tables, and stock metrics."""

from collections.abc import Hashable, Mapping
from operator import itemgetter
from typing import Any

import torch
from ignite.metrics import Accuracy, Fbeta, Loss, MeanAbsoluteError, Metric
from ignite.metrics.regression import PearsonCorrelation
from monai.handlers import ROCAUC
from monai.transforms import Transform
from torch.nn import functional

from mrn_components.data.target import HC_PD, Score, Target

_pred_and_label = itemgetter("pred", "label")
VALIDATION_LOSS = "validation_loss"  # the metric by which ``KeptWeights`` chooses an epoch


class DiagnosisOutputd(Transform):
    """Adapt an evaluator's output, decollated or not, to tables and stock metrics.

    ``pred`` (the network's dict, or its logits) becomes class probabilities (..., K), or the scores
    (...); ``label`` the label (...), where there is one. Each column of the target's tables is
    added: ``prob_pd`` (...), the probability of Parkinson's disease, of HC and PD. An ensemble adds
    ``prob_pd_folds`` (..., F), test-time augmentation ``prob_pd_views`` (..., V).

    Args:
        target: what is predicted.
    """

    def __init__(self, *, target: Target = HC_PD) -> None:
        self.target = target

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Adapt the output."""
        d = dict(data)
        output = d["pred"] if isinstance(d["pred"], Mapping) else {"logits": d["pred"]}
        d.update(self.target.values(output["logits"]))
        if isinstance(self.target, Score):
            d["pred"] = d[self.target.name]
        else:
            d["pred"] = output["logits"].float().softmax(dim=-1)
        for members in ("fold", "view"):
            if f"{members}_logits" in output:
                values = self.target.values(output[f"{members}_logits"])
                d.update({f"{name}_{members}s": value for name, value in values.items()})
        if "label" in d.get("label", ()):
            d["label"] = d["label"]["label"]
        return d


def key_metric(*, target: Target = HC_PD) -> dict[str, Metric]:
    """Return the metric of a target that is shown first, by name.

    It is the ROC AUC, of more than two classes its mean of each class against the rest; of a score
    Pearson's correlation.
    """
    if isinstance(target, Score):
        return {"pearson": PearsonCorrelation(output_transform=_pred_and_label)}

    def scores_and_truth(output: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        if target.is_binary:
            return output[target.lead], (output["label"] == target.number).long()
        return output["pred"], functional.one_hot(output["label"], target.num_outputs)

    return {"roc_auc": ROCAUC(output_transform=scores_and_truth)}


def additional_metrics(*, target: Target = HC_PD) -> dict[str, Metric]:
    """Return further metrics of a target's validation, by name.

    They are the loss by which the kept epoch is chosen (cross entropy; of a score the squared
    error), accuracy and macro F1; of a score the mean absolute error.
    """
    if isinstance(target, Score):
        return {
            VALIDATION_LOSS: Loss(functional.mse_loss, output_transform=_pred_and_label),
            "mae": MeanAbsoluteError(output_transform=_pred_and_label),
        }
    return {
        VALIDATION_LOSS: Loss(_cross_entropy, output_transform=_pred_and_label),
        "accuracy": Accuracy(output_transform=_pred_and_label),
        "f1_macro": Fbeta(beta=1, output_transform=_pred_and_label),
    }


def _cross_entropy(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy of probabilities (B, K), which may have rounded to 0, and labels (B,)."""
    least = torch.finfo(probabilities.dtype).tiny
    return functional.nll_loss(probabilities.clamp_min(least).log(), labels)
