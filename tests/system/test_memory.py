import ctypes
import subprocess
import sys

from mrn_components import keep_freed_memory

FAULTS = """
import resource
import torch
from mrn_components import keep_freed_memory

def touch():
    torch.ones(16 << 20).add_(1)  # 64 MiB

def faults():
    for _ in range(5):  # until the heap has its size
        touch()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        touch()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults())
assert keep_freed_memory()
print(faults())
"""


def test_pages_of_freed_tensors_are_used_again():
    """All but one of five times at least: the heap may grow once more."""
    command = [sys.executable, "-c", FAULTS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    without, kept = map(int, done.stdout.split())
    assert kept < 0.5 * without


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not keep_freed_memory()
