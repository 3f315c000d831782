"""Measurements of the nuclei that need no network: volume, susceptibility, neuromelanin."""

from mrn_components.biomarkers.catalogue import (
    Biomarker,
    Reference,
    biomarkers_of,
    columns_of,
    references,
)
from mrn_components.biomarkers.measures import measure_nuclei
from mrn_components.biomarkers.tables import BIOMARKERS, describe_biomarkers, write_biomarkers
