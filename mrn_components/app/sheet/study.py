"""The records of a study: beside a table of predictions, and in the folder of the run behind it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from mrn_components.app.figures import FIGURES
from mrn_components.app.records import EXPLANATION, RECORD
from mrn_components.data.predictions import OUT_OF_FOLD
from mrn_components.data.tables import read_rows
from mrn_components.data.target import Target, read_target
from mrn_components.data.weight_records import KEPT_WEIGHTS, TRAINED_ON, read_record
from mrn_components.system.files import weights_hash, without_folders
from mrn_components.system.plain_data import CONFIGS, parse_mapping, read_plain

Content = Mapping[str, Any]
_Found = dict[str, tuple[str, Content]]  # {record: (file, content)}
Derived = tuple[str, Sequence[tuple[str, str]]]  # a fact in words, and (record, key) of each place
NOTHING: Derived = ("", ())
AS_TRAINED = "# As run "  # how the packed config of a run begins

_MANIFEST, _CROSSVAL, _FOLDS = "manifest.json", "crossval.json", "folds.json"
_OF_COHORT = ("subjects", "inputs", "timings_s", "written", "weights")  # not of a fold's manifest
_COUNTED = ("status", "trained_on", "mask_source")  # columns whose values are counted
_FILLED = ("missing_rois", "flags", "error")  # columns whose filled cells are counted


@dataclass(frozen=True)
class Study:
    """What is known of predictions: the records that were found, with no folder of this machine.

    Args:
        table: of the predictions.
        rows: of the table.
        target: what is predicted.
        contents: {record: its content}.
        files: {record: the file that holds it, as the sheet names it}.
    """

    table: Path
    rows: Sequence[Mapping[str, str]]
    target: Target
    contents: Mapping[str, Content]
    files: Mapping[str, str]

    @property
    def is_cross_validated(self) -> bool:
        """Whether each subject is predicted by a fold."""
        return "crossval" in self.contents

    @property
    def weights(self) -> Mapping[str, str]:
        """The SHA-256 of the weights that predicted, by file."""
        return self.value("manifest", "weights") or {}

    def value(self, record: str, key: str) -> Any:
        """Return what a record has under a key, in which "#" goes down; None if it has none."""
        found: Any = self.contents.get(record)
        for part in key.split("#"):
            found = found.get(part) if isinstance(found, Mapping) else None
        return found


def find_study(
    table: Path, evaluation: Path, bundle: Path | None = None, *, typed: str | None = None
) -> Study:
    """Read the records of a table of predictions and of what ``mrn evaluate`` says of it.

    Those of a run or bundle are taken only from a folder with the very weights that the manifest
    names: ``bundle``, or one that lies around the table, or in ``bundles``.

    Args:
        table: of the predictions.
        evaluation: folder that ``mrn evaluate`` wrote.
        bundle: folder of the bundle or run that predicted, if it is given.
        typed: the words by which the user gave it; None means "--bundle" and the folder.

    Raises:
        ValueError: for a damaged record, or a ``bundle`` with other weights.
    """
    rows = [row for _, row in read_rows(table, ())]
    found: _Found = {"table": (table.name, _counts(rows))}
    found |= _of_evaluation(evaluation) | _of_predictions(table)
    manifest = found["manifest"][1] if "manifest" in found else {}
    root = _bundle_of(table, manifest, bundle, typed or f"--bundle {bundle}")
    if root is not None:
        found |= _of_bundle(root, manifest)
    return Study(
        table=table,
        rows=rows,
        target=read_target(table.parent),
        contents={name: without_folders(content) for name, (_, content) in found.items()},
        files={name: file for name, (file, _) in found.items()},
    )


def bundle_study(root: Path, target: Target) -> Study:
    """Read the records of a bundle whose weights were not evaluated yet.

    Args:
        root: folder of the bundle, or of a run.
        target: what it predicts.
    """
    files = sorted((root / "models").glob("*.pt"))
    manifest = {"weights": {f"models/{path.name}": weights_hash(path) for path in files}}
    found: _Found = {"table": ("", _counts([])), "manifest": ("models/", manifest)}
    found |= _of_bundle(root, manifest)
    return Study(
        table=root,
        rows=[],
        target=target,
        contents={name: without_folders(content) for name, (_, content) in found.items()},
        files={name: file for name, (file, _) in found.items()},
    )


def find_folds(run: Path) -> Content | None:
    """Read how the subjects of a run, or of the cross-validation around it, were split."""
    path = next(filter(Path.is_file, (run / _FOLDS, run.resolve().parent / _FOLDS)), None)
    return None if path is None else _read(path)


def _counts(rows: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Count what the columns of a table say."""
    columns = list(rows[0]) if rows else []
    counted = {c: dict(Counter(row[c] for row in rows)) for c in _COUNTED if c in columns}
    filled = {c: sum(bool(row[c]) for row in rows) for c in _FILLED if c in columns}
    return {"rows": len(rows), "columns": columns, **counted, **filled}


def _of_evaluation(folder: Path) -> _Found:
    figures = {name: f"{name}.svg" for name in FIGURES if (folder / f"{name}.svg").is_file()}
    found: _Found = {"metrics": ("metrics.json", _read(folder / "metrics.json"))}
    return found | ({"figures": ("*.svg", figures)} if figures else {})


def _of_predictions(table: Path) -> _Found:
    """Read what lies beside a table: of ``mrn predict``, or of a cross-validation."""
    folder = table.parent
    if table.name == OUT_OF_FOLD:
        names = {"crossval": _CROSSVAL, "settings": "settings.json", "folds": _FOLDS}
    else:
        names = {"manifest": _MANIFEST, "contributions": "contributions.json"}
    if not _has_states(folder):  # the table is not that of `mrn contributions`
        names.pop("contributions", None)
    found: _Found
    found = {k: (name, _read(folder / name)) for k, name in names.items() if _is(folder / name)}
    if table.name == OUT_OF_FOLD:
        found |= _of_folds(folder)
    if explained := len(list(folder.glob(f"subjects/*/{EXPLANATION}"))):
        found["explanations"] = (f"subjects/*/{EXPLANATION}", {"subjects": explained})
    return found


def _has_states(folder: Path) -> bool:
    """Whether the subjects were predicted with regions hidden, too."""
    path = next(folder.glob(f"subjects/*/{RECORD}"), None)
    with suppress(ValueError):  # a damaged record of a subject is none
        return path is not None and "states" in _read(path)
    return False


def _of_folds(folder: Path) -> _Found:
    """Read the manifests of the folds: the first one's settings, the weights of all."""
    paths = sorted(folder.glob(f"fold*/out_of_fold/{_MANIFEST}"))
    if not paths:
        return {}
    each = {path.parent.parent.name: _read(path) for path in paths}
    first = next(iter(each.values()))
    settings = {key: value for key, value in first.items() if key not in _OF_COHORT}
    weights = {
        f"{fold}/{name}": digest
        for fold, manifest in each.items()
        for name, digest in manifest.get("weights", {}).items()
    }
    return {"manifest": (f"fold*/out_of_fold/{_MANIFEST}", {**settings, "weights": weights})}


def _bundle_of(table: Path, manifest: Content, given: Path | None, typed: str) -> Path | None:
    """Find the folder with the weights that predicted."""
    weights = manifest.get("weights", {})
    if given is not None:
        if not _holds(given, weights):
            raise ValueError(
                f"{typed} does not hold the weights that {_MANIFEST} of {table.parent} "
                f"names ({', '.join(weights) or 'there is none'}), so that its records say nothing "
                "of these predictions; name the folder of the run that predicted."
            )
        return given
    here = table.resolve().parent
    name = manifest.get("settings", {}).get("bundle") or "."
    usual = [Path("bundles", name), *sorted(Path("bundles").glob(f"*/runs/{escape(name)}"))]
    return next((each for each in (here, *here.parents[:3], *usual) if _holds(each, weights)), None)


def _holds(root: Path, weights: Mapping[str, str]) -> bool:
    """Whether a folder holds weights with these hashes, and the config that predicts with them."""
    found = [_weights_file(root, name) for name in weights]
    return bool(found) and all(
        path is not None and weights_hash(path) == digest
        for path, digest in zip(found, weights.values(), strict=True)
    )


def _weights_file(root: Path, name: str) -> Path | None:
    return next((p for p in (root / name, root / "models" / name) if p.is_file()), None)


def _of_bundle(root: Path, manifest: Content) -> _Found:
    """Read the configs of a bundle, and what its weights say of their training."""
    weights = manifest["weights"]
    first = next(path for name in weights if (path := _weights_file(root, name)) is not None)
    home = first.parent.parent  # of several folds the first
    label = home.resolve().name
    found: _Found = {}
    for name in ("inference", "metadata"):
        if config := _config(home, name):
            found[name] = (f"{label}/configs/{config[0].name}", config[1])
    run = _trained(home, set(weights.values()))
    if run is not None and (config := _config(run, "train")):
        found["train"] = (f"{run.resolve().name}/configs/{config[0].name}", config[1])
        if folds := find_folds(home):
            found["folds"] = (_FOLDS, folds)
    if "inference" in found and (changed := manifest.get("settings", {}).get("overrides")):
        file, content = found["inference"]
        found["inference"] = f"{file} and {_MANIFEST}, overrides", _changed(content, changed)
    for record, name in (("ledger", TRAINED_ON), ("kept", KEPT_WEIGHTS)):
        if (carried := read_record(first, name)) is not None:
            found[record] = (f"{label}/models/{first.name} ({name})", carried)
    return found


def _changed(config: Content, overrides: Content) -> Content:
    """Return a config with the keys that a prediction changed."""
    config = deepcopy(dict(config))
    for key, value in overrides.items():
        *above, last = key.split("#")
        place: Any = config
        for name in above:
            place = place.get(name) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[last] = value
    return config


def _trained(root: Path, hashes: set[str]) -> Path | None:
    """Find the folder whose training config is that of the weights, not one for anybody."""
    if config := _config(root, "train"):
        path, content = config
        plain = path.with_suffix(".yaml")
        as_packed = plain.is_file() and plain.read_text("utf-8").startswith(AS_TRAINED)
        mark = content.get("bundle_root")
        is_run = isinstance(mark, Mapping) and mark.get("made_in") is not None
        return root if is_run or as_packed else None
    first = root.parent / "fold0"  # an ensemble beside its folds
    weights = first / "models" / "model.pt"
    return first if weights.is_file() and weights_hash(weights) in hashes else None


def _config(root: Path, name: str) -> tuple[Path, Content] | None:
    paths = [root / "configs" / f"{name}{suffix}" for suffix in CONFIGS]
    path = next(filter(Path.is_file, paths), None)
    if path is None:
        return None
    try:
        return path, read_plain(path)
    except ValueError as error:
        raise ValueError(f"{path} {error}; copy the bundle again.") from error


def _is(path: Path) -> bool:
    return path.is_file()


def _read(path: Path) -> dict[str, Any]:
    """Read a JSON file that this package wrote."""
    try:
        return parse_mapping(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); write it again.") from error
