"""What a training step keeps for its backward pass, and whether a GPU has the memory for it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

_OF_FREE = 0.8  # of the memory that nobody uses: what else a step needs has the rest


class MemoryBudget:
    """Decides batch by batch whether activations are kept, or computed anew.

    The first batch tells what a pixel costs and what is free. On a CPU activations are always
    computed anew: that takes less time than the memory for them, fresh from the system, does.
    """

    def __init__(self) -> None:
        self.pixels: float | None = None  # for which there is memory

    def fits(self, module: nn.Module, run: Callable[[], object], own: int, batch: int) -> bool:
        """Whether what ``module`` keeps of a batch fits into the memory of its GPU.

        Args:
            module: what is trained.
            run: computes a part of the first batch, with nothing recomputed.
            own: pixels of that part.
            batch: pixels of this batch.
        """
        device = next(module.parameters()).device
        if self.pixels is None:
            free = free_bytes(device)
            # Gradients and AdamW's moments do not exist yet.
            free -= sum(3 * p.nbytes for p in module.parameters() if p.requires_grad)
            share = _OF_FREE * free / saved_bytes(module, run)
            self.pixels = share * own if free > 0 else 0.0
        return batch <= self.pixels


def free_bytes(device: torch.device) -> int:
    """Memory of a GPU that nobody uses; 0 of a CPU."""
    if device.type != "cuda":
        return 0
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def saved_bytes(module: nn.Module, run: Callable[[], object]) -> int:
    """Bytes that autograd keeps of ``run``, without parameters; random numbers are drawn again."""
    parameters = {p.untyped_storage().data_ptr() for p in module.parameters()}
    device = next(module.parameters()).device
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    states = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with states, saved_tensors_hooks(note, lambda tensor: tensor):
        _graph = run()  # held to the end: what is freed would give its place to another
    return max(sum(kept.values()), 1)
