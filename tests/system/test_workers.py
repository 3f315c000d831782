"""Worker processes: the order of their results, their deaths, and the end of their parent."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from mrn_components.system.workers import in_order


def square(number):
    if number < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02 * (number % 3))
    return number, number**2, os.getpid()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_results_come_in_order(workers):
    results = list(in_order(square, range(9), workers=workers))
    assert [result[:2] for result in results] == [(n, n**2) for n in range(9)]
    assert len({pid for *_, pid in results}) <= max(workers, 1)
    assert (os.getpid() in {pid for *_, pid in results}) == (workers == 0)


@pytest.mark.parametrize("numbers", [[-1, 1, 2], [1, -1, 2, 3, -2, 4], [1, 2, -1]])
def test_a_death_costs_its_own_item_alone(numbers):
    results = list(in_order(square, numbers, workers=2, lost=lambda number: (number, None)))
    assert [result[:2] for result in results] == [(n, None if n < 0 else n**2) for n in numbers]
    with pytest.raises(RuntimeError, match=r"worker process died that had -1.*fewer workers"):
        list(in_order(square, [-1], workers=1))


def test_few_items_are_begun_ahead(tmp_path):
    def begin(number):
        (tmp_path / f"{number}").touch()

    results = in_order(begin, range(50), workers=2)
    next(results)
    time.sleep(0.3)
    assert len(list(tmp_path.iterdir())) <= 5
    results.close()
    assert len(list(tmp_path.iterdir())) <= 9


def fail(number):
    raise ValueError(f"no {number}")


def test_an_error_is_raised_here():
    with pytest.raises(ValueError, match="no 3"):
        list(in_order(fail, [3], workers=1))


def multiply(images, factor):
    return images @ images * factor, torch.get_num_threads()


def test_a_worker_computes_after_its_parent_had_threads():
    """As long as a fork of a process with threads uses one thread, it does not wait for them."""
    images = torch.rand(64, 64)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        torch.rand(2000, 2000) @ torch.rand(2000, 2000)
        found = list(in_order(partial(multiply, images), [1, 2], workers=2))
    finally:
        torch.set_num_threads(before)
    assert [threads for _, threads in found] == [1, 1]
    assert torch.equal(found[0][0] * 2, found[1][0])


CODE = """
import os, sys, time
from mrn_components.system.workers import in_order
def work(number):
    os.write(1, f"{os.getpid()}\\n".encode())  # at once: two of them write
    time.sleep(60)
list(in_order(work, [1, 2], workers=2))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent(number):
    process = subprocess.Popen([sys.executable, "-c", CODE], stdout=subprocess.PIPE, text=True)
    workers = [int(process.stdout.readline()) for _ in range(2)]
    process.send_signal(number)
    process.communicate(timeout=30)
    give_up = time.monotonic() + 20
    while any(is_running(worker) for worker in workers):
        assert time.monotonic() < give_up
        time.sleep(0.05)


SLOW = """
import os, time
from mrn_components.system.errors import install_messages
from mrn_components.system.workers import in_order

def work(seconds):
    time.sleep(seconds)
    return os.getpid()

install_messages()
for pid in in_order(work, [0.0, *[2.0] * 20], workers=2):
    print(pid, flush=True)
"""


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_what_waits_for_its_workers(second):
    process = subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, text=True)
    worker = int(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)  # now it waits for what they have begun
    process.send_signal(second)
    process.communicate(timeout=30)
    assert process.returncode == -second
    give_up = time.monotonic() + 20
    while is_running(worker):
        assert time.monotonic() < give_up
        time.sleep(0.05)


def is_running(pid):
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
