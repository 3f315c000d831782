"""A guard against losses that are not finite."""

import math
from typing import Any

from ignite.engine import Engine
from monai.engines.utils import IterationEvents


class FiniteLossHandler:
    """Stop at a loss that is not finite, before the optimiser steps on it.

    Belongs after every handler that adds to the loss. Ignite's ``TerminateOnNan`` acts after the
    step and ends the run as if it had succeeded.
    """

    def attach(self, engine: Engine) -> None:
        """Subscribe to the trainer."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self.check_loss)

    def check_loss(self, engine: Any) -> None:
        """Check the total loss of the batch.

        Raises:
            FloatingPointError: for a loss that is NaN or infinite.
        """
        loss = engine.state.output["loss"].item()
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} in epoch {engine.state.epoch}, iteration "
                f"{engine.state.iteration}, for the subjects {engine.state.batch.get('subject')}; "
                "no step was made. Check these images for NaN voxels, or lower the learning rates."
            )
