"""How an error reaches a user: one message that says what to type, without pages of traceback."""

import sys
import traceback
from pathlib import Path
from types import TracebackType


class UntrustedBundleError(ValueError):
    """A bundle could run code of its own, or is not what was packed; the command ends with 3."""


_EXPECTED = (ValueError, OSError, RuntimeError, FloatingPointError)


def install_messages() -> None:
    """From now on, end this process in one message where the user can mend the cause."""
    sys.excepthook = _print_message


def user_message(error: BaseException) -> str | None:
    """The message of the first error behind ``error`` that our code raised for the user.

    None if there is none: other errors are ours to mend, and need their traceback.
    """
    message, cause = None, error.__cause__
    frames = traceback.extract_tb(error.__traceback__)
    raised_here = bool(frames) and frames[-1].filename.startswith(str(Path(__file__).parent))
    if raised_here and isinstance(error, _EXPECTED):
        message = str(error)
    return (user_message(cause) if cause is not None else None) or message


def _print_message(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    message = user_message(error)
    if message is None:
        traceback.print_exception(kind, error, trace)
    else:
        sys.stderr.write(f"\nerror: {message}\n")
        if isinstance(error, UntrustedBundleError):
            raise SystemExit(3)
