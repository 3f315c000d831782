"""What a process says on the screen: its own words, in one format, and bars in a terminal alone.

What libraries say of themselves, such as a warning of what they will change one day, is kept in a
file beside what the process makes.
"""

import logging
import sys
import sysconfig
import warnings
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

Item = TypeVar("Item")

NOTICES = "notices.log"  # what libraries said
_FORMAT = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
_PACKAGE = Path(__file__).parent.parent
_LIBRARIES = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
# Loggers of MONAI that print by themselves, in a format of their own.
_MONAI = ("apps", "bundle.scripts", "bundle.workflows", "networks.utils", "transforms.compose")


def start_logs() -> None:
    """Print what our code and the user's log, and hold what libraries do; twice does no harm.

    Errors of libraries are printed too, but Ignite's: whoever catches the exception tells of it.
    Code of the user's that lies among the libraries counts as one of them.
    """
    root = logging.getLogger()
    if any(isinstance(handler, _Notices) for handler in root.handlers):
        return
    for printing in [one for one in root.handlers if type(one) is logging.StreamHandler]:
        root.removeHandler(printing)  # of a bundle's logging.conf
    ours: list[logging.Handler] = [_Screen(), _Notices()]
    for name in ("", *(f"monai.{name}" for name in _MONAI)):
        logger = logging.getLogger(name)
        for handler in ours:
            handler.setFormatter(_FORMAT)
            logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    warnings.showwarning = _log_warning  # type: ignore[assignment]  # it prints to no file


def keep_notices(folder: str | Path) -> None:
    """Write what libraries said, and will say, to a file in a folder, once the folder is there."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Notices):
            handler.folder = Path(folder)
            handler.flush()


def bar(
    items: Iterable[Item],
    what: str,
    total: int | None = None,
    *,
    unit: str = "subject",
    shown: bool = True,
) -> Iterable[Item]:
    """Yield the items, and show in a terminal how many of them are done."""
    from tqdm import tqdm

    return tqdm(items, what, total, leave=False, unit=unit, disable=None if shown else True)


class _Screen(logging.Handler):
    """Prints what is no notice, above the bars that a terminal shows."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Leave out what libraries say."""
        return not _is_notice(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Print a line."""
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


class _Notices(logging.Handler):
    """Holds what libraries say until the folder of its file is there."""

    def __init__(self) -> None:
        super().__init__()
        self.folder: Path | None = None
        self.held: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Leave out what is on the screen."""
        return _is_notice(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Hold a line, and write all if there is a folder."""
        self.held.append(f"{self.format(record)}\n")
        self.flush()

    def flush(self) -> None:
        """Write what is held, if there is a folder; a full disk is told by what matters more."""
        if self.held and self.folder is not None and self.folder.is_dir():
            with suppress(OSError), (self.folder / NOTICES).open("a", encoding="utf-8") as file:
                file.writelines(self.held)
                self.held.clear()


def _is_notice(record: logging.LogRecord) -> bool:
    """Whether a library says it, and no user can do anything about it."""
    path = Path(record.pathname)
    theirs = any(path.is_relative_to(folder) for folder in _LIBRARIES)
    if not theirs or path.is_relative_to(_PACKAGE):
        return False
    return record.levelno < logging.ERROR or record.name.startswith("ignite")


def _log_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any
) -> None:
    """Log a warning as if the line logged it that is to blame."""
    logger = logging.getLogger("py.warnings")
    text = f"{category.__name__}: {message} ({filename}, line {lineno})"
    record = logger.makeRecord(logger.name, logging.WARNING, filename, lineno, text, (), None)
    logger.handle(record)
