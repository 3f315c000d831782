"""``mrn evaluate``: how good predictions are, and whether two models differ."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mrn_components.app.by_group import format_groups, read_groups, score_groups
from mrn_components.app.calibration_metrics import judge_calibration
from mrn_components.app.figures import Scored, write_figures
from mrn_components.app.geometry import recorded_geometry
from mrn_components.app.records import read_record
from mrn_components.app.report.cohort import write_cohort_report
from mrn_components.app.sheet.write import write_sheet
from mrn_components.data.identities import DataLeakageError
from mrn_components.data.predictions import (
    PREDICTIONS,
    labels_file,
    predictions_file,
    read_predictions,
)
from mrn_components.data.tables import read_labels
from mrn_components.data.target import HC_PD, Classes, Score, Target, describe, read_target
from mrn_components.metrics import (
    CONFIDENCE,
    NUM_RESAMPLES,
    THRESHOLD,
    choose_threshold,
    decisions_at,
    format_comparison,
    format_metrics,
    needed_subjects,
)
from mrn_components.system.files import file_hash, write_json, write_text
from mrn_components.system.texts import fill_template
from mrn_components.system.versions import versions_with

_PACKAGES = ("numpy", "scipy", "scikit-learn", "statsmodels", "matplotlib")


def evaluate(
    predictions: str | Path,
    labels: str | Path | None = None,
    *,
    against: str | Path | None = None,
    threshold_from: str | Path | None = None,
    half_width: float = 0.05,
    output: str | Path | None = None,
    names: Sequence[str] | None = None,
    group_by: str | Sequence[str] | None = None,
    partial: bool = False,
    sheet: bool = False,
    bundle: str | Path | None = None,
    seed: int = 1,
) -> Path:
    """Score predictions of labelled subjects, and compare two models (research use only).

    The folder gets ``metrics.json``, ``metrics.txt``, ``roc``, ``precision`` (and recall),
    ``reliability``, ``decision`` (net benefit) and ``confusion`` as .png and .svg, and
    ``report.html`` with all of it. ``metrics.json`` holds the metrics of
    PREDICTIONS under the names of ``diagnosis_metrics``, and beside them what they rest on: counts,
    settings, files and versions. Where ``mrn predict`` made the predictions, both also say how well
    the sizes and places of the crops alone tell the label. Of calibrated probabilities and sets of
    classes in the tables both say how true they are. Files name no time, so that the same
    input gives the same bytes. Where a ``target.json`` beside the predictions names more classes,
    the metrics are those of ``class_metrics`` and the figures roc and confusion; of a score they
    are those of ``score_metrics``, and the only figure is ``scatter``.

    Args:
        predictions: ``predictions.csv``, a cross-validation's ``out_of_fold.csv``, or the folder
            that holds it.
        labels: csv of rows SUBJECT,0|1; a JSON datalist; or a table with a column ``label``; as
            typed or relative to the predictions; None takes the column of the predictions.
        against: predictions of another model for the same subjects.
        threshold_from: out-of-fold predictions with labels, or their folder, of other subjects:
            the threshold that is best there is also applied here.
        half_width: of the 95 % intervals that the number of needed subjects is estimated for.
        output: folder of the results; None means ``evaluation`` beside predictions.csv, and beside
            another table its name with ``_evaluation``, as ``out_of_fold_evaluation``.
        names: of the models, e.g. MRN,baseline; None names them after their files or folders.
        group_by: columns of the labels, or of the predictions, e.g. site,sex,age,mask_source:
            metrics by their values too, of numbers by their thirds, and a test whether they differ
            (Cochran's Q).
        partial: evaluate the subjects that all tables name, instead of refusing others.
        sheet: also fill the checklists CLAIM 2024 and TRIPOD+AI, ``sheet.md`` and ``sheet.json``,
            and a model card, ``model_card.md``, with what the records of PREDICTIONS hold.
        bundle: folder of the run that predicted, for the sheet; None looks around the predictions
            and in ``bundles`` for the weights that their manifest names.
        seed: seed of the bootstrap.

    Returns:
        The folder of the results.

    Raises:
        DataLeakageError: if the predictions say that the model was trained on these subjects, or
            the threshold would be chosen on some of them.
        ValueError: for a faulty table, tables that do not name the same subjects, or a column
            ``group_by`` that no table has.
    """
    if seed < 0:
        raise ValueError(f"seed must be >= 0, got {seed}.")
    files = [predictions_file(path) for path in (predictions, against) if path is not None]
    truth_file = files[0] if labels is None else labels_file(labels, files[0])
    model_names = _names(files, names)
    target = _target(files)
    truth_of = read_labels(truth_file, target)
    prob_of = [read_predictions(file, target) for file in files]
    tables = dict(zip(files, prob_of, strict=True)) | {truth_file: truth_of}
    subjects, left_out = _common_subjects(tables, partial=partial)

    truth = np.array([truth_of[subject] for subject in subjects])
    threshold = _threshold(threshold_from, subjects, target)
    columns = [group_by] if isinstance(group_by, str) else group_by or ()
    groups_of = {name: read_groups([truth_file, *files], name, subjects) for name in columns}
    models = []
    for name, file, table in zip(model_names, files, prob_of, strict=True):
        prob = np.array([table[subject] for subject in subjects])
        confusion = {} if isinstance(target, Score) else target.confusion(prob, truth)
        judged = judge_calibration(
            file, subjects, prob, truth, target, groups_of=groups_of, seed=seed
        )
        metrics = target.metrics(prob, truth, seed)
        models.append(Scored(name, prob, metrics, confusion, *judged))
    if threshold and isinstance(target, Classes):
        own = decisions_at(models[0].prob, truth == target.number, threshold["value"])
        models[0] = models[0]._replace(metrics={**models[0].metrics, **own})
    records = (read_record(files[0].parent, subject, target) for subject in subjects)
    geometry = recorded_geometry(filter(None, records), truth_of, target)
    report = {
        **_of_models(models, files, truth, target),
        **_by_group(models, truth, groups_of, target, seed),
        "labels": _file(truth_file),
        "n": len(truth),
        **_cohort(truth, target),
        "left_out": left_out,
        **({} if geometry is None else {"geometry": asdict(geometry)}),
        **({"threshold": THRESHOLD} if target.is_binary else {}),
        **({"threshold_from": threshold} if threshold else {}),
        **_needed(models[0], half_width),
        "confidence": CONFIDENCE,
        "bootstrap": {"seed": seed, "resamples": NUM_RESAMPLES},
        "versions": versions_with(_PACKAGES),
        "note": "Research use only.",
    }
    output_dir = _beside(files[0]) if output is None else Path(output)
    write_figures(models, truth, output_dir, target)
    write_text(output_dir / "metrics.txt", _text(report, models, truth, geometry, target))
    write_json(output_dir / "metrics.json", report)
    write_cohort_report(output_dir)
    if sheet:
        write_sheet(files[0], output_dir, None if bundle is None else Path(bundle))
    return output_dir


def _of_models(
    models: Sequence[Scored], files: Sequence[Path], truth: np.ndarray, target: Target
) -> dict[str, Any]:
    """The metrics of the model, and the other one and how they compare, if there is one.

    ``truth`` (N,) has the labels of the subjects that ``prob`` of each model is of.
    """
    report, *other = (_of_model(*pair) for pair in zip(models, files, strict=True))
    if other:
        compared = target.compare(models[0].prob, models[1].prob, truth)
        report |= {"against": other[0], "comparison": compared}
    return report


def _by_group(
    models: Sequence[Scored],
    truth: np.ndarray,
    groups_of: Mapping[str, Sequence[str]],
    target: Target,
    seed: int,
) -> dict[str, Any]:
    """The metrics by the groups of each column, {column: {model: metrics}}, if there are any.

    Of each column ``groups_of`` has the group of each of the N subjects, as ``truth`` (N,).
    """
    scored = {
        column: {m.name: score_groups(m.prob, truth, groups, target, seed) for m in models}
        for column, groups in groups_of.items()
    }
    return {"by_group": scored} if scored else {}


def _text(
    report: Mapping[str, Any],
    models: Sequence[Scored],
    truth: np.ndarray,
    geometry: Any,
    target: Target,
) -> str:
    """What the terminal shows."""
    return fill_template(
        Path(__file__).with_suffix(".txt.j2"),
        cohort=target.cohort(truth, " of them"),
        models=models,
        left_out=report["left_out"],
        geometry=geometry,
        threshold=report.get("threshold_from"),
        needed=report.get("needed_subjects"),
        comparison=report.get("comparison"),
        by_group={
            f"{name} by {column}": format_groups(scored, column, target.main_metrics)
            for column, of_models in report.get("by_group", {}).items()
            for name, scored in of_models.items()
        },
        format_metrics=format_metrics,
        format_comparison=format_comparison,
    )


def _beside(table: Path) -> Path:
    """The folder of the results of a table: tables that lie together have one each."""
    name = "evaluation" if table.name == PREDICTIONS else f"{table.stem}_evaluation"
    return table.parent / name


def _threshold(
    path: str | Path | None, subjects: Sequence[str], target: Target
) -> dict[str, Any] | None:
    """Choose the threshold, 0 to 1, that is best on other subjects than those that are evaluated.

    Returns:
        ``{"value", "subjects", "file", "sha256"}``; None without a ``path``.

    Raises:
        DataLeakageError: if the table names any of the ``subjects``.
        ValueError: for a target that has no threshold.
    """
    if path is None:
        return None
    if isinstance(target, Score) or not target.is_binary:
        raise ValueError("--threshold_from is for two classes; others have no threshold.")
    table = predictions_file(path)
    prob_of, truth_of = read_predictions(table, target), read_labels(table, target)
    if both := sorted({*subjects} & prob_of.keys()):
        raise DataLeakageError(
            f"--threshold_from {table} has {len(both)} of the subjects that are evaluated, such "
            f"as {both[:5]}; "
            "choose the threshold on others, such as the out-of-fold predictions of the training."
        )
    own = [truth_of[subject] == target.number for subject in prob_of]
    value = choose_threshold(list(prob_of.values()), own)
    return {"value": value, "subjects": len(own), **_file(table)}


def _needed(model: Scored, half_width: float) -> dict[str, Any]:
    """How many subjects intervals of ``half_width`` to either side would take.

    It is nothing where there is no accuracy and ROC AUC; a ``half_width`` that is not above 0 and
    below 0.5 is a ValueError.
    """
    if not {"accuracy", "roc_auc"} <= model.metrics.keys():
        return {}
    if not 0 < half_width < 0.5:
        raise ValueError(f"half_width must be above 0 and below 0.5, got {half_width}.")
    return {"needed_subjects": needed_subjects(model.metrics, len(model.prob), half_width)}


def _names(files: Sequence[Path], names: Sequence[str] | None) -> list[str]:
    if names is None:
        found = [f.resolve().parent.name if f.name == PREDICTIONS else f.stem for f in files]
        return found if len(set(found)) == len(found) else ["A", "B"]
    if len(names) != len(files) or len(set(names)) != len(names) or not all(names):
        raise ValueError(
            f"names must be {len(files)} different names, one for each table of predictions, got "
            f"{list(names)}; e.g. --names {','.join(['MRN', 'baseline'][: len(files)])}."
        )
    return list(names)


def _common_subjects(
    tables: Mapping[Path, Mapping[str, Any]], *, partial: bool
) -> tuple[list[str], list[str]]:
    """Split subjects into those that all tables name and those that not all do, both sorted."""
    everyone = set().union(*tables.values())
    common = everyone.intersection(*tables.values())
    lacking = {path: sorted(everyone - table.keys()) for path, table in tables.items()}
    if not common:
        raise ValueError(f"{', '.join(map(str, tables))} have no subject in common.")
    if common != everyone and not partial:
        lines = [f"  {path} lacks {names}" for path, names in lacking.items() if names]
        raise ValueError(
            "the tables must name the same subjects. Add those that are missing, or evaluate the "
            f"{len(common)} that all tables name with --partial True:\n" + "\n".join(lines)
        )
    return sorted(common), sorted(everyone - common)


def _target(files: Sequence[Path]) -> Target:
    """What the tables hold; one that does not say it holds what the other does."""
    found = {read_target(file.parent) for file in files} - {HC_PD}
    if len(found) > 1:
        raise ValueError(f"{files[0]} and {files[1]} predict different things: {list(found)}.")
    return found.pop() if found else HC_PD


def _cohort(truth: np.ndarray, target: Target) -> dict[str, Any]:
    """What ``metrics.json`` says of the subjects; of other targets than HC and PD also which.

    By labels (N,) it is the share of the positive class, 0 to 1, or how many are of each class.
    """
    facts = {} if target == HC_PD else {"target": describe(target)}
    if isinstance(target, Score):
        return facts
    if target.is_binary:
        return facts | {"prevalence": float(np.mean(truth == target.number))}
    return facts | {"classes": dict(zip(target.names, target.counts(truth), strict=True))}


def _of_model(model: Scored, file: Path) -> dict[str, Any]:
    facts = {**model.metrics, **model.further, "name": model.name, "predictions": _file(file)}
    return facts | ({"confusion": model.confusion} if model.confusion else {})


def _file(path: Path) -> dict[str, str]:
    """Name a file and its hash, and not where it lies on this machine."""
    return {"file": path.name, "sha256": file_hash(path)}
