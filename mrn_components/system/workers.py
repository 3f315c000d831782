"""Processes that share the subjects of a command, and work ahead of it."""

import os
import pickle
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 2  # items that are begun or wait to be taken, for each worker: they are held in memory

_function: Callable[[Any], Any] | None = None  # of a worker


def in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    lost: Callable[[Item], Result] | None = None,
) -> Iterator[Result]:
    """Apply a function to items in worker processes; yield the results in the order of the items.

    The workers go on while a result is used, at most two items ahead for each of them. On Linux
    they are forked, which takes no time, elsewhere started, for which the function is pickled; they
    compute on one thread each, as a fork needs it. They leave
    Ctrl-C to this process, and end when it ends, however that happens. 0 workers are this process.

    Raises:
        RuntimeError: if a worker dies, and dies again where it has the item alone; unless ``lost``
            makes the result of such an item. Errors of the function are raised, too.
    """
    if workers < 1:
        yield from map(function, items)
        return
    waiting = iter(items)
    begun: deque[tuple[Item, Future[bytes]]] = deque()
    pool = _start(function, workers)
    try:
        while True:
            for item in waiting:
                begun.append((item, _submit(pool, item)))
                if len(begun) >= _AHEAD * workers:
                    break
            if not begun:
                return
            item, future = begun.popleft()
            try:
                result = pickle.loads(future.result())
            except BrokenProcessPool:
                pool.shutdown()
                result = _alone(function, item, lost)
                pool = _start(function, workers)
                begun = deque((i, f if _is_done(f) else _submit(pool, i)) for i, f in begun)
            yield result
    finally:
        with _ended_by_signals():
            pool.shutdown(cancel_futures=True)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let a signal end this process at once, and the workers with it.

    Raised while it waits for them, a second Ctrl-C would leave both waiting for each other: Python
    takes a thread whose ``join`` was interrupted for ended (bpo-45274).
    """
    if threading.current_thread() is not threading.main_thread():  # others get no signals
        yield
        return
    before = {each: signal.signal(each, signal.SIG_DFL) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(function: Callable[[Any], Any], workers: int) -> ProcessPoolExecutor:
    forks = sys.platform == "linux" and hasattr(os, "fork")
    context = get_context("fork" if forks else "spawn")
    return ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(function,))


def _submit(pool: ProcessPoolExecutor, item: Any) -> Future[bytes]:
    try:
        with warnings.catch_warnings():  # of threads, which a fork does not copy: one is enough
            warnings.simplefilter("ignore", DeprecationWarning)
            return pool.submit(_work, item)
    except BrokenProcessPool as error:
        future: Future[bytes] = Future()
        future.set_exception(error)
        return future


def _is_done(future: Future[bytes]) -> bool:
    return future.done() and not isinstance(future.exception(), BrokenProcessPool)


def _alone(
    function: Callable[[Item], Result], item: Item, lost: Callable[[Item], Result] | None
) -> Result:
    """Return the result of an item in a worker of its own: whose death the others' was."""
    with _start(function, 1) as pool:
        try:
            return pickle.loads(_submit(pool, item).result())
        except BrokenProcessPool as error:
            if lost is None:
                raise RuntimeError(
                    f"the worker process died that had {item!r}, perhaps for lack of memory; type "
                    "the same command again with fewer workers."
                ) from error
            return lost(item)


def _begin(function: Callable[[Any], Any]) -> None:
    """Make a process a worker."""
    global _function  # a process has one
    _function = function
    # A terminal sends its signals to all processes, and the first one answers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # a fork has no threads of the process before it
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _work(item: Any) -> bytes:
    """Return a result as bytes: as tensors they would take the few megabytes of shared memory."""
    assert _function is not None
    return pickle.dumps(_function(item), protocol=pickle.HIGHEST_PROTOCOL)
