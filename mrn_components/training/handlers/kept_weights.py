"""Which weights of a run are kept for use."""

import logging
import math
from typing import Any, Literal, get_args

from ignite.engine import Engine, Events
from monai.engines import Evaluator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mrn_components.training.optim import unwrap
from mrn_components.training.outputs import VALIDATION_LOSS

logger = logging.getLogger(__name__)

Rule = Literal["least_loss", "last", "mean", "teacher", "best_metric"]
_CHOOSING = ("least_loss", "best_metric")  # they look at the validation subjects


class KeptWeights:
    """The rule by which a run's weights become ``model.pt`` (section 4.1.2 is silent).

    - "least_loss": those of the epoch with the least validation loss, cross entropy of classes and
      squared error of a score;
    - "last": those of the last epoch;
    - "mean": the mean of the last epochs' weights (Izmailov et al. 2018);
    - "teacher": their moving average over the steps, classifier included (Tarvainen and Valpola
      2017);
    - "best_metric": those of the first epoch with the best key metric, such as the ROC AUC. Of few
      subjects it ties, and an epoch is chosen that ranks but does not decide yet.

    "least_loss" and "best_metric" choose on the validation subjects, whose scores are then a little
    too good. They keep the last epoch until one was validated. Averages hold parameters; buffers,
    such as statistics of batch normalisation, are those of the last epoch.

    Args:
        rule: the rule.
        evaluator: the validation engine. None: the last epoch is kept in place of a chosen one.
        first_epoch: first epoch of "mean", the first after pretraining.
        num_epochs: epochs that "mean" takes, at most.
        momentum: share of the moving average that stays at a step. Paper: 0.999 (Eq. 9).

    Raises:
        ValueError: for an unknown rule, a momentum outside [0, 1) or less than one epoch; later,
            if the validation does not measure what the rule looks at.
    """

    def __init__(
        self,
        *,
        rule: Rule = "least_loss",
        evaluator: Evaluator | None = None,
        first_epoch: int = 1,
        num_epochs: int = 10,
        momentum: float = 0.999,
    ) -> None:
        if rule not in get_args(Rule):
            raise ValueError(f"keep must be one of {list(get_args(Rule))}, got {rule!r}.")
        if not 0 <= momentum < 1 or num_epochs < 1:
            raise ValueError(
                "the kept weights need a momentum in [0, 1) and num_epochs of at least 1, got "
                f"{momentum} and {num_epochs}."
            )
        self.rule = rule
        self.evaluator = evaluator
        self.first_epoch = first_epoch
        self.num_epochs = num_epochs
        self.momentum = momentum
        self.epoch, self.value = -1, math.inf  # of the chosen epoch; what is least is kept
        self.average: AveragedModel | None = None

    def attach(self, engine: Engine) -> None:
        """Subscribe to the trainer, before what resumes it."""
        engine.add_event_handler(Events.STARTED, self.start)

    def start(self, engine: Any) -> None:
        """Begin the average, where the rule has one."""
        if self.average is not None or self.rule not in ("mean", "teacher"):
            return
        network = unwrap(engine.network)
        moving = get_ema_multi_avg_fn(self.momentum) if self.rule == "teacher" else None
        average = self.average = AveragedModel(network, multi_avg_fn=moving)
        if moving is not None:
            # Not ITERATION_COMPLETED: with accumulated gradients an iteration may make no step.
            engine.optimizer.register_step_post_hook(lambda *_: average.update_parameters(network))

    def update(self, engine: Any) -> nn.Module | None:
        """Take in the epoch that ended.

        Returns:
            The network whose weights are the ones to keep now; None where an earlier epoch stays.
        """
        state, network = engine.state, unwrap(engine.network)
        if self.rule in _CHOOSING:
            return network if self._is_better(state.epoch) else None
        if self.rule == "mean":
            begin = max(self.first_epoch, state.max_epochs - self.num_epochs + 1)
            if self.average is None or state.epoch < begin:
                return network
            if state.epoch == begin:
                self.average.n_averaged.zero_()  # of a run that was made longer
            self.average.update_parameters(network)
        return network if self.average is None else self.average.module

    def current(self, engine: Any) -> nn.Module | None:
        """Return what ``update`` returned after the epoch that a run is resumed from."""
        epoch, network = engine.state.epoch, unwrap(engine.network)
        if self.rule in _CHOOSING:
            return network if self.epoch in (-1, epoch) else None
        begin = max(self.first_epoch, engine.state.max_epochs - self.num_epochs + 1)
        if self.average is None or (self.rule == "mean" and epoch < begin):
            return network
        return self.average.module

    def record(self, engine: Any) -> dict[str, Any]:
        """Tell how the weights were come by: the rule, the epoch, and the value it was chosen by.

        "chosen_on_validation" says whether the validation subjects had a say.
        """
        chosen = self.epoch != -1
        return {
            "rule": self.rule,
            "epoch": self.epoch if chosen else engine.state.epoch,
            "value": (self.value if self.rule == "least_loss" else -self.value) if chosen else None,
            "chosen_on_validation": chosen,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the choice so far, the average, and the best key metric, which is shown."""
        shown = {"value": -1.0, "epoch": -1}
        if self.evaluator is not None:
            of = self.evaluator.state
            shown = {"value": float(of.best_metric), "epoch": of.best_metric_epoch}
        average: dict[str, Tensor] = {} if self.average is None else self.average.state_dict()
        chosen = {"rule": self.rule, "epoch": self.epoch, "value": self.value}
        return {**chosen, "average": average, "shown": shown}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave, by the same rule."""
        if state["rule"] != self.rule:
            raise ValueError(f"it keeps weights by {state['rule']!r}, this run by {self.rule!r}")
        self.epoch, self.value = state["epoch"], state["value"]
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if self.evaluator is not None:
            self.evaluator.state.best_metric = state["shown"]["value"]
            self.evaluator.state.best_metric_epoch = state["shown"]["epoch"]

    def _is_better(self, epoch: int) -> bool:
        """Whether this epoch is the one to keep: the least loss, or the greatest key metric."""
        if self.evaluator is None:
            return True
        state = self.evaluator.state
        if state.epoch != epoch:  # it was not validated
            return self.epoch == -1
        if self.rule == "best_metric":
            value = -state.metrics[state.key_metric_name]
        elif VALIDATION_LOSS in state.metrics:
            value = state.metrics[VALIDATION_LOSS]
        else:
            raise ValueError(
                f"keep is 'least_loss', and the validation measures no {VALIDATION_LOSS!r}; add "
                "mrn_components.additional_metrics to validate#additional_metrics, or type "
                "--keep last."
            )
        if not value < self.value:  # also of NaN, which is less than nothing
            return self.epoch == -1
        self.epoch, self.value = epoch, value
        return True
