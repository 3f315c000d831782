"""Making the table of a study's features: measured on its images, or tokens of an encoder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mrn_components.app.baseline.features import (
    FeatureKind,
    Features,
    Measured,
    measure,
    roi_by_column,
)
from mrn_components.app.measuring import Read, measure_each
from mrn_components.data.identities import Identities, identify_subjects, marks_of
from mrn_components.data.layouts import Found
from mrn_components.images.image import Image
from mrn_components.regions.roi import ROI

Made = tuple[Features, Identities, dict[str, str]]  # the table, marks, why subjects failed


def measured_table(
    found: Found, kind: FeatureKind, images: Mapping[str, Image], rois: Mapping[str, ROI]
) -> Made:
    """Return what is seen of the subjects, the marks of their images, and why others failed."""

    def look(read: Read) -> tuple[Measured, frozenset[str]]:
        return measure(kind, read.volumes, images, rois), marks_of(read.subject)

    looked, errors = measure_each(found, images, look)
    numbers = {name: own for name, (own, _) in looked.items()}
    table = _table(found, kind, numbers, roi_by_column(kind, images, rois), errors)
    return table, {name: marks for name, (_, marks) in looked.items()}, errors


def token_table(found: Found, cache_dir: Path, options: Mapping[str, Any]) -> Made:
    """Return the same of an encoder's tokens; the options are those of ``token_features``."""
    from mrn_components.app.token_features import token_features  # wait for torch

    subjects = [one for one in found.subjects if one["subject"] not in found.problems]
    numbers, roi_of, failed = token_features(subjects, cache_dir=cache_dir, **options)
    errors = {**found.problems, **failed}
    table = _table(found, "tokens", numbers, roi_of, errors)
    known = [subject for subject in subjects if subject["subject"] in numbers]
    return table, identify_subjects(known, cache_dir), errors


def _table(
    found: Found,
    kind: FeatureKind,
    numbers: Mapping[str, Measured],
    roi_of: Mapping[str, str],
    errors: Mapping[str, str],
) -> Features:
    """Make the table, or say why it would be empty."""
    table = Features.of(numbers, roi_of)
    if not table.columns:
        lines = [f"  {name}: {error}" for name, error in errors.items()]
        raise ValueError("\n".join([f"no subject of {found.root} has any {kind}.", *lines]))
    return table
