"""Handlers of a training run: what an Ignite trainer carries besides its loss."""

from mrn_components.handlers.checkpoint import RunCheckpointHandler
from mrn_components.handlers.finite_loss import FiniteLossHandler
from mrn_components.handlers.fold_checkpoints import FoldCheckpointLoader
from mrn_components.handlers.phases import PhaseValidationHandler, PretrainPhaseHandler
from mrn_components.handlers.seed import SeedHandler
from mrn_components.handlers.summary import EpochSummaryHandler

__all__ = [
    "EpochSummaryHandler",
    "FiniteLossHandler",
    "FoldCheckpointLoader",
    "PhaseValidationHandler",
    "PretrainPhaseHandler",
    "RunCheckpointHandler",
    "SeedHandler",
]
