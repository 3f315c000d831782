"""A run of a bundle: a process that trains it, then one that predicts with it; their commands."""

import codecs
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, TextIO

from mrn_components.bundle import bundle_config
from mrn_components.data.tables import read_rows
from mrn_components.system.files import lock
from mrn_components.system.values import flags

# MONAI warns of any config before it reads one; here it is ours, or the user's own.
_PYTHON = [sys.executable, "-W", "ignore::UserWarning:monai.bundle.scripts", "-m"]


class Run(Protocol):
    """What fills a folder of its own, to be called as often as it takes."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def folder(self) -> Path:
        """Where it puts what it makes."""

    @property
    def predictions(self) -> Path:
        """Table of the predicted subjects."""

    def state(self) -> str:
        """What is to be done next; "done" for nothing."""

    def run(self, show: bool = False) -> None:
        """Do what is left, and print what processes say if ``show``."""


@dataclass(frozen=True)
class BundleRun:
    """One run in a folder of its own, to be called as often as it takes."""

    name: str  # what messages call it, such as "fold 0"
    folder: Path  # its output goes to ``train.log``
    epochs: int  # of the whole training
    train: Sequence[str]  # command that trains from the start; ``--resume True`` makes it go on
    predict: Sequence[str]  # command that writes ``predictions``
    predictions: Path  # table of the predicted subjects
    device: int | None = None  # GPU for ``CUDA_VISIBLE_DEVICES``; None leaves the choice

    def state(self) -> Literal["start", "resume", "predict", "done"]:
        """What is to be done next, by the files that are there."""
        models, predictions = self.folder / "models", self.predictions
        checkpoints = models.glob("checkpoints/epoch_*.pt")
        epochs = [int(path.stem.removeprefix("epoch_")) for path in checkpoints]
        if not epochs:
            return "start"
        if max(epochs) < self.epochs:
            return "resume"
        weights = models / "model.pt"
        both = weights.is_file() and predictions.is_file()
        newer = both and predictions.stat().st_mtime_ns > weights.stat().st_mtime_ns
        return "done" if newer and not _has_failures(predictions) else "predict"

    def run(self, show: bool = False) -> None:
        """Do what is left, and print the processes' output too if ``show``."""
        with lock(self.folder) as claim:
            state = self.state()
            if state == "start":
                # What a run leaves that was stopped before its first checkpoint.
                for name in ("models", "tensorboard"):
                    shutil.rmtree(self.folder / name, ignore_errors=True)
                self._call(self.train, claim, show)
            if state == "resume":
                self._call([*self.train, "--resume", "True"], claim, show)
            if state != "done":
                self._call(self.predict, claim, show)

    def _call(self, command: Sequence[str], claim: TextIO, show: bool) -> None:
        """Run a command, which shares the claim: it may outlive this process."""
        device = {} if self.device is None else {"CUDA_VISIBLE_DEVICES": str(self.device)}
        path = self.folder / "train.log"
        with (
            path.open("ab") as log,
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(claim.fileno(),),
                env=os.environ | device,
            ) as process,
        ):
            start = log.tell()
            try:
                _copy(process, log, show)
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            reason = _reason(process.returncode, path.read_bytes()[start:])
            raise RuntimeError(f"{reason} (all of it is in {path})")


def _has_failures(table: Path) -> bool:
    """Whether a table names subjects that failed; one that cannot be read is for its reader."""
    with suppress(ValueError):
        return any(row.get("status") == "failed" for _, row in read_rows(table, ()))
    return False


def run_here(runs: Sequence[Run], jobs: int) -> list[str]:
    """Run on this machine, ``jobs`` at a time; the messages of those that fail."""
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(attempt, run, partial(run.run, show=jobs == 1)) for run in runs]
        try:
            return [message for future in futures if (message := future.result()) is not None]
        except BaseException:  # Ctrl-C: no further run starts
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def attempt(run: Run, call: Callable[[], Any]) -> str | None:
    """Call what runs or waits for a run, and say how it ended; the message if it failed."""
    try:
        call()
    except Exception as error:  # whatever it is, the other runs go on
        print(f"{run.name}: failed", flush=True)
        return f"  {run.name}: {error}"
    print(f"{run.name}: done", flush=True)
    return None


def _copy(process: subprocess.Popen, log: BinaryIO, show: bool) -> None:
    """Copy a process's output, as it comes, to the log and to the console."""
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    while chunk := process.stdout.read1():  # type: ignore[union-attr]  # a pipe
        log.write(chunk)
        log.flush()
        if show:
            sys.stdout.write(decode(chunk))
            sys.stdout.flush()


def _reason(code: int, output: bytes) -> str:
    """Why a process failed: the signal that ended it, its last message, or its last line."""
    number = -code if code < 0 else code - 128  # 143 of a run that finished its step first
    if number > 0:
        name = signal.Signals(number).name
        return f"ended by {name}{', often for want of memory' if name == 'SIGKILL' else ''}"
    text = output.decode("utf-8", "replace").strip()
    messages = re.split(r"^error: ", text, flags=re.MULTILINE)[1:]
    if messages:
        return messages[-1].split("\n\n")[0].strip()
    return (text.splitlines() or [f"exit code {code}"])[-1]


def find_config(bundle: Path, name: str) -> Path:
    """A config by its name in the bundle's ``configs`` or by its path; one must be there."""
    for path in (bundle / "configs" / name, Path(name)):
        if path.is_file():
            return path.resolve()
    return bundle_config(bundle, name.removesuffix(".yaml")).resolve()


def train_command(
    configs: Sequence[Path], overrides: Mapping[str, Any], processes: int = 1
) -> list[str]:
    """``python -m monai.bundle run``, or the same by ``torchrun`` for several processes."""
    several = ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"]
    python = [*_PYTHON, *several] if processes > 1 else _PYTHON
    files = repr([str(config) for config in configs])
    return [*python, "monai.bundle", "run", "--config_file", files, *flags(overrides)]


def mrn_command(verb: str, *arguments: str, **options: Any) -> list[str]:
    """``mrn VERB ARGUMENTS --OPTIONS`` of the Python that runs this."""
    return [*_PYTHON, "mrn_components.app.cli", verb, *arguments, *flags(options)]
