"""What the sizes and places of the crops tell of the labels, beside what a network does."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from mrn_components.checks.cohort import Confounds, geometry_baseline
from mrn_components.data.target import Score, Target


def recorded_geometry(
    records: Iterable[Mapping[str, Any]], labels: Mapping[str, Any], target: Target
) -> Confounds | None:
    """Fit the baseline to the crops, ``boxes``, of predicted subjects; None where there are none.

    Subjects without a label are passed over. Of a score, its lower and its higher half are told
    apart.
    """
    boxes = {
        record["subject"]: {name: (b["start"], b["stop"]) for name, b in record["boxes"].items()}
        for record in records
        if record["boxes"] and record["subject"] in labels
    }
    if not boxes:
        return None
    names, groups = target.groups([labels[subject] for subject in boxes], 2)
    found = geometry_baseline(list(boxes.values()), groups.tolist())
    if found is None or not isinstance(target, Score):
        return found
    return replace(found, reason=f"{' and '.join(names)} told apart; {found.reason}")
