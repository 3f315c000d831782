"""Records that weight files carry besides their tensors: JSON members of ``torch.save``'s zip."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mrn_components.system.plain_data import parse_mapping

TRAINED_ON = "training_subjects.json"  # the leakage ledger
KEPT_WEIGHTS = "kept_weights.json"  # how the weights of a run were chosen
REPRESENTATION = "representation.json"  # how the training subjects spread in it
REFERENCES = "references.json"  # representations of some of them, to compare others with
CROP_SIZES = "crop_sizes.json"  # {ROI: pixels of the longer side of its crops}
RECORDS = (TRAINED_ON, KEPT_WEIGHTS, REPRESENTATION, REFERENCES, CROP_SIZES)


def append_record(path: str | Path, name: str, record: Mapping[str, Any]) -> None:
    """Append a JSON record to a file that ``torch.save`` wrote.

    They are zip archives; ``torch.load`` passes over what it does not know.
    """
    with zipfile.ZipFile(path, "a") as archive:
        root = archive.namelist()[0].split("/")[0]
        archive.writestr(f"{root}/{name}", json.dumps(record, indent=1))


def read_record(path: str | Path, name: str) -> dict[str, Any] | None:
    """Read a record from a weight file; None if the file carries none of this name.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.endswith(f"/{name}"):
                    return parse_mapping(archive.read(member))
    except zipfile.BadZipFile:  # another format than torch's; what loads it may object
        pass
    except ValueError as error:
        raise ValueError(
            f"{path}: what it says in {name} is damaged ({error}); copy the weights again, or "
            "train anew."
        ) from error
    return None


def copy_records(source: Path, target: Path) -> None:
    """Append the records of one weight file to another."""
    for name in RECORDS:
        if (record := read_record(source, name)) is not None:
            append_record(target, name, record)
