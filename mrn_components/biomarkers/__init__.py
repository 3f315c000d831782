"""Measurements of the nuclei that need no network: volume, susceptibility, neuromelanin."""

from mrn_components.biomarkers.catalogue import (
    BIOMARKERS,
    COLUMNS,
    REFERENCES,
    Biomarker,
    Reference,
    describe_biomarkers,
)
from mrn_components.biomarkers.measures import biomarkers
from mrn_components.biomarkers.tables import read_biomarkers, write_biomarkers

__all__ = [
    "BIOMARKERS",
    "COLUMNS",
    "REFERENCES",
    "Biomarker",
    "Reference",
    "biomarkers",
    "describe_biomarkers",
    "read_biomarkers",
    "write_biomarkers",
]
