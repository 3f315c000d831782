"""What ends an engine before its time: faults, losses that are not finite, and signals."""

import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from functools import partial
from types import FrameType
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from monai.engines.utils import IterationEvents

from mrn_components.networks.slice_encoder import SliceEncoder
from mrn_components.system.errors import DamagedFileError, ResourceError, user_message
from mrn_components.training.handlers.workers import MORE_SHARED_MEMORY, watch_workers

logger = logging.getLogger(__name__)
_PATIENCE_S = 25.0  # from a signal to the end of the step; clusters kill after 30
# Windows has no SIGUSR1 and SIGUSR2.
_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGINT")
    if hasattr(signal, name)
)


class FaultReportHandler:
    """Say what ended an engine, at which subjects, and what to do about it.

    For errors that libraries raise without knowing the data: memory ran out, a worker of the data
    loader was killed or raised, weights of another network, damaged weights, a process of a
    distributed run died. Other errors pass unchanged.
    """

    def attach(self, engine: Engine) -> None:
        """Subscribe to a trainer or an evaluator."""
        engine.add_event_handler(Events.STARTED, watch_workers)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.report)

    def report(self, engine: Any, error: BaseException) -> None:
        """Raise the error again, explained if it is known."""
        if user_message(error) is not None:  # an inner engine's handler, or our own code, spoke
            raise error
        explanations: dict[str, Callable[[Any, re.Match], Exception]] = {
            r"in DataLoader worker process.*^\w+: (subject .*)": (
                lambda _, found: ValueError(found[1].strip())
            ),
            r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)": _worker_killed,
            r"DataLoader timed out after (\d+) seconds": _stalled,
            r"OutOfMemoryError|MemoryError|DefaultCPUAllocator": _no_memory,
            r"Error\(s\) in loading state_dict for (\w+):(.*)": _other_network,
            r"PytorchStreamReader|UnpicklingError|EOFError": _unreadable_weights,
        }
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            explanations[r"gloo|nccl|Connection (?:closed|reset)"] = _lost_process
        text = f"{type(error).__name__}: {error}"
        for pattern, explain in explanations.items():
            if found := re.search(pattern, text, re.IGNORECASE | re.MULTILINE | re.DOTALL):
                raise explain(engine, found) from error
        raise error


def _no_memory(engine: Any, _found: re.Match) -> Exception:
    device = torch.device(getattr(engine.state, "device", None) or "cpu")
    peak = ""
    if device.type == "cuda":
        peak = f", {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB at most"
    batch = engine.state.batch if isinstance(engine.state.batch, Mapping) else {}
    crops = "; ".join(
        f"{roi} {', '.join('x'.join(map(str, crop.shape[-3:])) for crop in batch[roi])}"
        for roi in batch
        if f"mask_{roi}" in batch and all(map(torch.is_tensor, batch[roi]))
    )
    return ResourceError(
        f"out of memory on {device}{peak}, at the subjects {batch.get('subject')} (crops "
        f"before resizing, slices x height x width: {crops or 'unknown'}). Add, the cheapest "
        f"first: {', '.join(_memory_advice(engine))}."
    )


def _memory_advice(engine: Any) -> list[str]:
    """What to type when memory runs out, the cheapest first."""
    if not hasattr(engine, "optimizer"):
        return ["--precision bf16", "--device cpu"]
    advice = ["--batch_size 1", "--precision bf16"]
    modules = list(engine.network.modules())
    if any(not getattr(module, "grad_checkpointing", True) for module in modules):
        advice.insert(1, "--network_def#res#checkpointing True")
    if any(isinstance(module, SliceEncoder) for module in modules):
        advice.append("--network_def#res#encoder#name vit_small_patch14_reg4_dinov2.lvd142m")
    return advice


def _worker_killed(engine: Any, found: re.Match) -> Exception:
    reading = getattr(engine.data_loader.dataset, "reading", lambda _: None)
    subjects = [name for pid in found[1].split(",") if (name := reading(int(pid))) is not None]
    at = f" while it read {', '.join(subjects)}" if subjects else ""
    return ResourceError(
        f"a worker of the data loader was killed{at}, often for want of memory. "
        f"{MORE_SHARED_MEMORY} Finished epochs of a training are saved: go on by --resume True."
    )


def _stalled(engine: Any, found: re.Match) -> Exception:
    return ResourceError(
        f"the workers of the data loader gave nothing for {found[1]} seconds in iteration "
        f"{engine.state.iteration + 1}, often for want of shared memory. {MORE_SHARED_MEMORY} "
        "Finished epochs of a training are saved: go on by --resume True."
    )


def _other_network(_engine: Any, found: re.Match) -> Exception:
    return ValueError(
        f"the weights were made for another network than this {found[1]} "
        f"({' '.join(found[2].split()[:16])} ...); predict with the configs of the run they come "
        "from (--bundle RUN), or name other weights by --ckpt_path FILE."
    )


def _unreadable_weights(_engine: Any, _found: re.Match) -> Exception:
    return DamagedFileError(
        "the weights are damaged or no file of tensors; copy them again, or name others by "
        "--ckpt_path FILE."
    )


def _lost_process(_engine: Any, _found: re.Match) -> Exception:
    return RuntimeError(
        "another process of this run died (its own message tells why); finished epochs are saved: "
        "go on by the same command and --resume True."
    )


class FiniteLossHandler:
    """Stop at a loss or a gradient that is not finite, before the optimiser steps on it.

    Belongs after every handler that adds to the loss. Ignite's ``TerminateOnNan`` acts after the
    step and ends the run as if it had succeeded.

    Raises:
        FloatingPointError: for a loss or a gradient that is NaN or infinite.
    """

    def attach(self, engine: Engine) -> None:
        """Subscribe to the trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.check)

    def check(self, engine: Any) -> None:
        """Check the loss and the gradients: a finite loss may have others that are not."""
        values = {"the loss is": engine.state.output["loss"].detach()}
        if not engine.amp:  # float16 has infinite gradients now and then; its scaler skips the step
            groups = engine.optimizer.param_groups
            trained = [p.grad for group in groups for p in group["params"] if p.grad is not None]
            values["the norm of the gradients is"] = torch.nn.utils.get_total_norm(trained)
        # The one time in a step that a GPU is waited for: a step on NaN would spoil all weights.
        if torch.stack([value.isfinite() for value in values.values()]).all():
            return
        what, found = next((what, v) for what, v in values.items() if not v.isfinite())
        raise FloatingPointError(
            f"{what} {found.item()} in epoch {engine.state.epoch}, iteration "
            f"{engine.state.iteration}, for the subjects {engine.state.batch.get('subject')}; no "
            "step was made. Check these images for NaN voxels, or lower the learning rates."
        )


class InterruptHandler:
    """End the run at its next step when a signal asks for it, with exit code 143 (Ctrl-C: 130).

    SIGTERM (``docker stop``, ``scancel``, ``timeout``), SIGUSR1, SIGUSR2 (a cluster's warning) and
    Ctrl-C set a flag only, so that a step and a checkpoint in the making are finished; a second
    signal acts at once, and so does the first where the step takes longer than 25 seconds, or waits
    for a stalled loader. Checkpoints are those of finished epochs, and every epoch follows from its
    seed: a resumed run repeats the steps of the epoch it was stopped in, bit for bit on the CPU.
    Workers of the data loaders ignore the signals, which a terminal or a cluster sends to all. It
    belongs before ``FaultReportHandler``.

    Args:
        evaluator: the validation engine, which stops at its next step too.
    """

    def __init__(self, *, evaluator: Evaluator | None = None) -> None:
        self.evaluator = evaluator
        self.received: signal.Signals | None = None
        self._earlier: dict[signal.Signals, Any] = {}
        self._patience: threading.Timer | None = None

    def attach(self, engine: Engine) -> None:
        """Subscribe to the trainer."""
        engine.add_event_handler(Events.STARTED, self.listen)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.stop)
        engine.add_event_handler(Events.COMPLETED, self.restore)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.give_up)
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
                loader.worker_init_fn = partial(_init_deaf, loader.worker_init_fn)

    def note(self, number: int, _frame: FrameType | None) -> None:
        """Remember the signal; the next one has its usual effect."""
        self.received = signal.Signals(number)
        for other in self._earlier:
            signal.signal(other, self.give_way)
        self._patience = threading.Timer(_PATIENCE_S, self.end)
        self._patience.daemon = True
        self._patience.start()

    def give_way(self, number: int, _frame: FrameType | None) -> None:
        """Let a second signal do what it does without this handler."""
        self.restore()
        os.kill(os.getpid(), number)

    def give_up(self, engine: Any, error: BaseException) -> None:
        """Give the signals back where a step raised, and let its error end the run.

        Nothing waits for a step any more. Ignite drops an error that handlers do not raise again.
        """
        self.restore()
        FaultReportHandler().report(engine, error)

    def stop(self, _engine: Any) -> None:
        """End the run if a signal came."""
        if self.received is not None:
            self.restore()
            raise SystemExit(self._told())

    def end(self) -> None:
        """End the process in the middle of a step, which loses no more than the step's end does."""
        code = self._told()
        logging.shutdown()
        sys.stderr.flush()
        os._exit(code)

    def _told(self) -> int:
        """Say what ended the run, and return the exit code."""
        assert self.received is not None
        state = self.trainer.state
        logger.warning(
            "Stopped by %s in epoch %d of %d. Finished epochs are saved: go on by the same command "
            "and --resume True, which repeats this epoch to the same end. Before the first "
            "checkpoint start again without it.",
            self.received.name,
            state.epoch,
            state.max_epochs,
        )
        return 130 if self.received is signal.SIGINT else 143

    def restore(self, _engine: Any = None) -> None:
        """Give the signals back."""
        if self._patience is not None:
            self._patience.cancel()
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        self._earlier = {}


def _init_deaf(init: Callable[[int], None] | None, worker_id: int) -> None:
    """Begin a loader's worker that ignores the signals which the main process answers."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if init is not None:
        init(worker_id)
