"""Stopping a run from outside."""

import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from ignite.engine import Engine, Events
from monai.engines import Evaluator

logger = logging.getLogger(__name__)
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)


class InterruptHandler:
    """End the run at its next step when a signal asks for it, with the exit code 143 or 130.

    SIGTERM (``docker stop``, ``scancel``, ``timeout``), SIGUSR1, SIGUSR2 (a cluster's warning) and
    Ctrl-C set a flag only, so that a step and a checkpoint in the making are finished; a second
    signal acts at once. Checkpoints are those of finished epochs, and every epoch follows from its
    seed: a resumed run repeats the steps of the epoch it was stopped in, bit for bit on the CPU.
    Workers of the data loaders ignore the signals, which a terminal or a cluster sends to all.

    Args:
        evaluator: the validation engine, which stops at its next step too.
    """

    def __init__(self, *, evaluator: Evaluator | None = None) -> None:
        self.evaluator = evaluator
        self.received: signal.Signals | None = None
        self._earlier: dict[signal.Signals, Any] = {}

    def attach(self, engine: Engine) -> None:
        """Subscribe to the trainer."""
        engine.add_event_handler(Events.STARTED, self.listen)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.stop)
        engine.add_event_handler(Events.COMPLETED, self.restore)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.ITERATION_COMPLETED, self.stop)

    def listen(self, engine: Any) -> None:
        """Take over the signals, in the main thread, where alone that is possible."""
        self.received, self.trainer = None, engine
        if threading.current_thread() is not threading.main_thread():
            return
        self._earlier = {number: signal.signal(number, self.note) for number in _SIGNALS}
        for of in (engine, self.evaluator):
            loader: Any = getattr(of, "data_loader", None)
            if hasattr(loader, "worker_init_fn"):
                loader.worker_init_fn = _DeafWorker(loader.worker_init_fn)

    def note(self, number: int, _frame: FrameType | None) -> None:
        """Remember the signal; the next one has its usual effect."""
        self.received = signal.Signals(number)
        self.restore()

    def stop(self, _engine: Any) -> None:
        """End the run if a signal came.

        Raises:
            SystemExit: with 130 after Ctrl-C, else 143.
        """
        if self.received is None:
            return
        state = self.trainer.state
        logger.warning(
            "Stopped by %s in epoch %d of %d. Finished epochs are saved: go on by the same command "
            "and --resume True, which repeats this epoch to the same end. Before the first "
            "checkpoint start again without it.",
            self.received.name,
            state.epoch,
            state.max_epochs,
        )
        raise SystemExit(130 if self.received is signal.SIGINT else 143)

    def restore(self, _engine: Any = None) -> None:
        """Give the signals back."""
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        self._earlier = {}


class _DeafWorker:
    """A loader's ``worker_init_fn`` that ignores the signals which the main process answers."""

    def __init__(self, init: Callable[[int], None] | None) -> None:
        self.init: Any = init.init if isinstance(init, _DeafWorker) else init

    def __call__(self, worker_id: int) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if self.init is not None:
            self.init(worker_id)
