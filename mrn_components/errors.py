"""How an error reaches a user: one message that says what to type, without pages of traceback."""

import sys
import traceback
from pathlib import Path
from types import TracebackType

_EXPECTED = (ValueError, OSError, RuntimeError, FloatingPointError)


def install_messages() -> None:
    """From now on, end this process in one message where the user can mend the cause."""
    sys.excepthook = _print_message


def user_message(error: BaseException) -> str | None:
    """The message of the first error behind ``error`` if our code raised it for the user.

    None for any other error: those are ours to mend, and need their traceback.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    frames = traceback.extract_tb(error.__traceback__)
    raised_here = bool(frames) and frames[-1].filename.startswith(str(Path(__file__).parent))
    return str(error) if raised_here and isinstance(error, _EXPECTED) else None


def _print_message(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    message = user_message(error)
    if message is None:
        traceback.print_exception(kind, error, trace)
    else:
        sys.stderr.write(f"\nerror: {message}\n")
