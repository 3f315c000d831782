"""Processes forked from one that imported the tests and trained nothing: torch trains in no others.

A process of its own imports MONAI for ten seconds; a fork has it.
"""

import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any

_FORK = multiprocessing.get_context("fork")
_forks = {}  # of the process that makes them, by their ids


class Forks:
    """Forks this process at once; that fork makes the others, whatever this process does since."""

    def __init__(self) -> None:
        self._maker = ProcessPoolExecutor(1, _FORK, initializer=_begin)
        self._maker.submit(os.getpid).result()

    def start(self, function: Callable, *arguments: Any) -> int:
        """Call a function in a fork; its process id."""
        return self._maker.submit(_start, function, arguments).result()

    def end(self, pid: int) -> int:
        """Wait for a fork's end, a minute at most; its exit code."""
        return self._maker.submit(_end, pid).result()

    def run_ranks(self, function: Callable, world_size: int, folder: Path) -> list[Any]:
        """Call ``function(rank, world_size, folder)`` in a fork a rank; what each saved."""
        import torch  # the process that hands out tests does not wait for it

        folder.mkdir()
        ranks = [self.start(function, rank, world_size, folder) for rank in range(world_size)]
        assert [self.end(rank) for rank in ranks] == [0] * world_size
        return [torch.load(folder / f"{rank}.pt") for rank in range(world_size)]

    def close(self) -> None:
        """Kill the forks that a failed test left."""
        self._maker.submit(_kill_all)
        self._maker.shutdown()


def _begin() -> None:
    Thread(target=_end_with_the_tests, daemon=True).start()


def _end_with_the_tests() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _start(function: Callable, arguments: tuple) -> int:
    process = _FORK.Process(target=function, args=arguments)
    process.start()
    _forks[process.pid] = process
    return process.pid


def _end(pid: int) -> int | None:
    until = time.monotonic() + 60
    # Not by join: it also waits for the children that a fork left.
    while _forks[pid].exitcode is None and time.monotonic() < until:
        time.sleep(0.01)
    return _forks[pid].exitcode


def _kill_all() -> None:
    for process in _forks.values():
        process.kill()
