"""What ``--metrics`` of the packer names: an evaluation, and whether it is of these weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mrn_components.app.packing.metadata import flat_overlaps
from mrn_components.app.sheet.study import Study, find_study
from mrn_components.system.files import file_hash, weights_hash
from mrn_components.system.plain_data import parse_mapping

METRICS, MASKS = "metrics.json", "masks.json"
_TAKES = f"{METRICS} of `mrn evaluate` or {MASKS} of `mrn evaluate_masks`"


def find_metrics(path: Path) -> Path:
    """Return the file that a path names: itself, or the one of an evaluation in a folder.

    Raises:
        FileNotFoundError: if nothing is there.
        ValueError: if it is another file, or the folder holds none or both.
    """
    if path.is_dir():
        for folder in (path / "evaluation", path):  # of predictions, or the evaluation itself
            found = [folder / name for name in (METRICS, MASKS) if (folder / name).is_file()]
            if len(found) == 1:
                return found[0]
            if found:
                raise ValueError(
                    f"--metrics {path}: {folder} holds {METRICS} and {MASKS}; name one of them."
                )
        raise ValueError(f"--metrics {path} is a folder without an evaluation; name {_TAKES}.")
    if not path.exists():
        raise FileNotFoundError(f"--metrics {path} is not there; name {_TAKES}.")
    if path.name not in (METRICS, MASKS):
        raise ValueError(f"--metrics {path} is not an evaluation; name {_TAKES}.")
    return path


def read_evaluation(metrics: Path, source: Path, typed: str) -> Study:
    """Read an evaluation that is of the weights in ``source``.

    Args:
        metrics: ``metrics.json`` of ``mrn evaluate``.
        source: folder of the weights.
        typed: how the user named them: "--run DIR".

    Raises:
        ValueError: if it is of other weights, or damaged, or of predictions that changed.
    """
    content = _read(metrics).get("predictions")
    content = content if isinstance(content, Mapping) else {}
    table = metrics.resolve().parent.parent / Path(str(content.get("file", ""))).name
    if not table.is_file() or file_hash(table) != content.get("sha256"):
        raise ValueError(
            f"--metrics {metrics} must lie in the folder that `mrn evaluate` made in that of the "
            "predictions, and these are not there or were changed; evaluate again."
        )
    try:
        return find_study(table, metrics.parent, source.parent, typed=typed)
    except ValueError as error:
        raise ValueError(f"--metrics {metrics} is not of these weights: {error}") from error


def read_overlaps(metrics: Path, source: Path, typed: str) -> dict[str, float]:
    """Read the Dice of each nucleus, of masks by the weights in ``source`` as far as it is known.

    Args:
        metrics: ``masks.json`` of ``mrn evaluate_masks``.
        source: folder of the weights.
        typed: how the user named them: "--run DIR".

    Raises:
        ValueError: if it is another file, or the manifest of the masks names other weights.
    """
    try:
        overlaps = flat_overlaps(_read(metrics))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"--metrics {metrics} is not what `mrn evaluate_masks` writes: it lacks the number of "
            "subjects or the Dice of the nuclei; score the masks again."
        ) from error
    manifest = metrics.resolve().parent.parent / "manifest.json"
    hashes = _read(manifest).get("segmentation") if manifest.is_file() else None
    made_by = {name: sha for name, sha in (hashes or {}).items() if name.endswith(".pt")}
    ours = {weights_hash(path) for path in source.glob("*.pt")}
    if others := [name for name, sha in made_by.items() if sha not in ours]:
        raise ValueError(
            f"--metrics {metrics} is not of these weights: {typed} does not hold {others[0]} that "
            f"{manifest} says made the masks; name the run that made them."
        )
    return overlaps


def _read(path: Path) -> dict[str, Any]:
    """Read a JSON file that must hold a mapping."""
    try:
        return parse_mapping(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"--metrics: {path} is damaged ({error}); evaluate again.") from error
