"""Files that appear whole or not at all, that can be checked, in folders of one process."""

import csv
import errno
import hashlib
import io
import json
import logging
import os
import shutil
import socket
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

from mrn_components.system.errors import DamagedFileError, ResourceError, UnwritableError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_logger = logging.getLogger(__name__)
WEIGHTS = (".bin", ".ckpt", ".pt", ".pth")  # files that torch.save writes
UNFINISHED = ".unfinished."
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # of spreadsheets (OWASP: CSV injection)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
_LOCKED_BYTE = 2**20  # Windows locks bytes: one after the name of the owner, which others read
_PATIENCE_S = 10.0  # a killed process's children need some seconds to notice


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes ``path`` when the block ends without an error.

    The temporary file keeps the suffix and is flushed to the disk before it takes the name, so that
    a killed process or a full disk leaves the old file. The folder is made.

    Raises:
        FileExistsError: if ``path`` is a symbolic link, which could lead anywhere.
        ResourceError: if the disk is full.
        UnwritableError: if the folder cannot be written to.
    """
    if path.is_symlink():
        raise FileExistsError(
            f"{path} is a symbolic link (to {path.readlink()}); remove it, or name another "
            "folder for the results."
        )
    temporary = path.with_name(f"{UNFINISHED}{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)  # whatever has that name, a link included
        yield temporary
        flush_file(temporary)
        temporary.replace(path)
        _flush_folder(path.parent)
    except (OSError, RuntimeError) as error:
        _explain(error, path)
        raise
    finally:
        with suppress(OSError):  # it may never have been made
            temporary.unlink()


@contextmanager
def replacing_hashed(path: Path) -> Iterator[Path]:
    """Do as ``replacing``, with the SHA-256 in ``path`` + ".sha256", as ``sha256sum -c`` reads it.

    The old digest goes before the new file comes: a process killed in between leaves a file
    without a digest, never one with another's.
    """
    with replacing(path) as temporary:
        yield temporary
        digest = file_hash(temporary)
        digest_path(path).unlink(missing_ok=True)
    write_text(digest_path(path), f"{digest}  {path.name}\n")


def digest_path(path: Path) -> Path:
    """The file that holds the SHA-256 of ``path``."""
    return path.with_name(f"{path.name}.sha256")


def check_digest(path: Path) -> None:
    """Compare a file with the SHA-256 beside it, or else with the checksums in it.

    What ``torch.save`` writes is a zip archive, whose checksums torch does not look at. A file of
    another kind without a SHA-256 beside it passes; of weights, a warning says so.

    Raises:
        DamagedFileError: if it is not the file that was written.
    """
    if digest_path(path).is_file():
        with digest_path(path).open(encoding="utf-8", errors="replace") as file:
            expected = "".join(file.read(200).split()[:1])
        if (found := weights_hash(path)) != expected:
            raise DamagedFileError(
                f"{path} is damaged: its SHA-256 begins with {found[:12]}, and "
                f"{digest_path(path).name} says {expected[:12] or 'nothing'}. Copy it again, or "
                "use another file. If you changed it on purpose, delete the .sha256 file."
            )
    elif zipfile.is_zipfile(path):
        if (member := _unless_changed(damaged_member, path)) is not None:
            raise DamagedFileError(
                f"{path} is damaged: the checksum of {member} in it is another. Copy it again, or "
                "use another file."
            )
    elif path.suffix in WEIGHTS:
        _logger.warning("%s has no checksums: whether it is damaged cannot be seen.", path)


def damaged_member(path: Path) -> str | None:
    """The first member of a zip archive whose bytes do not have its checksum, or what else is."""
    try:
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                return "packed members, which torch.save never writes,"
            return archive.testzip()
    except Exception as error:  # whatever a broken archive brings about
        return f"its archive ({type(error).__name__})"


def existing_file(*, path: str, hint: str) -> str:
    """Return ``path``, which a config is about to read, if it is a file and undamaged.

    Raises:
        FileNotFoundError: with the ``hint`` what to type.
        DamagedFileError: if it is not the file that was written, as ``check_digest`` can tell.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not there. {hint}")
    check_digest(Path(path))
    return path


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as the whole of ``path`` (UTF-8)."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Write ``content`` as the whole of a JSON file."""
    write_text(path, json.dumps(content, indent=indent) + "\n")


def without_folders(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with names for absolute paths, which would tell of the machine."""

    def shown(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: shown(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [shown(item) for item in value]
        return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value

    return shown(settings)


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Return the hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def weights_hash(path: Path) -> str:
    """Return the SHA-256 of a file of weights, which is read once until it changes.

    A prediction asks for it when it checks, calibrates and records, and gigabytes take seconds.
    """
    return str(_unless_changed(file_hash, path))


def remembered_hash(path: Path, memo_dir: Path, compute: Callable[[Path], str], what: str) -> str:
    """Return the SHA-256 that ``compute`` gives; ``memo_dir`` remembers it until the file changes.

    ``what`` tells this hash of a file from others of it; "" is for that of its bytes.
    """
    stat = path.stat()
    identity = f"{what}{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    memo = memo_dir / hashlib.sha256(identity.encode()).hexdigest()
    known = memo.read_text(encoding="utf-8") if memo.is_file() else ""
    if len(known) != 64:  # none yet, or a process died while it wrote
        known = compute(path)
        write_text(memo, known)
    return known


def csv_text(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None, *, floats: str = ".6f"
) -> str:
    """Return a table as csv: a header, and one line a row.

    Args:
        rows: {column: cell} each; what lacks or is None gives an empty cell.
        columns: those to write, in their order; None takes those of the first row.
        floats: format of the cells that are floats.
    """

    def cell(value: Any) -> Any:
        if isinstance(value, float):
            return format(value, floats)
        return csv_cell(" ".join(value.split())) if isinstance(value, str) else value

    text = io.StringIO()
    columns = list(rows[0]) if columns is None else columns
    lines = [columns, *([cell(row.get(key)) for key in columns] for row in rows)]
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def csv_cell(value: Any) -> Any:
    """Return ``value``, with a quote before a text that a spreadsheet would compute."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left below ``folder``; only for a folder nobody writes to."""
    for path in list(folder.rglob(f"{UNFINISHED}*")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def lock(folder: Path) -> TextIO:
    """Claim a folder until the returned file is closed here and in processes that inherited it.

    Raises:
        RuntimeError: if another process has it.
        UnwritableError: if the folder cannot be written to.
    """
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        _explain(error, path)
        raise
    give_up = time.monotonic() + _PATIENCE_S
    while True:
        try:
            _claim(file)
            break
        except (BlockingIOError, PermissionError) as error:
            if time.monotonic() > give_up:
                file.seek(0)
                owner = file.read() or "another process"
                file.close()
                raise RuntimeError(
                    f"{folder} is in use by {owner}, or by a process that it started; wait until "
                    "it ends, or end it."
                ) from error
            time.sleep(0.2)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file


def _claim(file: TextIO) -> None:
    """Lock a file, or raise an OSError if another process has it."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    with suppress(ImportError):
        import msvcrt

        locking: Any = msvcrt  # known to type checkers on Windows alone
        file.seek(_LOCKED_BYTE)
        locking.locking(file.fileno(), locking.LK_NBLCK, 1)
        file.seek(0)


def _explain(error: BaseException, path: Path) -> None:
    """Raise what the user can act on, if the cause is the disk or a permission."""
    cause: BaseException | None = error  # torch's writer hides the error of the disk behind its own
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    if cause is None or isinstance(cause, ResourceError | UnwritableError):
        return
    if cause.errno in _FULL:
        raise ResourceError(
            f"{path} cannot be written ({cause.strerror}); what was there before is kept. Free "
            "some space and type the same command again, for a training with --resume True."
        ) from error
    if cause.errno in _FORBIDDEN:
        raise UnwritableError(
            f"{path} cannot be written ({cause.strerror}); name another folder by --output_dir, "
            "for an `mrn` command as OUTPUT."
        ) from error


def flush_file(path: Path) -> None:
    """Flush what was written to a file to the disk."""
    with path.open("rb+") as file:  # Windows flushes what may be written
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Flush a folder's names to the disk, where the file system can."""
    with suppress(OSError):  # Windows opens no folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _unless_changed(compute: Callable[[Path], Any], path: Path) -> Any:
    """What is computed of a file that may be asked for again."""
    stat = path.stat()
    return _remembered(compute, path.resolve(), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _remembered(compute: Callable[[Path], Any], path: Path, _size: int, _changed_ns: int) -> Any:
    return compute(path)
