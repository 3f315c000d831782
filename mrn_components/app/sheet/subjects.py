"""Facts of the subjects: how many, of which side, with what lacking."""

from statistics import median

from mrn_components.app.sheet.study import NOTHING, Derived, Study
from mrn_components.data.target import Classes
from mrn_components.metrics.spread import FAR


def evaluated(study: Study) -> Derived:
    """Say how many subjects are evaluated, and of which classes."""
    metrics, target = study.contents.get("metrics"), study.target
    if metrics is None:
        return NOTHING
    places = [("metrics", "n")]
    text = f"{metrics['n']} subjects"
    if "prevalence" in metrics and isinstance(target, Classes):
        positive = round(metrics["prevalence"] * metrics["n"])
        negative = next(name for name in target.names if name != target.positive)
        text += f": {positive} {target.positive}, {metrics['n'] - positive} {negative}"
        places.append(("metrics", "prevalence"))
    elif "classes" in metrics:
        text += ": " + ", ".join(f"{n} {name}" for name, n in metrics["classes"].items())
        places.append(("metrics", "classes"))
    return text, places


def flow(study: Study) -> Derived:
    """Say what became of the subjects in the table."""
    status = study.value("table", "status")
    rows = study.contents["table"]["rows"]
    if status is None:
        out_of_fold = f"{rows}, each with a prediction", [("table", "rows")]
        return out_of_fold if study.is_cross_validated else NOTHING
    each = ", ".join(f"{status.get(name, 0)} {name}" for name in ("ok", "abstained", "failed"))
    left_out = study.value("metrics", "left_out") or []
    text = f"{rows}: {each}; {len(left_out)} left out of this evaluation"
    return text, [("table", "status"), ("metrics", "left_out")]


def unseen(study: Study) -> Derived:
    """Say that the subjects are a test set, where they are."""
    text, places = disjoint(study)
    if study.is_cross_validated or _validated(study) or not text:
        return NOTHING
    return evaluated(study)[0], places


def cross_validated(study: Study) -> Derived:
    """Say that the predictions are out of fold."""
    folds = study.value("crossval", "folds")
    if not folds:
        return NOTHING
    return f"{len(folds)} folds, each subject by the fold that left it out", [("crossval", "folds")]


def partitions(study: Study) -> Derived:
    """Say how many subjects the networks were trained on."""
    folds = study.value("folds", "folds")
    if folds is None:
        return NOTHING
    sizes, seed = [len(fold) for fold in folds], study.value("folds", "seed")
    text = (
        f"{sum(sizes)} subjects in {len(sizes)} folds of {', '.join(map(str, sizes))} (seed {seed})"
    )
    places = [("folds", "folds"), ("folds", "seed")]
    fold = study.value("train", "fold")
    if study.is_cross_validated or len(study.weights) > 1:
        return f"{text}; each model is trained without its fold", places
    if not isinstance(fold, int) or fold >= len(sizes):
        return NOTHING
    rest = sum(sizes) - sizes[fold]
    text += f": trained on {rest}, {sizes[fold]} of fold {fold} for validation"
    return text, [*places, ("train", "fold")]


def disjoint(study: Study) -> Derived:
    """Say that no subject is both trained on and tested, if the records prove it."""
    if study.is_cross_validated:
        return _disjoint_folds(study)
    found = study.value("table", "trained_on")
    if not found or found.keys() - {"0", ""} or "0" not in found or "ledger" not in study.contents:
        return NOTHING
    text = (
        f"none of {found['0']} is among the training's subjects by id, by person where the data "
        "name persons, or by the voxels of an image (salted hashes in the weights)"
    )
    places = [("table", "trained_on"), ("ledger", "sha256")]
    if "folds" not in study.contents or "train" not in study.contents:
        return f"{text}; of the run's validation subjects no record was found", places
    if validated := _validated(study):
        text += f"; {len(validated)} are validation subjects of the run, which saw their labels"
        places += [("folds", "folds"), ("train", "fold")]
    return text, places


def _disjoint_folds(study: Study) -> Derived:
    folds = study.value("folds", "folds")
    if not folds:
        return NOTHING
    own = {name: number for number, fold in enumerate(folds) for name in fold}
    told = {row["subject"]: row.get("fold", "") for row in study.rows}
    if any(str(own.get(name)) != fold for name, fold in told.items()):
        return NOTHING
    text = f"each of {len(told)} is predicted by the fold that left it out"
    places = [("table", "columns"), ("folds", "folds")]
    if study.value("train", "folds#identities") is not None:
        text += "; no two folds share a person by name, or the voxels of an image"
        places.append(("train", "folds"))
    return text, places


def _validated(study: Study) -> set[str]:
    """Name the subjects of this table on which the run was validated while it trained."""
    folds, fold = study.value("folds", "folds"), study.value("train", "fold")
    known = isinstance(fold, int) and folds is not None and fold < len(folds)
    own = {row["subject"] for row in study.rows}
    return own & {*folds[fold]} if known and len(study.weights) == 1 else set()


def inputs(study: Study) -> Derived:
    """Say that the files that were read are fixed by their hashes."""
    found = study.value("manifest", "inputs")
    if not found:
        return NOTHING
    count = sum(map(len, found.values()))
    return f"SHA-256 of {count} files of {len(found)} subjects", [("manifest", "inputs")]


def gaps(study: Study) -> Derived:
    """Say how many subjects lack regions or are flagged."""
    words = ("with a hidden region", "with a flag", "with an error")
    names = dict(zip(("missing_rois", "flags", "error"), words, strict=True))
    counts = {name: study.value("table", name) for name in names}
    known = {name: count for name, count in counts.items() if count is not None}
    if not known:
        return NOTHING
    text = ", ".join(f"{count} {names[name]}" for name, count in known.items())
    return f"{text}, of {study.contents['table']['rows']}", [("table", name) for name in known]


def mask_sources(study: Study) -> Derived:
    """Count the subjects by where their masks are from."""
    found = study.value("table", "mask_source")
    if not found:
        return NOTHING
    text = ", ".join(f"{name or 'none'}: {count}" for name, count in found.items())
    return f"{text} subjects", [("table", "mask_source")]


def explained(study: Study) -> Derived:
    """Count the subjects whose predictions are explained."""
    found = study.value("explanations", "subjects")
    return (str(found), [("explanations", "subjects")]) if found else NOTHING


def unlike(study: Study) -> Derived:
    """Say how far the subjects are from those of the training, by the network's representations."""
    name = "unlike_training"
    values = [float(row[name]) for row in study.rows if row.get(name)]
    if not values:
        return NOTHING
    far = sum(value > FAR for value in values)
    text = f"median {median(values):.2f} of 0 to 1 (0.5: as subjects outside the training are)"
    return f"{text}; {far} of {len(values)} above {FAR}", [("table", name)]
