"""Tables of the ids that masks have: ``--nuclei FILE``."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mrn_components.data.tables import csv_lines
from mrn_components.images.image import Image
from mrn_components.regions.roi import ROI

_COLUMNS = ["image", "nucleus", "right", "left"]

Table = dict[str, dict[str, list[int]]]  # {"qsm": {"SN": [right, left]}}


def read_nuclei(path: str | Path, images: Mapping[str, Image]) -> Table:
    """Read a csv with the header ``image,nucleus,right,left``, a row a nucleus.

    Both ids may be the same: a mask's nuclei are then split at the midline.

    Args:
        path: the csv.
        images: what there is; the table may name some of their nuclei.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the faulty line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"--nuclei {str(path)!r} is no file; name a csv of {_COLUMNS}.")
    table: Table = {}
    for place, (number, cells) in enumerate(csv_lines(path)):
        try:
            if place > 0:
                _take_row(cells, table, images)
            elif cells != _COLUMNS:
                raise ValueError(f"expected the header {','.join(_COLUMNS)}, got {cells}.")
        except ValueError as fault:
            raise ValueError(f"{path} line {number}: {fault}") from None
    if not table:
        raise ValueError(f"{path} has no nuclei below its header.")
    return table


def _take_row(cells: list[str], table: Table, images: Mapping[str, Image]) -> None:
    """Put a row into the table; a ValueError refuses one that no mask can have."""
    numbers = cells[2:]
    if len(cells) != len(_COLUMNS) or not all(i.isascii() and i.isdigit() for i in numbers):
        raise ValueError(
            f"expected an image, a nucleus and two whole numbers, such as qsm,SN,12,13, got "
            f"{','.join(cells)!r}."
        )
    name, nucleus, ids = cells[0], cells[1], [int(i) for i in numbers]
    if name not in images:
        raise ValueError(f"the image {name!r} is none of {list(images)}.")
    if nucleus not in images[name].nuclei:
        known = list(images[name].nuclei)
        raise ValueError(f"the nucleus {nucleus!r} of {name} is none of {known}.")
    if min(ids) < 1:
        raise ValueError(f"ids must be 1 or more, since 0 is no nucleus, got {ids}.")
    nuclei = table.setdefault(name, {})
    if nucleus in nuclei:
        raise ValueError(f"{name},{nucleus} stands already above.")
    for other, theirs in nuclei.items():
        if shared := {*ids} & {*theirs}:
            raise ValueError(f"the id {min(shared)} is {other}'s already, and ids differ.")
    nuclei[nucleus] = ids


def drawn_by(
    path: str | Path | None, images: Mapping[str, Image], rois: Mapping[str, ROI]
) -> tuple[dict[str, Image], dict[str, ROI]]:
    """Return images, and regions of them, whose masks have the ids of a table; None changes none.

    Raises:
        FileNotFoundError: if there is no such table.
        ValueError: for a faulty one, or one that names other images or nuclei.
    """
    table = {} if path is None else read_nuclei(path, images)
    drawn = {
        name: replace(image, drawn_as=table[name]) if name in table else image
        for name, image in images.items()
    }
    of_rois = {
        name: replace(roi, image=replace(roi.image, drawn_as=table[roi.image.name]))
        if roi.image.name in table
        else roi
        for name, roi in rois.items()
    }
    return drawn, of_rois


def nuclei_settings(
    path: str | Path, images: Mapping[str, Image]
) -> dict[str, dict[str, list[int]]]:
    """Return the keys of a config with some ``images`` that say what a table says."""
    table = read_nuclei(path, images)
    return {f"images#{name}#drawn_as": nuclei for name, nuclei in table.items()}
