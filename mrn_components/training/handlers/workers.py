"""Whether the workers of a data loader can hand over what they read."""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from mrn_components.system.errors import ResourceError

SHARED_MEMORY = Path("/dev/shm")  # where torch's workers put tensors on Linux
MORE_SHARED_MEMORY = (
    "Give it more (in Docker --shm-size=8g or --ipc=host, else `mount -o remount,size=8g "
    "/dev/shm`), or read in the main process by --num_workers 0."
)
_PLENTY_BYTES = 2**30  # for each worker: no batch of crops comes near
_PATIENCE_S = 600  # for a batch


def watch_workers(engine: Any) -> None:
    """Refuse workers that the shared memory has no room for, and bound the wait for a batch.

    A worker that finds no room loses its batch with a traceback, and the main process waits for it
    for ever. What one subject takes is measured where there is less than 1 GiB for each worker.

    Raises:
        ResourceError: naming what there is, what is needed, and what to do.
    """
    loader: Any = getattr(engine.state, "dataloader", None)
    workers = getattr(loader, "num_workers", 0)
    if not workers or not SHARED_MEMORY.is_dir():
        return
    loader.timeout = loader.timeout or _PATIENCE_S
    free = shutil.disk_usage(SHARED_MEMORY).free
    if free >= workers * _PLENTY_BYTES:
        return
    with torch.random.fork_rng(devices=[]):
        subject = loader.dataset[0]
    size = sum(leaf.nbytes for leaf in tree_leaves(subject) if torch.is_tensor(leaf))
    batches = workers * (loader.prefetch_factor or 1)
    needed = batches * (loader.batch_size or 1) * size
    if free < needed:
        mib = 1 / 2**20
        raise ResourceError(
            f"{SHARED_MEMORY} has {free * mib:.3g} MiB of free shared memory, and {workers} "
            f"workers of the data loader need {needed * mib:.3g} MiB for {batches} batches. "
            f"{MORE_SHARED_MEMORY}"
        )
