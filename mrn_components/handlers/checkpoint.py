"""Weights and checkpoints of a run, and resuming it."""

import logging
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite import distributed as idist
from ignite.engine import Engine, Events
from monai.engines import Evaluator

from mrn_components.files import remove_unfinished, replacing
from mrn_components.ledger import TrainingLedger
from mrn_components.optim import unwrap

logger = logging.getLogger(__name__)


class RunCheckpointHandler:
    """Save a run's weights and state after its epochs, and resume it.

    Writes into ``directory``, on rank 0 and never half a file:

    - ``model.pt``: the network's weights of the best validation, or the last while none was made;
    - ``model_last.pt``: the same of the last epoch saved;
    - ``checkpoints/epoch_0012.pt``: all that resuming needs, of the last two epochs saved.

    Must be the trainer's last handler: the epoch's validation and the other handlers' states are
    then complete when it saves, and mSupMoCo's projector is in the optimiser when it loads.

    Args:
        directory: folder of this run alone.
        handlers: by name; those with a ``state_dict`` are saved and restored.
        evaluator: the validation engine, which knows the best epoch. None: the last is the best.
        resume: go on from the newest checkpoint that can be read.
        interval: epochs from one save to the next. The last epoch is saved in any case.
        training_only: dotted names of modules that inference does without (section 4.1.2), left out
            of ``model.pt`` and ``model_last.pt``.
        ledger: the subjects the run trains on, saved inside every file. None saves none.
    """

    def __init__(
        self,
        *,
        directory: str | Path,
        handlers: Mapping[str, Any] | None = None,
        evaluator: Evaluator | None = None,
        resume: bool = False,
        interval: int = 1,
        training_only: Sequence[str] = (),
        ledger: TrainingLedger | None = None,
    ) -> None:
        self.directory = Path(directory)
        self.handlers = {
            name: handler
            for name, handler in (handlers or {}).items()
            if hasattr(handler, "state_dict")
        }
        self.evaluator = evaluator
        self.resume = resume
        self.interval = interval
        self.training_only = tuple(f"{name}." for name in training_only)
        self.ledger = ledger

    def attach(self, engine: Engine) -> None:
        """Subscribe to the trainer."""
        start = self.resume_run if self.resume else self.refuse_used_directory
        engine.add_event_handler(Events.STARTED, start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def refuse_used_directory(self, _engine: Engine) -> None:
        """Never write over another run.

        Raises:
            FileExistsError: when ``directory`` holds weights or checkpoints.
        """
        found = [*sorted(self.directory.glob("*.pt")), *self._checkpoints()]
        if found:
            raise FileExistsError(
                f"{self.directory} already holds a run ({found[-1].name}); go on with it by "
                "--resume True, or start another by --run_name NEW_NAME."
            )

    def resume_run(self, engine: Any) -> None:
        """Restore the newest checkpoint that can be read.

        Raises:
            FileNotFoundError: when there is no checkpoint.
            RuntimeError: when none can be read.
            ValueError: when the checkpoint does not fit this run.
        """
        paths = self._checkpoints()
        if not paths:
            raise FileNotFoundError(
                f"{self.directory} holds no checkpoint to resume; name the run by --run_name, or "
                "start it by --resume False."
            )
        if idist.get_rank() == 0:
            remove_unfinished(self.directory)
        for path in reversed(paths):
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
            except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
                # The error's text would advise to read the file without weights_only.
                reason = type(error).__name__
                logger.warning("%s cannot be read (%s); trying the one before.", path, reason)
            else:
                self._restore(engine, state, path)
                return
        raise RuntimeError(
            f"none of the checkpoints in {paths[0].parent} can be read; start another run by "
            "--run_name NEW_NAME."
        )

    def save(self, engine: Any) -> None:
        """Save what is due after the epoch."""
        if idist.get_rank() != 0:
            return
        epoch = engine.state.epoch
        due = epoch % self.interval == 0 or epoch == engine.state.max_epochs
        best = self._best()
        network = unwrap(engine.network).state_dict()
        weights = {
            name: value
            for name, value in network.items()
            if not name.startswith(self.training_only)
        }
        if best["epoch"] == epoch or (best["epoch"] == -1 and due):
            self._write(weights, self.directory / "model.pt")
        if not due:
            return
        self._write(weights, self.directory / "model_last.pt")
        state = {
            "epoch": epoch,
            "best": best,
            "network": network,
            "optimizer": engine.optimizer.state_dict(),
            "handlers": {name: handler.state_dict() for name, handler in self.handlers.items()},
        }
        self._write(state, self.directory / "checkpoints" / f"epoch_{epoch:04d}.pt")
        for old in self._checkpoints()[:-2]:
            old.unlink()

    def _restore(self, engine: Any, state: dict[str, Any], path: Path) -> None:
        epoch = state["epoch"]
        if epoch > engine.state.max_epochs:
            raise ValueError(
                f"{path} was saved after epoch {epoch}, but the run ends at epoch "
                f"{engine.state.max_epochs}; raise --epochs to {epoch} or more."
            )
        if state["handlers"].keys() != self.handlers.keys():
            raise ValueError(
                f"{path} holds the states of the handlers {sorted(state['handlers'])}, this run "
                f"has {sorted(self.handlers)}; resume with the configuration it was started with."
            )
        try:
            unwrap(engine.network).load_state_dict(state["network"])
            engine.optimizer.load_state_dict(state["optimizer"])
            for name, handler in self.handlers.items():
                handler.load_state_dict(state["handlers"][name])
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split()[:24])  # one of perhaps hundreds of tensors
            raise ValueError(
                f"{path} does not fit this run ({reason} ...); resume with the configuration the "
                "run was started with, or start another by --run_name NEW_NAME."
            ) from error
        if self.evaluator is not None:
            self.evaluator.state.best_metric = state["best"]["value"]
            self.evaluator.state.best_metric_epoch = state["best"]["epoch"]
        if self.ledger is not None:
            self.ledger.resume(path)
        engine.state.epoch = epoch
        engine.state.iteration = epoch * engine.state.epoch_length
        logger.info("Resumed after epoch %d of %d from %s", epoch, engine.state.max_epochs, path)

    def _best(self) -> dict[str, Any]:
        """The best validation so far: its metric and its epoch, -1 before the first."""
        if self.evaluator is None:
            return {"value": -1.0, "epoch": -1}
        state = self.evaluator.state
        return {"value": float(state.best_metric), "epoch": state.best_metric_epoch}

    def _checkpoints(self) -> list[Path]:
        """The checkpoints, oldest first."""
        paths = (self.directory / "checkpoints").glob("epoch_*.pt")
        return sorted(paths, key=lambda path: int(path.stem.removeprefix("epoch_")))

    def _write(self, content: Any, path: Path) -> None:
        with replacing(path) as unfinished:
            torch.save(content, unfinished)
            if self.ledger is not None:
                self.ledger.append_to(unfinished)
