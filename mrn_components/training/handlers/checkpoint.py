"""Weights and checkpoints: written by a run, resumed from, and read for an ensemble."""

import logging
import math
import pickle
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
from ignite import distributed as idist
from ignite.engine import Engine, Events
from monai.handlers import CheckpointLoader
from monai.utils import ensure_tuple
from torch import nn
from torch.utils._pytree import tree_leaves

from mrn_components.data.ledger import TrainingLedger
from mrn_components.data.weight_records import KEPT_WEIGHTS, append_record
from mrn_components.networks.ensemble import FoldEnsemble
from mrn_components.system.errors import DamagedFileError, ResourceError
from mrn_components.system.files import (
    check_digest,
    digest_path,
    existing_file,
    lock,
    remove_unfinished,
    replacing_hashed,
)
from mrn_components.training.handlers.kept_weights import KeptWeights
from mrn_components.training.optim import unwrap

logger = logging.getLogger(__name__)


class RunCheckpointHandler:
    """Save a run's weights and state after its epochs, and resume it.

    Writes into ``directory``, on rank 0 and never half a file:

    - ``model.pt``: the weights to use, and how they were come by (``read_kept``);
    - ``model_last.pt``: those of the last epoch saved;
    - ``checkpoints/epoch_0012.pt``: all that resuming needs, of the last two epochs saved;
    - beside each its SHA-256 (``model.pt.sha256``), which is compared before the file is used.

    Must be the trainer's last handler: the epoch's validation and the other handlers' states are
    then complete when it saves, and mSupMoCo's projector is in the optimiser when it loads.

    Args:
        directory: folder of this run alone.
        handlers: by name; those with a ``state_dict`` are saved and restored.
        keep: the rule for ``model.pt``. None: the weights of the last epoch saved.
        resume: go on from the newest checkpoint that is undamaged.
        interval: epochs from one save to the next. The last epoch is saved in any case.
        training_only: dotted names of modules that inference does without (section 4.1.2), left out
            of ``model.pt`` and ``model_last.pt``.
        ledger: the subjects the run trains on, saved inside every file. None saves none.
        allow_changed: what may differ from the run that is resumed: "processes", their number, or
            "subjects", those the run trains on.

    Raises:
        RuntimeError: when another process trains there.
        FileExistsError: when ``directory`` holds another run.
        FileNotFoundError: when there is no checkpoint to resume.
        DamagedFileError: when all of them are damaged.
        ValueError: when the checkpoint does not fit this run.
        ResourceError: when the disk has no room for three checkpoints.
    """

    def __init__(
        self,
        *,
        directory: str | Path,
        handlers: Mapping[str, Any] | None = None,
        keep: KeptWeights | None = None,
        resume: bool = False,
        interval: int = 1,
        training_only: Sequence[str] = (),
        ledger: TrainingLedger | None = None,
        allow_changed: str | Sequence[str] = (),
    ) -> None:
        self.directory = Path(directory)
        named = (handlers or {}).items()
        self.handlers = {name: each for name, each in named if hasattr(each, "state_dict")}
        self.keep = keep or KeptWeights(rule="last")
        self.resume = resume
        self.interval = interval
        self.training_only = tuple(f"{name}." for name in training_only)
        self.ledger = ledger
        self.allow_changed = ensure_tuple(allow_changed)
        self._lock: TextIO | None = None

    def attach(self, engine: Engine) -> None:
        """Subscribe to the trainer."""
        self.keep.attach(engine)
        start = self.resume_run if self.resume else self.refuse_used_directory
        engine.add_event_handler(Events.STARTED, start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def claim(self) -> None:
        """Keep other processes out of ``directory``, before anything is computed or written."""
        if self.resume:
            self._existing_checkpoints()
        if idist.get_rank() == 0 and self._lock is None:
            self._lock = lock(self.directory)
        if not self.resume:
            self.refuse_used_directory()

    def refuse_used_directory(self, engine: Any = None) -> None:
        """Never write over another run, nor begin one that the disk cannot hold."""
        found = [*sorted(self.directory.glob("*.pt")), *self._checkpoints()]
        if found and not self._checkpoints():
            raise FileExistsError(self._no_way_on())
        if found:
            raise FileExistsError(
                f"{self.directory} already holds a run ({found[-1].name}); go on with it by "
                "--resume True, or start another by --run_name NEW_NAME."
            )
        if engine is not None:
            self._check_space(engine)

    def resume_run(self, engine: Any) -> None:
        """Restore the newest checkpoint that can be read."""
        paths = self._existing_checkpoints()
        if idist.get_rank() == 0:
            remove_unfinished(self.directory)
        for path in reversed(paths):
            try:
                check_digest(path)
                state = torch.load(path, map_location="cpu", weights_only=True)
            except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, ValueError) as error:
                # The error's text would advise to read the file without weights_only.
                damaged = isinstance(error, DamagedFileError)
                reason = "SHA-256 mismatch" if damaged else type(error).__name__
                logger.warning(
                    "%s is damaged (%s): falling back to the checkpoint before it.", path, reason
                )
            else:
                self._check_space(engine)
                self._restore(engine, state, path)
                self._catch_up(engine)
                return
        raise DamagedFileError(
            f"none of the checkpoints in {paths[0].parent} is undamaged; start another run by "
            "--run_name NEW_NAME."
        )

    def save(self, engine: Any) -> None:
        """Save what is due after the epoch."""
        if idist.get_rank() != 0:
            return
        epoch = engine.state.epoch
        due = epoch % self.interval == 0 or epoch == engine.state.max_epochs
        kept = self.keep.update(engine)
        chosen = kept is not None and self.keep.epoch == epoch
        # Weights come after a checkpoint: a kill in between leaves a run that can be gone on with.
        due = due or (chosen and not self._checkpoints())
        if due:
            self._write(
                self._state(engine), self.directory / "checkpoints" / f"epoch_{epoch:04d}.pt"
            )
        if kept is not None and (due or chosen):
            self._write_kept(engine, kept)
        if not due:
            return
        self._write(self._for_inference(unwrap(engine.network)), self.directory / "model_last.pt")
        for old in self._checkpoints()[:-2]:
            old.unlink()
            digest_path(old).unlink(missing_ok=True)

    def _state(self, engine: Any) -> dict[str, Any]:
        """All that resuming needs."""
        return {
            "epoch": engine.state.epoch,
            "processes": idist.get_world_size(),
            "kept": self.keep.state_dict(),
            "network": unwrap(engine.network).state_dict(),
            "optimizer": engine.optimizer.state_dict(),
            "handlers": {name: handler.state_dict() for name, handler in self.handlers.items()},
        }

    def _write_kept(self, engine: Any, kept: nn.Module) -> None:
        record = self.keep.record(engine)
        self._write(self._for_inference(kept), self.directory / "model.pt", record)

    def _catch_up(self, engine: Any) -> None:
        """Write the weights of the resumed epoch, which a kill may have kept from being written."""
        if idist.get_rank() == 0:
            if (kept := self.keep.current(engine)) is not None:
                self._write_kept(engine, kept)
            network = unwrap(engine.network)
            self._write(self._for_inference(network), self.directory / "model_last.pt")

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
        self._check_unchanged(state, path)
        try:
            unwrap(engine.network).load_state_dict(state["network"])
            engine.optimizer.load_state_dict(state["optimizer"])
            for name, handler in self.handlers.items():
                handler.load_state_dict(state["handlers"][name])
            self.keep.load_state_dict(_kept(state))
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split()[:24])  # one of perhaps hundreds of tensors
            raise ValueError(
                f"{path} does not fit this run ({reason} ...); resume with the configuration the "
                "run was started with, or start another by --run_name NEW_NAME."
            ) from error
        if self.ledger is not None:
            self.ledger.resume(path)
        engine.state.epoch = epoch
        engine.state.iteration = epoch * engine.state.epoch_length
        logger.info("Resumed after epoch %d of %d from %s", epoch, engine.state.max_epochs, path)

    def _check_unchanged(self, state: dict[str, Any], path: Path) -> None:
        """Refuse another number of processes and other subjects, which change every number."""
        now = idist.get_world_size()
        was = state.get("processes", now)  # checkpoints before 2026-11-24 do not say
        changed = {}
        if was != now:
            changed["processes"] = f"{was} processes made {path}, now there are {now}"
        if self.ledger is not None and self.ledger.differs_from(path):
            changed["subjects"] = f"{path} was trained on other subjects, or on other images"
        for what, message in changed.items():
            if what not in self.allow_changed:
                raise ValueError(
                    f"{message}. Resume with what the run was started with; to change it "
                    f"nevertheless add --allow_changed {what}."
                )

    def _check_space(self, engine: Any) -> None:
        """Refuse to start what would end at a full disk: two checkpoints stay, one is written."""
        if idist.get_rank() != 0:
            return
        parameters = [p for group in engine.optimizer.param_groups for p in group["params"]]
        states = [part.state_dict() for part in (self.keep, *self.handlers.values())]
        tensors = [*engine.network.state_dict().values(), *tree_leaves(states)]
        size = sum(t.nbytes for t in tensors if torch.is_tensor(t))
        size += 2 * sum(p.nbytes for p in parameters)  # the moments of AdamW
        used = sum(path.stat().st_size for path in self._checkpoints())
        self.directory.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.directory).free
        if free < 3 * size - used:
            gib = 1 / 2**30
            raise ResourceError(
                f"{self.directory} has {free * gib:.3g} GiB of free disk; the run needs "
                f"{(3 * size - used) * gib:.3g} for its checkpoints. Free some, or name a folder "
                "on another disk by --output_dir."
            )

    def _for_inference(self, network: nn.Module) -> dict[str, Any]:
        state = network.state_dict()
        return {name: x for name, x in state.items() if not name.startswith(self.training_only)}

    def _checkpoints(self) -> list[Path]:
        """The checkpoints, oldest first."""
        paths = (self.directory / "checkpoints").glob("epoch_*.pt")
        return sorted(paths, key=lambda path: int(path.stem.removeprefix("epoch_")))

    def _existing_checkpoints(self) -> list[Path]:
        paths = self._checkpoints()
        if not paths and any(self.directory.glob("*.pt")):
            raise FileNotFoundError(self._no_way_on())
        if not paths:
            raise FileNotFoundError(
                f"{self.directory} holds no checkpoint to resume; name the run by --run_name, or "
                "start it by --resume False."
            )
        return paths

    def _no_way_on(self) -> str:
        """What to do about weights without a checkpoint, for which no resuming is possible."""
        names = ", ".join(sorted(path.name for path in self.directory.glob("*.pt")))
        return (
            f"{self.directory} already holds a run ({names}); it has no checkpoint, so that it can "
            "neither be gone on with nor written over. Start another by --run_name NEW_NAME, or "
            "delete this folder if nobody needs its weights."
        )

    def _write(self, content: Any, path: Path, kept: Mapping[str, Any] | None = None) -> None:
        with replacing_hashed(path) as unfinished:
            with unfinished.open("wb") as file:  # torch's own writer hides that a disk is full
                torch.save(content, file)
            if self.ledger is not None:
                self.ledger.append_to(unfinished)
            if kept is not None:
                append_record(unfinished, KEPT_WEIGHTS, kept)


def _kept(state: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of the kept weights; before 2026-11-26 the best metric chose them."""
    if "kept" in state:
        return state["kept"]
    best = state["best"]
    value = -best["value"] if best["epoch"] != -1 else math.inf
    return {"rule": "best_metric", "epoch": best["epoch"], "value": value, "shown": best}


class FoldCheckpointLoader:
    """Read the weights of every fold of an ensemble when the engine starts.

    Args:
        network: the ensemble.
        paths: a file of weights for each of its folds, in their order; one file for one fold.
        map_location: device that the weights are read to; None keeps where they were saved.

    Raises:
        ValueError: if there are not as many files as folds.
        FileNotFoundError: if a file is missing.
    """

    def __init__(
        self, *, network: FoldEnsemble, paths: str | Sequence[str], map_location: Any = None
    ) -> None:
        hint = "Train this fold first, or name the weights by --ckpt_path \"['FILE','FILE']\"."
        files = [existing_file(path=str(path), hint=hint) for path in ensure_tuple(paths)]
        if len(files) != len(network.folds):
            raise ValueError(
                "FoldCheckpointLoader paths must name one file for each of the "
                f"{len(network.folds)} folds, got {files}; make network#num_folds their number."
            )
        self.loaders = [
            CheckpointLoader(file, {"network": fold}, map_location=map_location)
            for file, fold in zip(files, network.folds, strict=True)
        ]

    def attach(self, engine: Engine) -> None:
        """Subscribe to an evaluator."""
        for loader in self.loaders:
            loader.attach(engine)
