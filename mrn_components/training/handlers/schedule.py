"""A schedule of the learning rates."""

import math
from typing import Any

from ignite.engine import Engine, Events


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
        factor = self.factor(
            engine.state.iteration, engine.state.max_epochs * engine.state.epoch_length
        )
        for group, rate in zip(engine.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = factor * rate

    def factor(self, step: int, num_steps: int) -> float:
        """Share of the full learning rates at ``step``, from 1 to ``num_steps``."""
        cosine = (1 + math.cos(math.pi * (step - 1) / num_steps)) / 2
        return min(step / self.warmup_steps, 1.0) * cosine
