"""How unlike the training a subject is, by what the weights say of their training subjects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mrn_components.data.weight_records import REPRESENTATION, read_record
from mrn_components.metrics.spread import FAR, Spread


@dataclass(frozen=True)
class Unlike:
    """What the weights of each fold say of the spread of their training subjects."""

    spreads: Sequence[Spread]  # none where any weights do not say

    @classmethod
    def of(cls, weights: Sequence[Path]) -> "Unlike":
        """Read weight files; a ValueError names one whose statistics are damaged."""
        spreads = []
        for path in weights:
            record = read_record(path, REPRESENTATION) if path.is_file() else None
            if record is None:  # trained before 2026-11-26, or on few subjects
                return cls([])
            try:
                spreads.append(Spread.from_record(record))
            except ValueError as error:
                raise ValueError(
                    f"{path}: what it says of its training is damaged: {error}; copy the weights "
                    "again, or train anew."
                ) from error
        return cls(spreads)

    def score(self, answer: Any) -> dict[str, float]:
        """Return {"unlike_training": 0 to 1} of a network's answer about one subject, if it can.

        It is the share of subjects outside the training that lie nearer; of an ensemble the mean
        over the folds.
        """
        patients = patients_of(answer)
        if patients is None:
            return {}
        vectors = patients.float().cpu().numpy()
        widths = [len(spread.mean) for spread in self.spreads]
        if widths != [vectors.shape[1]] * len(vectors):
            return {}
        pairs = zip(self.spreads, vectors, strict=True)
        shares = [float(spread.share_nearer(vector[None])[0]) for spread, vector in pairs]
        return {"unlike_training": float(np.mean(shares))}


def patients_of(answer: Any) -> Tensor | None:
    """Return the representations (F, P) of a subject by each network that answered, if any."""
    if "fold_patient" in answer:  # of an ensemble
        return answer["fold_patient"][0]
    return answer["patient"][:1] if "patient" in answer else None


def flag_unlike(record: Mapping[str, Any]) -> list[str]:
    """Return a flag of a subject that is unlike those of the training."""
    share = record.get("unlike_training", 0.0)
    if share <= FAR:
        return []
    return [
        f"unlike the training: {share:.1%} of subjects outside it lie nearer, as the network sees "
        "them; the prediction may be wrong, look at scanner, sequence and masks"
    ]
