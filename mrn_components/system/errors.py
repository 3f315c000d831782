"""How an error reaches a user: one message that says what to type, without pages of traceback."""

import errno
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn


class UntrustedBundleError(ValueError):
    """A bundle could run code of its own, or is not what was packed."""

    exit_code = 3


class ResourceError(OSError):
    """The machine lacks disk, memory or shared memory; the input may be perfect."""

    exit_code = 4


class UnwritableError(OSError):
    """An output lies where this process must not write."""

    exit_code = 2


class DamagedFileError(ValueError):
    """A file is not what was written."""


class FailedSubjectsError(RuntimeError):
    """Some subjects could not be dealt with; the others are."""


def line_of(subject: str, error: object) -> str:
    """A line of a summary: a subject and what is wrong with it, which may name it first itself."""
    return f"  {subject}: {str(error).removeprefix(f'{subject}: ')}"


class UnknownKeyError(ValueError):
    """A config has no key like the one that was typed; ``near`` are those that are most like it."""

    def __init__(self, message: str, *, key: str, near: Sequence[str]) -> None:
        super().__init__(message)
        self.key, self.near = key, near


_EXPECTED = (ValueError, OSError, RuntimeError, FloatingPointError)
# Input or settings that the user must change; other errors of ours end with 1: some of it failed.
_BAD_INPUT = (ValueError, FileNotFoundError, FileExistsError, NotADirectoryError)

# Where MONAI raises what only says that a component or an expression failed.
_WRAPPERS = (("monai", "utils", "module.py"), ("monai", "bundle", "config_item.py"))


def install_messages() -> None:
    """From now on, end this process in one message where the user can mend the cause."""
    sys.excepthook = _print_message


def end_by_signal(number: int, _frame: FrameType | None = None) -> NoReturn:
    """End this process in one message, with 128 and the signal's number, as shells count."""
    name = signal.Signals(number).name
    sys.stderr.write(
        f"\nstopped by {name}: what is finished stays; the same command goes on, with --resume "
        "True where it has that option.\n"
    )
    raise SystemExit(128 + number)


def user_message(error: BaseException) -> str | None:
    """The message of the last error behind ``error`` that our code raised for the user, if any.

    What our code raised of another error of ours says more: the file, and what to do.
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
    return mine or (_user_error(cause) if cause is not None else None)


def _print_message(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if isinstance(error, KeyboardInterrupt):
        end_by_signal(signal.SIGINT)
    if (ending := _ending(error)) is None:
        traceback.print_exception(kind, error, trace)
        return
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    rank = f"[rank {os.environ.get('RANK')}] " if several else ""
    sys.stderr.write(f"\nerror: {rank}{ending[0]}\n")
    raise SystemExit(ending[1])


def _ending(error: BaseException) -> tuple[str, int] | None:
    """What to tell the user, and the exit code; None for an error that is ours to mend."""
    found = _user_error(error)
    if found is not None:
        return str(found), getattr(found, "exit_code", 2 if isinstance(found, _BAD_INPUT) else 1)
    if (message := _config_message(error)) is not None:
        return message, 2
    if isinstance(error, OSError) and error.filename is not None:  # what the system refuses
        short = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)
        return f"{error.filename}: {error.strerror}.", 4 if short else 2
    return None


def _config_message(error: BaseException) -> str | None:
    """The key of a config that MONAI could not build, and why; None if the error is another.

    MONAI wraps what a component raises once for every component around it. What fails while a
    config runs, and not while its parts are built, is an error of the program.
    """
    links = list(_links(error))
    keys = [key for link in links for key in _keys(link)]
    if not keys or keys[-1].split("#")[0] in ("initialize", "run", "finalize"):
        return None
    link, key = links[-1], keys[-1]
    said = traceback.format_exception_only(link)[-1].strip().splitlines()[0]
    place = traceback.extract_tb(link.__traceback__)[-1]
    hint = f" ({Path(place.filename).name}, line {place.lineno})"
    if isinstance(link, ModuleNotFoundError):
        hint = " `mrn components` lists ours; the folder of your own must be on PYTHONPATH."
    return f"{key.replace('::', '#')}: {said}{hint}"


def _links(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes, as far as it is MONAI's parser that tells of them."""
    yield error
    frames = traceback.extract_tb(error.__traceback__)
    wrapper = Path(frames[-1].filename).parts[-3:] if frames else ()
    if error.__cause__ is not None and wrapper in _WRAPPERS:
        yield from _links(error.__cause__)


def _keys(error: BaseException) -> Iterator[str]:
    """The ids of the config's items that were built when an error was raised, the inner last."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "_resolve_one_item":
            yield str(frame.f_locals["id"])
