"""Subjects on disk, their folds, and the cached data set that the engines draw from."""

from mrn_components.data.dataset import ROIDataset, collate_subjects
from mrn_components.data.folds import select_fold, split_folds
from mrn_components.data.identities import DataLeakageError, identify_subjects
from mrn_components.data.subjects import IMAGES, MASKS, load_subjects
from mrn_components.data.tables import Subject, read_labels

__all__ = [
    "IMAGES",
    "MASKS",
    "DataLeakageError",
    "ROIDataset",
    "Subject",
    "collate_subjects",
    "identify_subjects",
    "load_subjects",
    "read_labels",
    "select_fold",
    "split_folds",
]
