"""How an error reaches a user: one message that says what to type, without pages of traceback."""

import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn


class UntrustedBundleError(ValueError):
    """A bundle could run code of its own, or is not what was packed."""

    exit_code = 3


_EXPECTED = (ValueError, OSError, RuntimeError, FloatingPointError)
# Input or settings that the user must change; other errors of ours end with 1: some of it failed.
_BAD_INPUT = (ValueError, FileNotFoundError, FileExistsError, NotADirectoryError)


class ResourceError(OSError):
    """The machine lacks disk, memory or shared memory; the input may be perfect."""

    exit_code = 4


class UnwritableError(OSError):
    """An output lies where this process must not write."""

    exit_code = 2


class DamagedFileError(ValueError):
    """A file is not what was written."""


def install_messages() -> None:
    """From now on, end this process in one message where the user can mend the cause."""
    sys.excepthook = _print_message


def end_by_signal(number: int, _frame: FrameType | None = None) -> NoReturn:
    """End this process in one message; a handler of signals.

    Raises:
        SystemExit: with 128 and the signal's number, as shells count: 130, 143.
    """
    name = signal.Signals(number).name
    sys.stderr.write(
        f"\nstopped by {name}: what is finished stays; the same command goes on, with --resume "
        "True where it has that option.\n"
    )
    raise SystemExit(128 + number)


def user_message(error: BaseException) -> str | None:
    """The message of the first error behind ``error`` that our code raised for the user.

    None if there is none: other errors are ours to mend, and need their traceback.
    """
    found = _user_error(error)
    return None if found is None else str(found)


def _user_error(error: BaseException) -> BaseException | None:
    cause = error.__cause__
    frames = traceback.extract_tb(error.__traceback__)
    mine = None
    if frames and frames[-1].filename.startswith(str(Path(__file__).parent.parent)):
        # What a library's C code raises, called from a line of ours, is no message of ours.
        raised = (frames[-1].line or "").startswith("raise ")
        mine = error if raised and isinstance(error, _EXPECTED) else None
    return (_user_error(cause) if cause is not None else None) or mine


def _print_message(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if isinstance(error, KeyboardInterrupt):
        end_by_signal(signal.SIGINT)
    found = _user_error(error)
    if found is None:
        traceback.print_exception(kind, error, trace)
        return
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    rank = f"[rank {os.environ.get('RANK')}] " if several else ""
    sys.stderr.write(f"\nerror: {rank}{found}\n")
    default = 2 if isinstance(found, _BAD_INPUT) else 1
    raise SystemExit(getattr(found, "exit_code", default))
