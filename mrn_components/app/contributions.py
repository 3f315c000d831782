"""``mrn contributions``: what each ROI adds to P(PD), in a cohort (Table 4) and in each subject."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from mrn_components.app.geometry import recorded_geometry
from mrn_components.app.predict.classifier import Classifier
from mrn_components.app.predict.pipeline import Options
from mrn_components.app.predict.run import predict_cohort
from mrn_components.app.records import Record
from mrn_components.app.roi_game import roi_shapley
from mrn_components.app.states import StateScores, leakage, state_metrics, state_name
from mrn_components.checks.cohort import Confounds
from mrn_components.data.layouts import Found
from mrn_components.metrics.shapley import masked_states
from mrn_components.networks.masking import STATE_MODES, StateMode, check_mask_mode
from mrn_components.system.files import csv_text, write_json, write_text
from mrn_components.system.texts import fill_template

_logger = logging.getLogger(__name__)
_FILES = ("states.csv", "contributions.csv", "contributions.json", "table.csv", "table.md")


def contributions(
    input: str | Path,  # noqa: A002  `mrn contributions INPUT OUTPUT` reads as users write it
    output: str | Path,
    *,
    bundle: str = "bundles/mrn",
    segmentation: str = "bundles/segmentation",
    labels: str | Path | None = None,
    mask_mode: StateMode = "voxels",
    nm_filter: str | None = None,
    qsm_filter: str | None = None,
    nm_series: str | None = None,
    qsm_series: str | None = None,
    masks: str | Path | None = None,
    abstain: bool = True,
    resume: bool = False,
    report: bool = False,
    occlusion: bool = True,
    trust_bundle: bool = False,
    **overrides: Any,
) -> Path:
    """Write what each ROI adds to P(PD): Shapley values, and with labels the paper's Table 4.

    It is ``mrn predict`` with every subset of the ROIs masked too. Beside its files ``output`` has
    ``states.csv``, P(PD) of each subject in each state, a column named after the masked ROIs;
    ``contributions.csv``, each subject's P(PD), its baseline with all ROIs masked, and the Shapley
    value of each ROI, which add up from one to the other; ``contributions.json``, the cohort's mean
    absolute Shapley values and the test for leakage; with labels ``table.csv`` and ``table.md``,
    the metrics of each state as in Table 4. Subjects without a prediction are left out. Of more
    classes it is the probability of the positive one that moves, of a score the score; the metrics
    are those of all classes, or of the score.

    Args:
        input: a folder of subjects, one subject's folder, a JSON datalist or a BIDS directory.
        output: folder of the results.
        bundle: folder of a bundle with weights, or of a training run.
        segmentation: folder of the bundle that makes the masks of subjects without.
        labels: csv or JSON datalist of the diagnoses, as typed or relative to ``input``.
        mask_mode: hide an ROI's voxels by zeros, noise or their mean, or its token; reference puts
            the tokens of training subjects that the weights hold, and averages over them.
        nm_filter: glob of the NM images' names in BIDS, e.g. "*acq-NM*"; with a slash, of paths.
        qsm_filter: the same of QSM, e.g. "derivatives/qsmxt*/*_Chimap*".
        nm_series: the NM series of DICOM studies, by number or glob of the description.
        qsm_series: the same of QSM.
        masks: folder of the masks, where they do not lie beside the images.
        abstain: give no probability where the NM ROI or more than one ROI is missing.
        resume: keep the subjects whose files, weights and settings are those of an earlier call.
        report: write ``index.html`` and a page a subject too, with Shapley values and maps.
        occlusion: make occlusion maps for the pages, which asks the network some 25 times more.
        trust_bundle: run the bundles in spite of what ``mrn inspect`` finds in them.
        overrides: config keys and their values, e.g. --ckpt_path FILE, --precision fp32.

    Returns:
        The path of ``contributions.csv``.

    Raises:
        ValueError: for an unknown mask mode, or an override of what is varied here.
        FailedSubjectsError: at the end, if subjects failed; names them and the reasons.
    """
    if varied := sorted({"masked_rois", "inferer", "tta"} & set(overrides)):
        raise ValueError(
            f"contributions masks the ROIs itself and averages no views; leave out --{varied[0]}."
        )
    check_mask_mode(mask_mode, STATE_MODES)
    options = Options(
        bundle=bundle,
        segmentation=segmentation,
        nm_filter=nm_filter,
        qsm_filter=qsm_filter,
        nm_series=nm_series,
        qsm_series=qsm_series,
        masks=masks,
        abstain=abstain,
        resume=resume,
        report=report,
        occlusion=occlusion,
        trust_bundle=trust_bundle,
        require_labels=bool(overrides.pop("require_labels", False)),
        overrides=overrides,
        labels=labels,
        states=mask_mode,
        further=partial(_write, Path(output), mask_mode),
    )
    predict_cohort(input, output, options)
    return Path(output) / "contributions.csv"


def _write(
    output: Path, mask_mode: str, records: Sequence[Record], found: Found, classifier: Classifier
) -> None:
    """Write the tables of some records."""
    for name in _FILES:  # of an earlier call
        (output / name).unlink(missing_ok=True)
    scores = _scores(records, found, classifier)
    if not scores.values:
        return  # predict says why
    names = [state_name(masked) for masked in masked_states(scores.rois)]
    states, rows, shapley = [], [], []
    for subject, values in scores.lead.items():
        shapley.append(roi_shapley(values, scores.rois))
        states.append({"subject": subject, **dict(zip(names, values, strict=True))})
        ends = {scores.target.lead: values[0], "baseline": values[-1]}
        rows.append({"subject": subject, **ends, **shapley[-1]})
    write_text(output / "states.csv", csv_text(states, floats=".8f"))
    write_text(output / "contributions.csv", csv_text(rows, floats=".8f"))
    geometry = recorded_geometry(records, scores.labels, scores.target)
    summary = {
        "mask_mode": mask_mode,
        "subjects": len(rows),
        "mean_absolute_shapley": {
            roi: sum(abs(values[roi]) for values in shapley) / len(shapley) for roi in scores.rois
        },
        "leakage": _write_table(output, scores, mask_mode, geometry) if scores.labels else None,
        "geometry": None if geometry is None else asdict(geometry),
    }
    write_json(output / "contributions.json", summary)
    _logger.info("contributions of the ROIs are in %s (research use only)", output)


def _scores(records: Sequence[Record], found: Found, classifier: Classifier) -> StateScores:
    """What was predicted in the states; subjects without a prediction are left out."""
    done = {r["subject"]: r["states"] for r in records if r["status"] == "ok"}
    labels = {s["subject"]: s["label"] for s in found.subjects if "label" in s}
    labels = {subject: labels[subject] for subject in done if subject in labels}
    return StateScores(tuple(classifier.rois), done, labels, classifier.target)


def _write_table(
    output: Path, scores: StateScores, mask_mode: str, geometry: Confounds | None
) -> dict[str, Any]:
    """Write the metrics of the cohort; the test for leakage."""
    rows = state_metrics(scores)
    leak = leakage(rows[-1], mask_mode, scores.target)
    names = scores.target.main_metrics
    write_text(output / "table.csv", csv_text([_flat(row, names) for row in rows], floats=".8f"))
    alone = "" if geometry is None else f" Sizes and places of the crops alone: {geometry}."
    template = Path(__file__).with_suffix(".md.j2")
    leaks = leak["finding"] + alone
    text = fill_template(template, rows=rows, leaks=leaks, target=scores.target)
    write_text(output / "table.md", text)
    return leak


def _flat(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A row of ``state_metrics``, which has metrics of some names, as columns."""
    columns: dict[str, Any] = {"masked": state_name(row["masked"])}
    for name in names:
        columns[name] = row[name]["value"]
        columns |= {f"{name}_{end}": row[name][end] for end in ("low", "high")}
    return columns | {f"paper_{name}": value for name, value in row.get("paper", {}).items()}
