"""The phases of a run: pretraining, then the full loss (section 4.1.2)."""

from typing import Any

from ignite.engine import Engine, Events
from monai.engines import Evaluator
from monai.engines.utils import IterationEvents
from monai.handlers import ValidationHandler

from mrn_components.training.losses import MRNLoss


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
        optimizer = engine.optimizer
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        trained = [p for p in trained if p.grad is not None]
        empty = [p for p in trained if p not in optimizer.state and not p.grad.any()]
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
