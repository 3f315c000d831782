"""The verb: find, measure, split as ``crossval`` does, fit inside each training part, score."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from mrn_components.app.baseline.features import TITLES, FeatureKind, Features
from mrn_components.app.baseline.harmonize import LEAST, Harmonizer
from mrn_components.app.baseline.models import ModelKind, Recipe
from mrn_components.app.baseline.nested import Fitted, fit_folds
from mrn_components.app.baseline.results import write_results
from mrn_components.app.baseline.table import measured_table, token_table
from mrn_components.app.check import parts_of
from mrn_components.app.measuring import raise_failed
from mrn_components.app.out_of_fold import OUT_OF_FOLD, write_page
from mrn_components.checks.groups import GroupTest, tell_groups
from mrn_components.data import Subject
from mrn_components.data.folds import split_folds, without_group
from mrn_components.data.groups import give_groups
from mrn_components.data.layouts import WORK, Found, Need, filters_of, find_subjects
from mrn_components.data.nuclei import drawn_by, nuclei_settings
from mrn_components.data.tables import GROUP, people_of
from mrn_components.data.target import Target
from mrn_components.system.errors import UnknownKeyError
from mrn_components.system.files import write_json
from mrn_components.system.versions import versions_with

ROIChoice = Literal["all", "choose"]

FOLDS = "folds.json"
_NUM_FOLDS, _SEED = 5, 1  # of `mrn crossval`
_PACKAGES = ("numpy", "scipy", "scikit-learn")
_BUNDLE = "bundles/mrn"  # whose encoder gives tokens, and whose images a key may change
_IMAGE_KEYS = ("images#", "rois#")
_PARTS = 4  # of a score's range, among which groups are shuffled


def baseline(
    data: str | Path,
    output: str | Path,
    *,
    features: FeatureKind = "biomarkers",
    model: ModelKind = "logistic",
    rois: ROIChoice = "all",
    components: int = 0,
    folds: str | Path | None = None,
    num_folds: int | None = None,
    seed: int | None = None,
    against: str | Path | None = None,
    labels: str | Path | None = None,
    masks: str | Path | None = None,
    group_by: str | None = None,
    harmonize: str | None = None,
    bundle: str | None = None,
    encoder_weights: str = "hub",
    nuclei: str | Path | None = None,
    nm_filter: str | None = None,
    qsm_filter: str | None = None,
    nm_series: str | None = None,
    qsm_series: str | None = None,
    **overrides: Any,
) -> Path:
    """Cross-validate a regression on biomarkers, on the folds of ``mrn crossval``: no network.

    What a network must beat (research use only). The settings of the model are chosen by a second
    cross-validation inside each training part. ``output`` gets the files of ``mrn crossval``:
    ``out_of_fold.csv``, a row a subject; ``crossval.json``, metrics by fold and of all subjects,
    and what was chosen; ``folds.json``; and the folder ``evaluation`` with intervals and figures.
    ``coefficients.csv`` has a logistic regression's, of each fold. Numbers that a subject lacks are
    imputed by its training part's medians, and its row says so. Subjects that cannot be measured
    are named, and the others go on.

    Args:
        data: folder of subjects in the challenge's layout, a JSON datalist or a BIDS directory,
            with labels and masks.
        output: folder of the results.
        features: what the model sees: all biomarkers; of them the means of the nuclei alone;
            tokens of a bundle's encoder as it was pretrained, pooled over the nuclei of each ROI;
            or the sizes and places of the crops, a control and not a marker.
        model: of a score, logistic is a ridge regression; xgboost needs the extra of that name.
        rois: choose lets the inner cross-validation take one ROI's columns, or those of all.
        components: take this many principal components of each ROI's columns; 0 the columns.
        folds: folds.json of a cross-validation, or its folder, instead of new folds.
        num_folds: number of the folds; None for 5, or as many as ``folds`` has.
        seed: of the folds; None for that of ``folds``, or 1, which ``mrn crossval`` has too.
        against: out_of_fold.csv of a cross-validation, or its folder, to compare with in pairs.
        labels: csv or JSON datalist of the labels, as typed or relative to ``data``.
        masks: folder of the masks, where they do not lie beside the images.
        group_by: column of the datalist, of a csv of labels with a header, or of participants.tsv,
            such as site: folds leave one out at a time, or as many as fit, and there are metrics
            by its values, and a test whether the features tell them.
        harmonize: column whose differences ComBat takes out, such as site, fitted to each training
            part; subjects of a site that the training part lacks are not predicted. It needs the
            extra of that name, and folds that share sites.
        bundle: take the images, ROIs and labels of this bundle instead of the challenge's; for
            tokens also its encoder, and None is bundles/mrn.
        encoder_weights: for tokens: hub, a file, or none for random weights, a control.
        nuclei: csv of the ids in the masks, ``image,nucleus,right,left``, if they are not usual.
        nm_filter: glob of the NM images' names in BIDS, e.g. "*acq-NM*"; with a slash, of paths.
        qsm_filter: the same of QSM, e.g. "derivatives/qsmxt*/*_Chimap*".
        nm_series: the NM series of DICOM studies, by number or glob of the description.
        qsm_series: the same of QSM.
        overrides: config keys of the images and their values, e.g. --images#qsm#reference TH; for
            tokens those of the encoder too, e.g. --image_size 112.

    Returns:
        The folder of the results.

    Raises:
        ValueError: for faults of tables, too few subjects of a class, or a folder of other results.
        DataLeakageError: if two folds share a person, by name or by the voxels of an image.
        FailedSubjectsError: at the end, if subjects failed; names them and the reasons.
    """
    output = Path(output)
    choices = {"features": FeatureKind, "model": ModelKind, "rois": ROIChoice}
    _check(choices, {"features": features, "model": model, "rois": rois}, components)
    of_images = {key: own for key, own in overrides.items() if key.startswith(_IMAGE_KEYS)}
    if features == "tokens" or of_images:
        bundle = bundle or _BUNDLE
    if (others := sorted(overrides.keys() - of_images.keys())) and features != "tokens":
        text = f"config keys {others} are for --features tokens, which have a network."
        raise UnknownKeyError(text, key=others[0], near=())
    other = _other_table(against)
    images, regions, target = parts_of(bundle, **of_images)
    images, regions = drawn_by(nuclei, images, regions)
    found = find_subjects(
        data,
        images,
        need=Need(images="given", masks="some", labels="all"),
        labels=labels,
        target=target,
        masks=masks,
        filters=filters_of(images, nm_filter, qsm_filter),
        series=filters_of(images, nm_series, qsm_series),
        work=output / WORK,
    )
    found.refuse_output(output)
    _refuse(found, output)
    recipe = Recipe(kind=model, target=target, choose_rois=rois == "choose", components=components)
    if features == "tokens":
        own: dict[str, Any] = {} if nuclei is None else {**nuclei_settings(nuclei, images)}
        own |= {"bundle": bundle, "encoder_weights": encoder_weights, **overrides}
        table, identities, errors = token_table(found, output / "cache", own)
    else:
        table, identities, errors = measured_table(found, features, images, regions)
    subjects = [s for s in found.subjects if s["subject"] not in found.problems]
    subjects = give_groups(subjects, found.covariates, group_by)
    groups = {s["subject"]: s[GROUP] for s in subjects if GROUP in s}
    told = _tell(table, subjects, target) if groups else None
    path, known = _known_folds(folds)
    if path is not None and "groups" not in known:  # folds that share them
        subjects = [without_group(subject) for subject in subjects]
    split = split_folds(
        subjects,
        len(known["folds"]) if num_folds is None else num_folds,
        known["seed"] if seed is None else seed,
        path,
        identities,
        target=target,
    )
    harmonizer = _harmonizer(found, subjects, harmonize, target)
    fitted = fit_folds(table, subjects, split, recipe, harmonizer)
    if harmonizer is not None:
        errors |= _unknown_sites(table, fitted, harmonizer)

    named = {"data": data, "bundle": bundle, "labels": labels, "masks": masks, "nuclei": nuclei}
    settings = {
        **{key: None if value is None else str(value) for key, value in named.items()},
        **({"encoder_weights": encoder_weights} if features == "tokens" else {}),
        **overrides,
        "features": features,
        "model": model,
        "rois": rois,
        "components": components,
        "group_by": group_by,
        "harmonize": harmonize,
        "versions": versions_with(_PACKAGES),
    }
    write_json(output / "settings.json", settings)
    write_json(output / FOLDS, split, indent=1)
    labels_of = {subject["subject"]: subject["label"] for subject in subjects}
    title = f"{recipe.title} on {TITLES[features]}"
    of_groups: dict[str, Any] = {"group_by": group_by, "groups": groups, "told": told}
    print(write_results(output, fitted, table, labels_of, recipe=recipe, title=title, **of_groups))
    name = f"{model} on {features}" + " (a control)" * (features == "geometry")
    page = _write_page(output, name, other, partial=bool(errors), group_by=group_by)
    print(f"The page of the cohort: {page}")
    raise_failed(errors, len(table.subjects), output / OUT_OF_FOLD)
    return output


def _check(choices: Mapping[str, Any], chosen: Mapping[str, str], components: int) -> None:
    for name, value in chosen.items():
        if value not in get_args(choices[name]):
            options = list(get_args(choices[name]))
            raise ValueError(f"{name} must be one of {options}, got {value!r}.")
    if components < 0:
        raise ValueError(f"components must be >= 0, got {components}.")


def _refuse(found: Found, output: Path) -> None:
    """Refuse what no subject can be blamed for, and a folder of other results."""
    found.require_some()
    if any(one.severity == "error" and not one.subject for one in found.findings):
        found.require_all()
    settings = output / "settings.json"
    if settings.is_file() and "features" not in json.loads(settings.read_text(encoding="utf-8")):
        raise ValueError(f"{output} holds a cross-validation of a network; name another folder.")


def _known_folds(folds: str | Path | None) -> tuple[Path | None, dict[str, Any]]:
    """Return the file of a cross-validation's folds, and what it holds; without one, its usual."""
    if folds is None:
        return None, {"folds": [()] * _NUM_FOLDS, "seed": _SEED}
    path = Path(folds) / FOLDS if Path(folds).is_dir() else Path(folds)
    if not path.is_file():
        raise FileNotFoundError(
            f"--folds: {path} is not there; name the {FOLDS} of a cross-validation, or a "
            "number of folds by --num_folds."
        )
    return path, json.loads(path.read_text(encoding="utf-8"))


def _tell(table: Features, subjects: Sequence[Subject], target: Target) -> GroupTest:
    """Test whether the groups of subjects can be told from the table."""
    of = {subject["subject"]: subject for subject in subjects}
    own = [of[name] for name in table.subjects]
    _, strata = target.groups([subject["label"] for subject in own], _PARTS)
    people = people_of(own)
    return tell_groups(table.values, [s[GROUP] for s in own], strata.tolist(), people)


def _harmonizer(
    found: Found, subjects: Sequence[Subject], column: str | None, target: Target
) -> Harmonizer | None:
    if column is None:
        return None
    sited = give_groups(subjects, found.covariates, column)
    site_of = {subject["subject"]: subject[GROUP] for subject in sited}
    return Harmonizer(site_of=site_of, target=target)


def _unknown_sites(
    table: Features, fitted: Sequence[Fitted], harmonizer: Harmonizer
) -> dict[str, str]:
    """Say of each subject that is not predicted why; refuse if nobody is."""
    predicted = {name for fold in fitted for name in fold.subjects}
    left = {name: harmonizer.site_of[name] for name in table.subjects if name not in predicted}
    if not predicted:
        raise ValueError(
            f"ComBat knows no site that it is not fitted to, and no training part has {LEAST} "
            f"subjects without the disease of the sites that it predicts "
            f"({', '.join(sorted(set(left.values())))}); leave --group_by or --harmonize out."
        )
    return {
        name: f"not predicted: its training part has fewer than {LEAST} subjects without the "
        f"disease of the site {site}, to which ComBat could be fitted"
        for name, site in left.items()
    }


def _other_table(against: str | Path | None) -> Path | None:
    """Find the predictions to compare with, before any work."""
    if against is None:
        return None
    path = Path(against) / OUT_OF_FOLD if Path(against).is_dir() else Path(against)
    if not path.is_file():
        raise FileNotFoundError(
            f"--against: {path} is not there; name the {OUT_OF_FOLD} of a cross-validation, or its "
            "folder."
        )
    return path


def _write_page(
    output: Path, name: str, other: Path | None, *, partial: bool, group_by: str | None
) -> Path:
    """Evaluate the predictions, against those of another model if it is named."""
    if other is None:
        return write_page(output, name, group_by=group_by)
    names = [name, other.resolve().parent.name]
    options: dict[str, Any] = {"against": other, "names": names, "partial": partial}
    return write_page(output, name, group_by=group_by, **options)
