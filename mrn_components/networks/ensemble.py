"""An ensemble of the networks of several folds (section 4.1.2)."""

import math
from copy import deepcopy
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
        """Diagnose a batch of B subjects with every fold.

        Args:
            image: what each network takes: crops by ROI, or the tensor of the first ROI.
            others: with a tensor, those of the other ROIs.

        Returns:
            "logits" (B, 2) of the mean probabilities, and "fold_logits" (B, F, 2). For tensors only
            the logits.
        """
        # One fold after the other: the memory of one forward pass, whatever F.
        outputs = [fold(image, **others) for fold in self.folds]
        if isinstance(image, Tensor):
            return merge_logits(outputs, "fold_logits")["logits"]
        return merge_logits([output["logits"] for output in outputs], "fold_logits")


def merge_logits(members: list[Tensor], name: str) -> dict[str, Tensor]:
    """Average the probabilities of several predictions, and keep them all.

    Args:
        members: logits (B, ..., 2) of each prediction.
        name: key of the members in the result.

    Returns:
        "logits" (B, ..., 2), whose softmax is the mean of the members' softmaxes, and under
        ``name`` the members side by side (B, M, ..., 2).
    """
    stacked = stack(members, dim=1)
    mean = stacked.log_softmax(dim=-1).logsumexp(dim=1) - math.log(len(members))
    return {"logits": mean, name: stacked}
