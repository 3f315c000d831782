"""The curves of a run, and its line an epoch on the console."""

import logging
import time
from datetime import timedelta
from typing import Any

import torch
from ignite import distributed as idist
from ignite.engine import Engine, Events
from ignite.metrics import Average

from mrn_components.training.losses import MRNLoss

logger = logging.getLogger(__name__)


class EpochSummaryHandler:
    """Average the loss and its terms over each epoch, and log one line an epoch.

    The averages and the learning rates go to ``engine.state.metrics``, where MONAI's
    ``TensorBoardStatsHandler``, standing after this handler, finds them. Terms are ``loss.terms``
    and every scalar tensor that a handler puts into ``engine.state.output``.

    Args:
        loss: the trainer's loss.
    """

    def __init__(self, *, loss: MRNLoss) -> None:
        self.loss = loss

    def attach(self, engine: Engine) -> None:
        """Subscribe to the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add_terms)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.summarise)

    def start_epoch(self, _engine: Engine) -> None:
        """Forget the epoch before."""
        self.averages: dict[str, Average] = {}
        self.started = time.monotonic()

    def add_terms(self, engine: Any) -> None:
        """Take in the terms of the batch."""
        scalars = {
            str(name): value  # MONAI keys the loss by an enum
            for name, value in engine.state.output.items()
            if isinstance(value, torch.Tensor) and value.ndim == 0
        }
        for name, value in {**scalars, **self.loss.terms}.items():
            self.averages.setdefault(name, Average()).update(value.detach())

    def summarise(self, engine: Any) -> None:
        """Publish the averages, over all ranks, and the learning rates; log the epoch."""
        terms = {name: float(average.compute()) for name, average in self.averages.items()}
        rates = {
            f"lr/{group.get('name', index)}": group["lr"]
            for index, group in enumerate(engine.optimizer.param_groups)
        }
        engine.state.metrics.update(terms | rates)
        if idist.get_rank() == 0:
            seconds = time.monotonic() - self.started
            left = seconds * (engine.state.max_epochs - engine.state.epoch)
            logger.info(
                "Epoch %d/%d: %s; %.1f s, %s left",
                engine.state.epoch,
                engine.state.max_epochs,
                ", ".join(f"{name} {value:.4f}" for name, value in terms.items()),
                seconds,
                timedelta(seconds=round(left)),
            )
