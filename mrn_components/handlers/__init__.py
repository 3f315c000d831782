"""Handlers of a training run: what an Ignite trainer carries besides its loss."""

from mrn_components.handlers.checkpoint import RunCheckpointHandler
from mrn_components.handlers.faults import FaultReportHandler
from mrn_components.handlers.finite_loss import FiniteLossHandler
from mrn_components.handlers.fold_checkpoints import FoldCheckpointLoader
from mrn_components.handlers.interrupt import InterruptHandler
from mrn_components.handlers.phases import PhaseValidationHandler, PretrainPhaseHandler
from mrn_components.handlers.schedule import WarmupCosineHandler
from mrn_components.handlers.seed import SeedHandler
from mrn_components.handlers.summary import EpochSummaryHandler

__all__ = [
    "EpochSummaryHandler",
    "FaultReportHandler",
    "FiniteLossHandler",
    "FoldCheckpointLoader",
    "InterruptHandler",
    "PhaseValidationHandler",
    "PretrainPhaseHandler",
    "RunCheckpointHandler",
    "SeedHandler",
    "WarmupCosineHandler",
]
