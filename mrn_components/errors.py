"""How an error reaches a user: one message that says what to type, without pages of traceback."""

import sys
import traceback
from pathlib import Path
from types import TracebackType


class UntrustedBundleError(ValueError):
    """A bundle could run code of its own, or is not what was packed; the command ends with 3."""


_EXPECTED = (ValueError, OSError, RuntimeError, FloatingPointError)
# Input or settings that the user must change; other errors of ours end with 1: some of it failed.
_BAD_INPUT = (ValueError, FileNotFoundError, FileExistsError, NotADirectoryError)


def install_messages() -> None:
    """From now on, end this process in one message where the user can mend the cause."""
    sys.excepthook = _print_message


def user_message(error: BaseException) -> str | None:
    """The message of the first error behind ``error`` that our code raised for the user.

    None if there is none: other errors are ours to mend, and need their traceback.
    """
    found = _user_error(error)
    return None if found is None else str(found)


def _user_error(error: BaseException) -> BaseException | None:
    cause = error.__cause__
    frames = traceback.extract_tb(error.__traceback__)
    raised_here = bool(frames) and frames[-1].filename.startswith(str(Path(__file__).parent))
    mine = error if raised_here and isinstance(error, _EXPECTED) else None
    return (_user_error(cause) if cause is not None else None) or mine


def _print_message(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    found = _user_error(error)
    if found is None:
        traceback.print_exception(kind, error, trace)
        return
    sys.stderr.write(f"\nerror: {found}\n")
    if isinstance(found, UntrustedBundleError):
        raise SystemExit(3)
    if isinstance(found, _BAD_INPUT):
        raise SystemExit(2)  # else Python's own, 1
