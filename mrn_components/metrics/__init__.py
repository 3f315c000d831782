"""Metrics of a diagnosis and of the difference between two, with 95 % intervals."""

from mrn_components.metrics.calibration import NUM_BINS, reliability_bins
from mrn_components.metrics.comparison import (
    Comparison,
    compare_classes,
    compare_diagnoses,
    compare_scores,
    format_comparison,
)
from mrn_components.metrics.correlation import score_metrics
from mrn_components.metrics.diagnosis import class_metrics, diagnosis_metrics, format_metrics
from mrn_components.metrics.intervals import (
    CONFIDENCE,
    NUM_RESAMPLES,
    ZERO_VARIANCE,
    Z,
    wilson_interval,
)
from mrn_components.metrics.operating import (
    choose_threshold,
    decisions_at,
    needed_subjects,
    net_benefit,
)
from mrn_components.metrics.resampled import RESAMPLED
from mrn_components.metrics.scores import THRESHOLD, Metric
