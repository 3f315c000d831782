"""Experiment tracking by MONAI's ``--tracking mlflow``."""

from collections.abc import Callable, Sequence
from typing import Any

from ignite.engine import Engine
from monai.handlers import MLFlowHandler


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
            handler.output_transform = _Single(handler.output_transform)


class _Single:
    """A transform that takes the only item out of a tuple."""

    def __init__(self, transform: Callable[[Any], Any]) -> None:
        self.transform = transform

    def __call__(self, output: Any) -> Any:
        value = self.transform(output)
        return value[0] if isinstance(value, tuple) and len(value) == 1 else value
