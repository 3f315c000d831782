"""Unpacking a bundle's zip file within limits."""

import stat
import zipfile
from pathlib import Path, PurePosixPath

from monai.apps.utils import extractall

MOST_MEMBERS = 10_000
MOST_BYTES = 8 * 2**30  # weights of five folds and two segmenters are 3 GiB
MOST_RATIO = 100  # unpacked to packed; above _SMALL. Text packs to a tenth
_SMALL = 100 * 2**20


def archive_problems(path: Path) -> list[str]:
    """What is wrong with a zip file: links, paths that leave it, sizes; reads no member."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        return [f"it is no zip file that can be read ({type(error).__name__})"]
    problems = []
    if len(members) > MOST_MEMBERS:
        return [f"it has {len(members)} members, at most {MOST_MEMBERS} are unpacked"]
    unpacked = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    if unpacked > MOST_BYTES:
        problems.append(f"it would unpack to {unpacked:,} bytes, at most {MOST_BYTES:,} are")
    elif unpacked > _SMALL and unpacked > MOST_RATIO * packed:
        problems.append(
            f"{packed:,} bytes would unpack to {unpacked:,}, more than {MOST_RATIO}-fold"
        )
    names = [member.filename.casefold().rstrip("/") for member in members]
    if len(set(names)) < len(names):
        problems.append("two members have one name")
    problems += [f"{m.filename!r} {why}" for m in members if (why := _member_problem(m))]
    roots = {PurePosixPath(member.filename).parts[:1] for member in members}
    if not problems and len(roots) != 1:
        listed = ", ".join(sorted("".join(root) for root in roots))[:100]
        problems.append(f"everything must lie in one folder, the bundle's; it holds {listed}")
    return problems


def unpack_bundle(path: Path, folder: Path) -> Path:
    """Unpack a zip file into an empty folder, and return the bundle's in it.

    The file has none of ``archive_problems``; a ValueError says that it is damaged.
    """
    try:
        extractall(path, folder, file_type="zip", has_base=False)
    except Exception as error:  # whatever a broken archive brings about
        raise ValueError(f"it cannot be unpacked ({type(error).__name__})") from error
    return next(folder.iterdir())


def _member_problem(member: zipfile.ZipInfo) -> str | None:
    path = PurePosixPath(member.filename)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or any(c in member.filename for c in "\\:\0"):
        return "leads out of the archive"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if member.flag_bits & 1:
        return "is encrypted"
    return None
