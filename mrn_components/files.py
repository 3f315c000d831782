"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_UNFINISHED = ".unfinished."
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # of spreadsheets (OWASP: CSV injection)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes ``path`` when the block ends without an error.

    The temporary file lies in the same folder and keeps the suffix; it is flushed to the disk
    before it takes the name, so that a killed process or a full disk leaves the old file.

    Args:
        path: file to write or replace; its folder is made.

    Raises:
        FileExistsError: if ``path`` is a symbolic link, which could lead anywhere.
    """
    if path.is_symlink():
        raise FileExistsError(
            f"{path} is a symbolic link (to {path.readlink()}); remove it, or name another "
            "folder for the results."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_UNFINISHED}{os.getpid()}.{path.name}")
    temporary.unlink(missing_ok=True)  # whatever has that name, a link included
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as the whole of ``path`` (UTF-8)."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def csv_cell(value: Any) -> Any:
    """``value`` for a cell of a csv: a quote goes before a text that a spreadsheet would compute.

    For texts from outside: names of files, messages of errors. Numbers stay as they are.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left below ``folder``; only for a folder nobody writes to."""
    for path in folder.rglob(f"{_UNFINISHED}*"):
        path.unlink()
