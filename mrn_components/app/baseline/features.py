"""The numbers that a baseline sees of each subject, and the ROI that each belongs to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, Literal

import numpy as np

from mrn_components.biomarkers import biomarkers_of, measure_nuclei
from mrn_components.checks.cohort import geometry_fields
from mrn_components.images.image import Image
from mrn_components.images.volume import Volume
from mrn_components.regions.nuclei import Nuclei
from mrn_components.regions.roi import ROI

FeatureKind = Literal["biomarkers", "means", "geometry", "tokens"]
Measured = Mapping[str, float | None]

TITLES = {
    "biomarkers": "biomarkers",
    "means": "means of the nuclei: susceptibility, contrast of neuromelanin",
    "geometry": "geometry only: sizes and places of crops, a control, not a marker",
    "tokens": "tokens of a frozen encoder, pooled over the nuclei of each ROI",
}
_MEANS = ("mean", "contrast")  # kinds of biomarkers


@dataclass(frozen=True, kw_only=True)
class Features:
    """A table of numbers, a row a subject."""

    subjects: Sequence[str]
    columns: Sequence[str]  # their names
    rois: Sequence[str]  # what each column belongs to
    values: np.ndarray  # (subjects, columns); NaN where a subject lacks one

    @classmethod
    def of(cls, measured: Mapping[str, Measured], roi_of: Mapping[str, str]) -> "Features":
        """Make a table of {subject: {column: number}}; columns that nobody has are left out."""
        told = {column for own in measured.values() for column in own if own[column] is not None}
        columns = [column for column in roi_of if column in told]
        rows = [[own.get(column) for column in columns] for own in measured.values()]
        values = np.array(rows, dtype=float).reshape(len(rows), len(columns))
        rois = [roi_of[column] for column in columns]
        return cls(subjects=list(measured), columns=columns, rois=rois, values=values)

    def missing(self, subject: str) -> list[str]:
        """Name the columns that a subject lacks."""
        own = self.values[self.subjects.index(subject)]
        return [column for column, number in zip(self.columns, own, strict=True) if isnan(number)]


def measure(
    kind: FeatureKind,
    volumes: Mapping[str, Volume],
    images: Mapping[str, Image],
    rois: Mapping[str, ROI],
) -> Measured:
    """Return {column: number} of a subject; None, or no column, where there is none."""
    if kind != "geometry":
        return measure_nuclei(volumes, images)
    nuclei = {
        name: Nuclei(mask=volumes[image.mask_name], image=image)
        for name, image in images.items()
        if image.mask_name in volumes
    }
    found = {
        name: nuclei[roi.image.name].box(roi)
        for name, roi in rois.items()
        if roi.image.name in nuclei
    }
    return geometry_fields({name: box for name, box in found.items() if box is not None})


def roi_by_column(
    kind: FeatureKind, images: Mapping[str, Image], rois: Mapping[str, ROI]
) -> dict[str, str]:
    """Return the ROI of every column, in the columns' order.

    A nucleus belongs to the first ROI that is cropped around it; without one, to its image.
    """
    if kind == "geometry":
        one: Any = ((0, 0, 0), (1, 1, 1))
        return {column: name for name in rois for column in geometry_fields({name: one})}
    roi_of = {}
    kept = [one for one in biomarkers_of(images) if kind == "biomarkers" or one.kind in _MEANS]
    for biomarker in kept:
        for nucleus in biomarker.nuclei:
            around = [
                name
                for name, roi in rois.items()
                if roi.image.name == biomarker.image and nucleus in roi.nuclei
            ]
            for column in biomarker.columns_for(nucleus):
                roi_of[column] = around[0] if around else biomarker.image
    return roi_of
