"""``mrn baseline``: a regression on a few numbers of each subject, on the folds of ``crossval``."""

from mrn_components.app.baseline.run import baseline
