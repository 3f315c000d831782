"""The processes that ``torchrun`` starts for one cohort."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import ignite.distributed as idist
import torch


@contextmanager
def joined_processes() -> Iterator[tuple[int, int]]:
    """Join the other processes: yields this one's rank and their number, 0 and 1 without others."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield 0, 1
        return
    # The first waits for the slowest; when one dies, torchrun ends the others.
    idist.initialize("gloo", timeout=timedelta(days=7))
    try:
        yield idist.get_rank(), world
    finally:
        idist.finalize()


def with_own_device(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Config overrides that give each of several processes a GPU, where there are any."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and torch.cuda.is_available():
        number = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
        return {"device": f"cuda:{number}", **overrides}
    return dict(overrides)
