"""Proving a packed bundle: its card is followed by a Python that sees nothing else of ours."""

import csv
import math
import os
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from mrn_components.app.packing.metadata import OWN
from mrn_components.data.predictions import PREDICTIONS

_OUTPUT = "out"  # where the card's commands write
_TOLERANCE = 1e-4  # between two computers; on one the tables are equal
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
    for command in commands(bundle / "docs" / "README.md"):
        done = run_python(command, bundle, site)
        if done.returncode:
            raise RuntimeError(
                f"the packed bundle fails in `python {' '.join(command)}`:\n{done.stdout[-3000:]}"
            )
    results = bundle / _OUTPUT
    files = sorted(str(file.relative_to(results)) for file in results.rglob("*") if file.is_file())
    if not files:
        raise RuntimeError(f"the packed bundle wrote nothing:\n{done.stdout[-3000:]}")
    _compare(results / PREDICTIONS, expected)
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


def _compare(table: Path, expected: Sequence[Mapping[str, str]]) -> None:
    """Compare a table of predictions with the card's."""
    if not expected:
        return
    with table.open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    for row, other in zip(found, expected, strict=True):
        for column, value in other.items():
            same = row[column] == value
            if column.startswith("prob_"):
                same = math.isclose(float(row[column]), float(value), abs_tol=_TOLERANCE)
            if not same:
                raise RuntimeError(
                    f"unpacked elsewhere the bundle says {column} {row[column]} of "
                    f"{row['subject']}, where it was packed {value}."
                )


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
