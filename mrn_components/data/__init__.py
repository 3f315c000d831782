"""Subjects on disk and their folds; ``data.dataset`` is what the engines draw from.

Only the latter needs torch, which takes seconds to import.
"""

from mrn_components.data.folds import select_fold, split_folds
from mrn_components.data.identities import DataLeakageError, identify_subjects
from mrn_components.data.subjects import load_subjects
from mrn_components.data.tables import Subject
