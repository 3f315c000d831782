"""An ensemble of the networks of several folds (section 4.1.2)."""

from copy import deepcopy
from math import log
from typing import Any

from torch import Tensor, nn, stack


class FoldEnsemble(nn.Module):
    """Networks of one architecture, one a fold, whose probabilities are averaged.

    It is a network like any other: the softmax of its ``logits`` is the mean of the folds'
    probabilities.

    Args:
        network: the network of one fold; the others start as copies of it. The weights are read
            afterwards (``FoldCheckpointLoader``).
        num_folds: networks F. Paper: 5.

    Attributes:
        folds: the networks.

    Raises:
        ValueError: for no fold.
    """

    def __init__(self, *, network: nn.Module, num_folds: int) -> None:
        super().__init__()
        if num_folds < 1:
            raise ValueError(f"FoldEnsemble num_folds must be at least 1, got {num_folds}.")
        copies = [deepcopy(network) for _ in range(num_folds - 1)]
        self.folds = nn.ModuleList([network, *copies])

    def forward(self, image: Any, **others: Tensor | None) -> Any:
        """Diagnose a batch of B subjects with every fold: crops by ROI, or a tensor an ROI.

        Returns:
            "logits" (B, O) of the mean probabilities, "fold_logits" (B, F, O), and where the folds
            have it "fold_patient" (B, F, P). For tensors only the logits.
        """
        # One fold after the other: the memory of one forward pass, whatever F.
        outputs = [fold(image, **others) for fold in self.folds]
        if isinstance(image, Tensor):
            return merge_logits(outputs, "fold_logits")["logits"]
        merged = merge_logits([output["logits"] for output in outputs], "fold_logits")
        if all("patient" in output for output in outputs):
            merged["fold_patient"] = stack([output["patient"] for output in outputs], dim=1)
        return merged


def folds_of(network: nn.Module) -> list[Any]:
    """Return the networks of an ensemble, such as ``FoldEnsemble``, or the one network itself."""
    return list(getattr(network, "folds", [network]))


def merge_logits(members: list[Tensor], name: str) -> dict[str, Tensor]:
    """Average the probabilities, or the scores, of several predictions, and keep them all.

    Returns:
        "logits" (B, ..., O), whose softmax is the mean of the softmaxes of the M members (B, ...,
        O), or the mean score, where O is 1; NaN where a member is. Under ``name`` the members side
        by side (B, M, ..., O).
    """
    stacked = stack(members, dim=1)
    if stacked.shape[-1] == 1:
        return {"logits": stacked.mean(dim=1), name: stacked}
    mean = stacked.log_softmax(dim=-1).logsumexp(dim=1) - log(len(members))
    return {"logits": mean, name: stacked}
