"""SHA-256 of a bundle's files: written when it is packed, verified before it is used.

Hashes inside a bundle show damage and half-done updates. They show no forgery, since who changes a
file can change its hash: compare the bundle's own hash with one from its publisher for that.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from mrn_components.system.files import file_hash, write_json
from mrn_components.system.plain_data import read_plain

HASHES = "hashes.json"  # {"sha256": {path in the bundle: hash}}
LARGE_FILES = "large_files.yml"  # MONAI's: files to download, with hashes
_COMPLETE = ("configs", "models")  # folders to which nothing may be added
_ALGORITHMS = ("md5", "sha1", "sha256", "sha512")  # those MONAI knows


def write_hashes(folder: str | Path) -> Path:
    """Write ``hashes.json`` of all files below ``folder`` and return its path."""
    root = Path(folder)
    hashes = {
        path.relative_to(root).as_posix(): file_hash(path)
        for path in sorted(root.rglob("*"))
        if path.is_file() and path != root / HASHES
    }
    write_json(root / HASHES, {"sha256": hashes}, indent=1)
    return root / HASHES


def verify_hashes(folder: str | Path) -> dict[str, str]:
    """Compare a bundle with its ``hashes.json`` and ``large_files.yml``, where it has them.

    Every file that ``hashes.json`` names must be there and unchanged, and ``configs/`` and
    ``models/`` must hold no other. A file of ``large_files.yml`` may be absent: it is downloaded.

    Returns:
        What is wrong: {path in the bundle: message}; empty also if nothing is recorded.
    """
    root = Path(folder)
    listed = _verify_listed(root) if (root / HASHES).is_file() else {}
    return listed | (_verify_large(root) if (root / LARGE_FILES).is_file() else {})


def _verify_listed(root: Path) -> dict[str, str]:
    try:
        hashes: Mapping[str, str] = read_plain(root / HASHES)["sha256"]
        expected = {str(name): str(value) for name, value in hashes.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {HASHES: 'is no JSON of the form {"sha256": {path: hash}}'}
    problems = {name: _verify_file(root, name, value) for name, value in expected.items()}
    for path in (path for part in _COMPLETE for path in (root / part).rglob("*") if path.is_file()):
        if (name := path.relative_to(root).as_posix()) not in expected:
            problems[name] = f"was added: {HASHES} does not name it"
    return {name: problem for name, problem in problems.items() if problem}


def _verify_large(root: Path) -> dict[str, str]:
    try:
        content = read_plain(root / LARGE_FILES)
        entries = [(str(entry["path"]), dict(entry)) for entry in content["large_files"]]
    except (ValueError, KeyError, TypeError):
        return {LARGE_FILES: "is no YAML of the form `large_files: [{path: ...}]`"}
    problems = {}
    for name, entry in entries:
        algorithm = str(entry.get("hash_type") or "sha256").lower()
        if not entry.get("hash_val"):
            problems[name] = f"has no hash in {LARGE_FILES}; add hash_type: sha256 and hash_val"
        elif algorithm not in _ALGORITHMS:
            problems[name] = f"has the hash_type {algorithm!r} in {LARGE_FILES}; use sha256"
        elif not _is_inside(name) or (root / name).is_file():
            problems[name] = _verify_file(root, name, str(entry["hash_val"]), algorithm)
    return {name: problem for name, problem in problems.items() if problem}


def _verify_file(root: Path, name: str, expected: str, algorithm: str = "sha256") -> str:
    """What is wrong with a file, or nothing."""
    if not _is_inside(name):
        return "lies outside the bundle"
    if not (root / name).is_file():
        return "is missing"
    if (found := file_hash(root / name, algorithm)) != expected.lower():
        return f"was changed: {algorithm} {found[:12]}..., expected {expected[:12]}..."
    return ""


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts
