"""Tables of the ids that masks have: ``--nuclei FILE``."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mrn_components.data.tables import csv_lines
from mrn_components.images.image import Image
from mrn_components.regions.roi import ROI

_COLUMNS = ["image", "nucleus", "right", "left"]

Table = dict[str, dict[str, list[int]]]  # {"qsm": {"SN": [right, left]}}


def read_nuclei(path: str | Path) -> Table:
    """Read a csv with the header ``image,nucleus,right,left``, a row a nucleus.

    Both ids may be the same: a mask's nuclei are then split at the midline.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the faulty line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"--nuclei {str(path)!r} is no file; name a csv of {_COLUMNS}.")
    table: Table = {}
    for place, (number, cells) in enumerate(csv_lines(path)):
        where = f"{path} line {number}"
        if place == 0:
            if cells != _COLUMNS:
                raise ValueError(f"{where}: expected the header {','.join(_COLUMNS)}, got {cells}.")
            continue
        ids = cells[2:]
        if len(cells) != len(_COLUMNS) or not all(i.isascii() and i.isdigit() for i in ids):
            raise ValueError(
                f"{where}: expected an image, a nucleus and two whole numbers, such as "
                f"qsm,SN,12,13, got {','.join(cells)!r}."
            )
        nuclei = table.setdefault(cells[0], {})
        if cells[1] in nuclei:
            raise ValueError(f"{where}: {cells[0]},{cells[1]} stands already above.")
        nuclei[cells[1]] = [int(i) for i in ids]
    if not table:
        raise ValueError(f"{path} has no nuclei below its header.")
    return table


def drawn_by(
    path: str | Path | None, images: Mapping[str, Image], rois: Mapping[str, ROI]
) -> tuple[dict[str, Image], dict[str, ROI]]:
    """Return images, and regions of them, whose masks have the ids of a table; None changes none.

    Raises:
        FileNotFoundError: if there is no such table.
        ValueError: for a faulty one, or one that names other images or nuclei.
    """
    table = {} if path is None else read_nuclei(path)
    if unknown := [name for name in table if name not in images]:
        raise ValueError(f"{path}: {unknown} are none of the images {list(images)}.")
    try:
        drawn = {
            name: replace(image, drawn_as=table[name]) if name in table else image
            for name, image in images.items()
        }
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    of_rois = {
        name: replace(roi, image=replace(roi.image, drawn_as=table[roi.image.name]))
        if roi.image.name in table
        else roi
        for name, roi in rois.items()
    }
    return drawn, of_rois


def nuclei_overrides(path: str | Path | None) -> dict[str, dict[str, list[int]]]:
    """Return the keys of a config that say what a table says; none without a table."""
    table = {} if path is None else read_nuclei(path)
    return {f"images#{name}#drawn_as": nuclei for name, nuclei in table.items()}
