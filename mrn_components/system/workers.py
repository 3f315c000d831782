"""Processes that share the subjects of a command."""

import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context


def worker_pool(processes: int) -> ProcessPoolExecutor:
    """A pool of worker processes that leave signals to the process that started them.

    They are spawned, not forked: the caller may hold threads (torch) that a fork would copy locked.

    Args:
        processes: how many.
    """
    return ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_be_deaf)


def _be_deaf() -> None:
    """A terminal or a cluster sends its signals to all processes; the first one answers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
