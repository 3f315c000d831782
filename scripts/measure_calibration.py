"""Measure calibration and sets of classes on phantoms, with regressions in place of networks.

    python scripts/measure_calibration.py --seeds 5 --subjects 100 --held_out 400
    python scripts/measure_calibration.py --tables OUT/predictions.csv ... --labels LABELS.csv

The second is of networks: what ensembles of `mrn crossval` predicted.

A phantom's nucleus means are what a perfect measurement of its images would give; no image is
made. Each seed is a cohort of its own. Five regressions, one a fold, are fitted with hardly a
penalty, so that they sound too sure, as networks do; out-of-fold predictions give the calibration
of `mrn crossval`. The held-out cohort is predicted by all five, as by an ensemble, and once more at
another scanner, whose QSM has another reference, not the same in all.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mrn_components.app.calibration import Calibration
from mrn_components.data.ledger import new_ledger
from mrn_components.data.predictions import read_calibrated, read_predictions, read_sets
from mrn_components.data.tables import read_labels
from mrn_components.data.target import HC_PD
from mrn_components.metrics.calibration import probability_metrics
from mrn_components.metrics.conformal import ALL, own_probabilities, set_coverage
from mrn_components.metrics.recalibration import cross_entropy, fit_recalibration
from mrn_components.phantom.signal import draw_traits

SHIFT_PPB, SPREAD_PPB = 15.0, 10.0  # of the reference at the other scanner: mean and SD
LEVEL = 0.9
HEAD_OF_SETS = ["HC covered", "PD covered", "one class", "uncertain", "neither"]
NUM_FOLDS = 5


class Cohort(NamedTuple):
    """Nucleus means of phantoms (N, columns), and their labels."""

    table: np.ndarray
    labels: np.ndarray


def main() -> None:
    """Draw, fit and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("--seeds", 5), ("--subjects", 100), ("--held_out", 400)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--tables", type=Path, nargs="+", default=())
    parser.add_argument("--labels", type=Path)
    args = parser.parse_args()
    if args.tables:
        head = ["table", "cross entropy", "ECE", "ROC AUC", *HEAD_OF_SETS]
        print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
        for table in args.tables:
            print(f"| {table.parent.name} | {' | '.join(row_of_table(table, args.labels))} |")
        return
    test, moved = (draw(0, args.held_out, scanner=scanner) for scanner in (False, True))
    head = ["seed", "held out", "method", "slope", "cross entropy", "mean mapped", "ECE", "ROC AUC"]
    head += HEAD_OF_SETS
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for seed in range(1, args.seeds + 1):
        networks, calibration = cross_validate(draw(seed, args.subjects), seed)
        for name, cohort in (("as trained", test), ("other scanner", moved)):
            print(f"| {seed} | {name} | {' | '.join(row(networks, calibration, cohort))} |")


def draw(seed: int, count: int, *, scanner: bool = False) -> Cohort:
    """Return the nucleus means of a cohort, every other subject with PD."""
    labels = np.arange(count) % 2
    rows = []
    for index, label in enumerate(labels):
        rng = np.random.default_rng((seed, index))
        seen = draw_traits(rng, effect=float(label)).seen()
        shift = rng.normal(SHIFT_PPB, SPREAD_PPB) if scanner else 0.0
        rows.append(
            [
                value + shift * name.startswith("qsm")
                for name, value in seen.items()
                if name.startswith(("qsm", "nm")) and "gradient" not in name
            ]
        )
    return Cohort(np.array(rows), labels)


def cross_validate(cohort: Cohort, seed: int) -> tuple[list, Calibration]:
    """Fit a regression a fold, and the calibration to what each says of its fold."""
    table, labels = cohort
    splitter = StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=seed)
    folds, prob, networks = np.zeros(len(labels), int), np.zeros((len(labels), 2)), []
    for fold, (inside, outside) in enumerate(splitter.split(table, labels)):
        network = make_pipeline(StandardScaler(), LogisticRegression(C=10.0, max_iter=10_000))
        network.fit(table[inside], labels[inside])
        networks.append(network)
        folds[outside], prob[outside] = fold, network.predict_proba(table[outside])
    calibration = Calibration(
        target=HC_PD,
        recalibration=fit_recalibration(prob, labels, folds)[0],
        own=own_probabilities(prob, labels, folds),
        weights=(),
        ledger=new_ledger(frozenset()),
    )
    return networks, calibration.at(LEVEL)


def row(networks: Sequence, calibration: Calibration, cohort: Cohort) -> list[str]:
    """Return the cells of a seed's line."""
    table, labels = cohort
    by_fold = np.stack([network.predict_proba(table)[:, 1] for network in networks], axis=1)
    cells = [calibration.apply({"prob_pd_folds": values.tolist()}) for values in by_fold]
    prob = by_fold.mean(axis=1)
    mapped = np.array([own["prob_pd_calibrated"] for own in cells])
    once = calibration.recalibration.apply(HC_PD.by_class(prob))  # which the product does not do
    losses, *others = judged(prob, mapped, [own["set"] for own in cells], labels)
    return [
        calibration.recalibration.method,
        f"{calibration.recalibration.slope:.3f}",
        losses,
        f"{cross_entropy(once, labels):.3f}",
        *others,
    ]


def row_of_table(table: Path, labels_file: Path) -> list[str]:
    """Return the cells of a table's line."""
    own, mapped, (sets, _) = (
        read(table, HC_PD) for read in (read_predictions, read_calibrated, read_sets)
    )
    truth = read_labels(labels_file)
    labels = np.array([truth[subject] for subject in own], dtype=int)
    values = (np.array([each[subject] for subject in own]) for each in (own, mapped))
    return judged(*values, [sets[subject] for subject in own], labels)


def judged(
    prob: np.ndarray, mapped: np.ndarray, members: Sequence[Sequence[str]], labels: np.ndarray
) -> list[str]:
    """Return cells of P(PD) as it is and calibrated, and of sets, judged by the labels."""
    before, after = (probability_metrics(HC_PD.by_class(p), labels) for p in (prob, mapped))
    areas = [roc_auc_score(labels, p) for p in (prob, mapped)]
    sets = np.array([[name in own for name in HC_PD.names] for own in members])
    coverage = set_coverage(sets, labels, HC_PD.names)
    covered = [
        f"{own['value']:.3f} ({own['low']:.3f}-{own['high']:.3f})"
        for own in (coverage[name] for name in HC_PD.names)
    ]
    return [
        f"{before['cross_entropy']:.3f} to {after['cross_entropy']:.3f}",
        f"{before['ece']:.3f} to {after['ece']:.3f}",
        f"{areas[0]:.4f} to {areas[1]:.4f}",
        *covered,
        *(str(coverage[ALL][key]) for key in ("one", "several", "none")),
    ]


if __name__ == "__main__":
    main()
