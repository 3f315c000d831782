"""What to tell the user when a library's error ends an engine."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events

from mrn_components.networks.slice_encoder import SliceEncoder
from mrn_components.system.errors import DamagedFileError, ResourceError, user_message


class FaultReportHandler:
    """Say what ended an engine, at which subjects, and what to do about it.

    For errors that libraries raise without knowing the data: memory ran out, a worker of the data
    loader was killed or raised, weights of another network, damaged weights, a process of a
    distributed run died. Other errors pass unchanged.
    """

    def __init__(self) -> None:
        self.explanations: dict[str, Callable[[Any, re.Match], Exception]] = {
            r"in DataLoader worker process.*^\w+: (subject .*)": _worker_raised,
            r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)": _worker_killed,
            r"OutOfMemoryError|MemoryError|DefaultCPUAllocator": _no_memory,
            r"Error\(s\) in loading state_dict for (\w+):(.*)": _other_network,
            r"PytorchStreamReader|UnpicklingError|EOFError": _unreadable_weights,
        }

    def attach(self, engine: Engine) -> None:
        """Subscribe to a trainer or an evaluator."""
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.report)

    def report(self, engine: Any, error: BaseException) -> None:
        """Raise the error again, explained if it is known.

        Raises:
            ResourceError: for want of memory, and for a killed worker.
            ValueError: for weights of another network, and for a subject that cannot be read.
            DamagedFileError: for weights that cannot be read.
            RuntimeError: for a lost process.
        """
        text = f"{type(error).__name__}: {error}"
        known = user_message(error) is not None  # an inner engine's handler, or our own code, spoke
        explanations = dict(self.explanations)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            explanations[r"gloo|nccl|Connection (?:closed|reset)"] = _lost_process
        for pattern, explain in () if known else explanations.items():
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


def _worker_raised(_engine: Any, found: re.Match) -> Exception:
    return ValueError(found[1].strip())


def _worker_killed(engine: Any, found: re.Match) -> Exception:
    reading = getattr(engine.data_loader.dataset, "reading", lambda _: None)
    subjects = [name for pid in found[1].split(",") if (name := reading(int(pid))) is not None]
    at = f" while it read {', '.join(subjects)}" if subjects else ""
    return ResourceError(
        f"a worker of the data loader was killed{at}, often for want of memory. Give it more (in "
        "Docker --shm-size=8g or --ipc=host), or read in the main process by --num_workers 0. "
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
