"""The curves of a run, its lines an epoch on the screen, and ``--tracking mlflow``."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from ignite import distributed as idist
from ignite.engine import Engine, Events
from ignite.metrics import Average
from monai.engines import Evaluator
from monai.handlers import MLFlowHandler

from mrn_components.training.losses import MRNLoss

logger = logging.getLogger(__name__)


class EpochSummaryHandler:
    """Average the loss and its terms over each epoch; log a line of it, and one of its validation.

    The averages and the learning rates go to ``engine.state.metrics``, where MONAI's
    ``TensorBoardStatsHandler``, standing after this handler, finds them. Terms are ``loss.terms``
    and every scalar tensor that a handler puts into ``engine.state.output``.

    Args:
        loss: the trainer's loss.
        evaluator: the validation engine, which runs before this handler; None without one.
    """

    def __init__(self, *, loss: MRNLoss, evaluator: Evaluator | None = None) -> None:
        self.loss = loss
        self.evaluator = evaluator

    def attach(self, engine: Engine) -> None:
        """Subscribe to the trainer."""
        engine.add_event_handler(Events.STARTED, self.announce)
        engine.add_event_handler(Events.EPOCH_STARTED, self.start_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add_terms)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.summarise)

    def announce(self, engine: Any) -> None:
        """Say what will be trained on."""
        if idist.get_rank() == 0:
            validated = self.evaluator and len(self.evaluator.data_loader.dataset)  # type: ignore
            logger.info(
                "Training on %d subjects, %d epochs of %d steps; validation on %d",
                len(engine.data_loader.dataset),
                engine.state.max_epochs,
                engine.state.epoch_length,
                validated or 0,
            )

    def start_epoch(self, _engine: Engine) -> None:
        """Forget the epoch before."""
        self.averages: dict[str, Average] = {}
        self.started = time.monotonic()

    def add_terms(self, engine: Any) -> None:
        """Take in the terms of the batch."""
        for name, value in {**engine.state.output, **self.loss.terms}.items():
            if isinstance(value, torch.Tensor) and value.ndim == 0:
                # MONAI keys the loss by an enum. On the device: to fetch it is to wait for it.
                average = self.averages.setdefault(str(name), Average(device=value.device))
                average.update(value.detach())

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
            epoch = f"Epoch {engine.state.epoch}/{engine.state.max_epochs}"
            line = f"{epoch} training: {_listed(terms)}; {seconds:.1f} s"
            logger.info("%s, %s left", line, timedelta(seconds=round(left)))
            state: Any = self.evaluator and self.evaluator.state
            if state is not None and state.epoch == engine.state.epoch:
                best = f"best {state.key_metric_name} {state.best_metric:.4f}"
                line = f"{epoch} validation: {_listed(state.metrics)}; {best}"
                logger.info("%s in epoch %d", line, state.best_metric_epoch)


def _listed(values: Mapping[str, Any]) -> str:
    """Name numbers in a line."""
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())


class TrackingHandler:
    """Let the handlers that ``--tracking mlflow`` brings log the loss of our trainers.

    MONAI's settings take the loss out of a list of decollated dictionaries. Crops are ragged, so
    our trainers put out one dictionary, of which these settings make a tuple that MLflow refuses.

    Args:
        handlers: the trainer's further handlers; those of MLflow are changed.
    """

    def __init__(self, *, handlers: Sequence[Any]) -> None:
        self.handlers = [item for item in handlers if isinstance(item, MLFlowHandler)]

    def attach(self, _engine: Engine) -> None:
        """Change how they read the trainer's output."""
        for handler in self.handlers:
            handler.output_transform = partial(_only_item, handler.output_transform)


def _only_item(transform: Callable[[Any], Any], output: Any) -> Any:
    """Transform an output, and take it out of a tuple of one."""
    value = transform(output)
    return value[0] if isinstance(value, tuple) and len(value) == 1 else value
