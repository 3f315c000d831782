"""What changes in the course of a run: its seeds, its phases and its learning rates."""

import math
from typing import Any

import numpy as np
import torch
from ignite import distributed as idist
from ignite.engine import Engine, Events
from ignite.utils import manual_seed
from monai.data.utils import set_rnd
from monai.engines import Evaluator
from monai.engines.utils import IterationEvents
from monai.handlers import ValidationHandler

from mrn_components.training.losses import MRNLoss


class SeedHandler:
    """Seed every epoch from (seed, epoch, rank).

    Ignite makes an epoch's loader iterator after EPOCH_STARTED, so the order of the subjects and
    the seeds of the workers follow from it as well.

    Args:
        dataset: the training data set, whose MONAI random transforms keep states of their own.
        seed: seed of the run. Paper: 1 (section 4.1.1).
    """

    def __init__(self, *, dataset: Any, seed: int = 1) -> None:
        self.dataset = dataset
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Subscribe to the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.reseed)

    def reseed(self, engine: Any) -> None:
        """Seed torch, NumPy, ``random`` and the random transforms for the epoch."""
        if getattr(engine.data_loader, "persistent_workers", False):
            raise ValueError(
                "the data loader has persistent_workers=True, so its workers cannot be seeded anew "
                "each epoch; set persistent_workers to False."
            )
        entropy = (self.seed, engine.state.epoch, idist.get_rank())
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        manual_seed(seed)
        set_rnd(self.dataset, seed)


class PretrainPhaseHandler:
    """Pretrain without the classification loss, then train with the full loss (section 4.1.2).

    What only the classification trains stays as it is while pretraining, and begins the second
    phase with a fresh state of the optimiser.

    Args:
        loss: the trainer's loss; its ``cls_weight`` is 0 while pretraining.
        pretrain_epochs: epochs of pretraining. Paper: 400 of 600.
    """

    def __init__(self, *, loss: MRNLoss, pretrain_epochs: int = 400) -> None:
        self.loss = loss
        self.pretrain_epochs = pretrain_epochs
        self.cls_weight = loss.cls_weight

    def attach(self, engine: Engine) -> None:
        """Subscribe to the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.choose_phase)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.drop_zero_gradients)

    def choose_phase(self, engine: Engine) -> None:
        """Switch the classification loss off or on, by the epoch alone: resuming needs no state."""
        pretraining = engine.state.epoch <= self.pretrain_epochs
        self.loss.cls_weight = 0.0 if pretraining else self.cls_weight

    def drop_zero_gradients(self, engine: Any) -> None:
        """Take its gradient of zeros from a parameter that never had another.

        The optimiser then skips it. With zeros it would decay its weights, and spend the bias
        correction of AdamW's moments, so that its first real steps were several times too large.
        """
        groups, states = engine.optimizer.param_groups, engine.optimizer.state
        trained = [p for group in groups for p in group["params"] if p.grad is not None]
        fresh = [p for p in trained if p not in states]
        used = torch.stack([p.grad.any() for p in fresh]).tolist() if fresh else []  # asked once
        empty = [p for p, has_gradient in zip(fresh, used, strict=True) if not has_gradient]
        if engine.amp and len(empty) == len(trained):
            return  # the scaler of float16 refuses a step without any gradient
        for parameter in empty:
            parameter.grad = None


class PhaseValidationHandler(ValidationHandler):
    """Validate from a first epoch on, so that no untrained classifier becomes the best one.

    Args:
        validator: the evaluator to run.
        first_epoch: first epoch that is validated, the first after pretraining.
        interval: epochs from one validation to the next. The last epoch is validated in any case.
    """

    def __init__(self, *, validator: Evaluator, first_epoch: int = 1, interval: int = 1) -> None:
        super().__init__(interval=1, validator=validator)
        self.first_epoch = first_epoch
        self.every = interval

    def __call__(self, engine: Engine) -> None:
        """Validate if it is time."""
        since = engine.state.epoch - self.first_epoch
        last = engine.state.epoch == engine.state.max_epochs
        if since >= 0 and (last or since % self.every == 0):
            super().__call__(engine)


class WarmupCosineHandler:
    """Let the learning rates rise linearly to those of the config, then fall to 0 along a cosine.

    The paper names no schedule; training a transformer from random weights in few steps needs one.
    The factor follows from the iteration alone, so that a resumed run needs no state of it. Torch's
    schedulers know only the parameter groups of their first day, and mSupMoCo's projector joins the
    optimiser later: this handler stands behind it.

    Args:
        warmup_steps: iterations until the full learning rates.

    Raises:
        ValueError: for less than one step.
    """

    def __init__(self, *, warmup_steps: int) -> None:
        if warmup_steps < 1:
            raise ValueError(
                f"warmup_steps must be at least 1, got {warmup_steps}; for constant learning rates "
                "leave the handler out."
            )
        self.warmup_steps = warmup_steps

    def attach(self, engine: Engine) -> None:
        """Subscribe to the trainer."""
        engine.add_event_handler(Events.STARTED, self.remember_rates)
        engine.add_event_handler(Events.ITERATION_STARTED, self.set_rates)

    def remember_rates(self, engine: Any) -> None:
        """Note the config's learning rates, before a checkpoint brings those of its last step."""
        self.rates = [group["lr"] for group in engine.optimizer.param_groups]

    def set_rates(self, engine: Any) -> None:
        """Set the rates of the iteration."""
        state = engine.state
        factor = self.factor(state.iteration, state.max_epochs * state.epoch_length)
        for group, rate in zip(engine.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = factor * rate

    def factor(self, step: int, num_steps: int) -> float:
        """Share of the full learning rates at ``step``, from 1 to ``num_steps``."""
        cosine = (1 + math.cos(math.pi * (step - 1) / num_steps)) / 2
        return min(step / self.warmup_steps, 1.0) * cosine
