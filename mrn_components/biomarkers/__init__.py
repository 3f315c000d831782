"""Measurements of the nuclei that need no network: volume, susceptibility, neuromelanin."""

from mrn_components.biomarkers.catalogue import (
    REFERENCES,
    Biomarker,
    Reference,
    biomarkers_of,
    columns_of,
    describe_biomarkers,
)
from mrn_components.biomarkers.measures import measure_nuclei
from mrn_components.biomarkers.tables import read_biomarkers, write_biomarkers

__all__ = [
    "REFERENCES",
    "Biomarker",
    "Reference",
    "biomarkers_of",
    "columns_of",
    "describe_biomarkers",
    "measure_nuclei",
    "read_biomarkers",
    "write_biomarkers",
]
