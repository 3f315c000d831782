"""A guard against losses that are not finite."""

import math
from typing import Any

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents


class FiniteLossHandler:
    """Stop at a loss or a gradient that is not finite, before the optimiser steps on it.

    Belongs after every handler that adds to the loss. Ignite's ``TerminateOnNan`` acts after the
    step and ends the run as if it had succeeded.
    """

    def attach(self, engine: Engine) -> None:
        """Subscribe to the trainer."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self.check_loss)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.check_gradients)

    def check_loss(self, engine: Any) -> None:
        """Check the total loss of the batch.

        Raises:
            FloatingPointError: for a loss that is NaN or infinite.
        """
        loss = engine.state.output["loss"].item()
        if not math.isfinite(loss):
            raise FloatingPointError(_message(engine, f"the loss is {loss}"))

    def check_gradients(self, engine: Any) -> None:
        """Check the gradients: a finite loss may have others, and one step spoils all weights.

        Raises:
            FloatingPointError: for a gradient that is NaN or infinite.
        """
        if engine.amp:  # float16 has infinite gradients now and then, and its scaler skips the step
            return
        gradients = [
            parameter.grad
            for group in engine.optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        norm = torch.nn.utils.get_total_norm(gradients).item()
        if not math.isfinite(norm):
            raise FloatingPointError(_message(engine, f"the norm of the gradients is {norm}"))


def _message(engine: Any, what: str) -> str:
    return (
        f"{what} in epoch {engine.state.epoch}, iteration {engine.state.iteration}, for the "
        f"subjects {engine.state.batch.get('subject')}; no step was made. Check these images for "
        "NaN voxels, or lower the learning rates."
    )
