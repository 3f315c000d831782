"""Proving a packed bundle: its card is followed by a Python that sees nothing else of ours."""

import math
import os
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from mrn_components.app.packing.metadata import OWN
from mrn_components.data.predictions import PREDICTIONS
from mrn_components.data.tables import read_rows

_OUTPUT = "out"  # where the card's commands write
_TOLERANCE = 1e-4  # of numbers between two computers; on one the tables are equal
_BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def prove(path: Path, folder: Path, expected: Sequence[Mapping[str, str]]) -> None:
    """Unpack the zip into the empty ``folder`` and do what its card says with its sample.

    Python runs without its site-packages: it sees links to the packages that requirements.txt
    names, to what these require, and nothing else.

    Args:
        path: of the zip.
        folder: empty.
        expected: the rows of predictions that the card shows.

    Raises:
        RuntimeError: with the end of the output, if it does not work or predicts something else.
    """
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    bundle = folder / path.stem
    site = link_packages(
        (bundle / "requirements.txt").read_text().split(), folder / "site-packages"
    )
    if run_python(["-c", "import mrn_components"], folder, site).returncode == 0:
        raise RuntimeError(f"{OWN} is visible without the bundle, so nothing would be proved.")
    if not (tries := list(commands(bundle / "docs" / "README.md"))):
        raise RuntimeError("the packed bundle's card has no command that tries its sample.")
    for command in tries:
        done = run_python(command, bundle, site)
        if done.returncode:
            raise RuntimeError(
                f"the packed bundle fails in `python {' '.join(command)}`:\n{done.stdout[-3000:]}"
            )
    results = bundle / _OUTPUT
    files = sorted(str(file.relative_to(results)) for file in results.rglob("*") if file.is_file())
    if not files:
        raise RuntimeError(f"the packed bundle wrote nothing:\n{done.stdout[-3000:]}")
    if expected:
        compare(results / PREDICTIONS, expected)
    print(
        f"Proved: unpacked elsewhere, without {OWN}, its card's commands wrote {', '.join(files)}"
    )


def commands(card: Path) -> Iterator[list[str]]:
    """Yield the arguments of Python in the first commands of a card, which try its sample."""
    block = _BLOCK.search(card.read_text(encoding="utf-8"))
    for line in (block[1] if block else "").splitlines():
        program, *arguments = shlex.split(line, comments=True) or [""]
        if program == "python" and arguments[:2] != ["-m", "venv"]:
            yield arguments


def compare(table: Path, expected: Sequence[Mapping[str, str]]) -> None:
    """Compare a table of predictions with the rows that the card shows.

    Raises:
        RuntimeError: for another table, or none.
    """
    try:
        found = [row for _, row in read_rows(table, list(expected[0]))]
    except (OSError, ValueError) as error:
        raise RuntimeError(f"unpacked elsewhere the bundle makes another table: {error}") from error
    names, known = ([row["subject"] for row in rows] for rows in (found, expected))
    if names != known:
        raise RuntimeError(
            f"unpacked elsewhere the bundle predicts {', '.join(names)}, where it was packed "
            f"{', '.join(known)}."
        )
    for row, other in zip(found, expected, strict=True):
        for column, value in other.items():
            if not _is_close(row[column], value):
                raise RuntimeError(
                    f"unpacked elsewhere the bundle says {column} {row[column]!r} of "
                    f"{row['subject']}, where it was packed {value!r}."
                )


def _is_close(cell: str, other: str) -> bool:
    """Whether two cells are equal, or numbers of which the digits differ that computers change."""
    with suppress(ValueError):  # words
        return math.isclose(float(cell), float(other), abs_tol=_TOLERANCE)
    return cell == other


def run_python(arguments: list[str], folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in ``folder`` with the packages in ``site`` alone."""
    return subprocess.run(
        [sys.executable, "-S", "-s", "-W", "ignore", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def link_packages(required: list[str], site: Path) -> Path:
    """Fill ``site`` with links to the installed files of packages and of what they require."""
    site.mkdir()
    todo, done = [Requirement(line) for line in required], set()
    while todo:
        requirement = todo.pop()
        key = (requirement.name.lower(), *sorted(requirement.extras))
        try:
            package = metadata.distribution(requirement.name)
        except metadata.PackageNotFoundError:
            continue  # what really lacks shows when the bundle runs
        if key in done:
            continue
        done.add(key)
        for file in package.files or ():
            link = site / file.parts[0]
            if file.parts[0] != ".." and not link.exists():
                link.symlink_to(Path(str(package.locate_file(file.parts[0]))))
        for line in package.requires or ():
            child = Requirement(line)
            extras = [{"extra": extra} for extra in (*requirement.extras, "")]
            if child.marker is None or any(child.marker.evaluate(extra) for extra in extras):
                todo.append(child)
    return site
