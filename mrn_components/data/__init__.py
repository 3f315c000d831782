"""Subjects on disk and their folds; of its modules only ``dataset``, for engines, needs torch."""

from mrn_components.data.folds import select_fold, split_folds
from mrn_components.data.identities import DataLeakageError, identify_subjects
from mrn_components.data.subjects import load_subjects
from mrn_components.data.tables import Subject
