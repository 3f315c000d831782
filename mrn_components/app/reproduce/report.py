"""How the rows of a table score, and the table as Markdown and CSV beside the paper's numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import combinations
from pathlib import Path

import numpy as np

from mrn_components.app.paper import METRICS, Row, Table
from mrn_components.app.reproduce.cost import Cost
from mrn_components.metrics import CONFIDENCE, NUM_RESAMPLES, RESAMPLED, wilson_interval
from mrn_components.system.files import csv_text
from mrn_components.system.texts import fill_template

Limits = tuple[float, float]  # low, high

_LIMITS = ("low", "high")
_KEY = "roc_auc"  # the metric that tells rows apart: it needs no threshold


@dataclass(frozen=True)
class Score:
    """A metric of a row: its mean over the seeds, and what resampling gives in its place."""

    value: float  # mean over the seeds, 0 to 1
    resampled: np.ndarray  # the same of each resample (R,)
    by_seed: np.ndarray  # of each seed (S,)

    @property
    def interval(self) -> Limits | None:
        """Limits of the 95 % interval; None where the resamples do not differ."""
        return _limits(self.resampled)

    def minus(self, other: "Score") -> tuple[float, Limits | None]:
        """The difference to another row, and its 95 % interval."""
        return self.value - other.value, _limits(self.resampled - other.resampled)


def score_rows(rows: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, dict[str, Score]]:
    """Score every row on the same subjects, by S training seeds, N subjects and R resamples.

    One bootstrap serves all rows: each resample draws subjects, as many of each class as there
    are, and training seeds, the same for every row. The difference of two rows is thus a paired
    one, and its interval holds the chance of the training where there are several seeds.

    Args:
        rows: P(PD) of each row (S, N), S the same for all.
        labels: diagnosis (N,), 0 healthy or 1 Parkinson's disease; both are needed.

    Returns:
        {row: {metric: score}}.
    """
    if not rows:
        return {}
    found = sorted(set(labels.tolist()))
    if found != [0, 1]:
        raise ValueError(
            f"the test subjects must be of both classes, got the labels {found}; name another "
            "data set by --test_dir DIR."
        )
    rng = np.random.default_rng(1)
    num_seeds = len(next(iter(rows.values())))
    members = [np.flatnonzero(labels == label) for label in (0, 1)]
    subjects = [rng.choice(of, (NUM_RESAMPLES, len(of))) for of in members]  # (R, n)
    seeds = rng.integers(num_seeds, size=(NUM_RESAMPLES, num_seeds))  # (R, S)
    scores: dict[str, dict[str, Score]] = {}
    for name, prob in rows.items():
        scores[name] = {}
        for metric in METRICS:
            statistic = RESAMPLED[metric]
            by_seed = statistic(prob[:, members[0]], prob[:, members[1]])  # (S,)
            values = statistic(prob[:, subjects[0]], prob[:, subjects[1]])  # (S, R)
            resampled = np.take_along_axis(values.T, seeds, axis=1).mean(axis=1)  # (R,)
            scores[name][metric] = Score(float(by_seed.mean()), resampled, by_seed)
    return scores


def _limits(values: np.ndarray) -> Limits | None:
    """The 95 % interval of resamples; one without width would claim certainty."""
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return (float(low), float(high)) if low < high else None


@dataclass(frozen=True, kw_only=True)
class Report:
    """A table and our scores of its rows."""

    table: Table
    rows: Sequence[Row]  # those that were asked for
    scores: Mapping[str, Mapping[str, Score]]  # {row: {metric: score}} of those that were scored
    setting: str  # data and scale of our numbers
    seeds: Sequence[int]  # of the training
    unscored: Mapping[str, str]  # why a row has no score, by its name
    costs: Mapping[str, Cost] = field(default_factory=dict)  # of the rows that have a network

    def markdown(self) -> str:
        """The table for people: paper, ours, interval, and the difference to the reference row."""
        template = Path(__file__).with_suffix(".md.j2")
        return fill_template(template, report=self, metrics=METRICS, better=self._better())

    def csv(self) -> str:
        """One line a row and metric: paper, ours, interval, deviation over the seeds."""
        columns = ["row", "metric", "paper", "ours", *_LIMITS, "sd_over_seeds", "num_seeds"]
        rows: list[dict[str, object]] = []
        for row in self.rows:
            for metric, paper in zip(METRICS, row.paper, strict=True):
                shown = None if paper is None else str(paper)
                rows.append({"row": row.name, "metric": metric, "paper": shown})
                if row.name in self.scores:
                    score = self.scores[row.name][metric]
                    rows[-1] |= {"ours": 100 * score.value, **_in_percent(score.interval)}
                    rows[-1]["sd_over_seeds"] = 100 * float(score.by_seed.std())
                    rows[-1]["num_seeds"] = len(score.by_seed)
        return csv_text(rows, columns, floats=".2f")

    def pairs_csv(self) -> str:
        """One line a pair of rows and metric: difference, interval, whether that excludes 0."""
        rows: list[dict[str, object]] = []
        for one, other in self.pairs:
            for metric in METRICS:
                difference, limits = self.scores[one][metric].minus(self.scores[other][metric])
                rows.append({"row": one, "other": other, "metric": metric})
                rows[-1] |= {"difference": 100 * difference, **_in_percent(limits)}
                rows[-1]["separable"] = int(_excludes_zero(limits))
        columns = ["row", "other", "metric", "difference", *_LIMITS, "separable"]
        return csv_text(rows, columns, floats=".2f")

    def costs_csv(self) -> str:
        """One line a row: parameters in millions, TFLOP, GiB and seconds of a subject."""
        columns = [item.name for item in fields(Cost)]
        rows = [{"row": name, **asdict(cost)} for name, cost in self.costs.items()]
        return csv_text(rows, ["row", *columns], floats=".4g")

    @property
    def notes(self) -> dict[str, list[str]]:
        """What is said of rows, and the names of those rows."""
        notes: dict[str, list[str]] = {}
        for row in self.rows:
            if row.note:
                notes.setdefault(row.note, []).append(row.name)
        return notes

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Pairs of rows scored on the same subjects and labels: not the controls."""
        names = [r.name for r in self.rows if r.cohort == "true" and r.name in self.scores]
        return list(combinations(names, 2))

    def wilson(self, percent: float) -> tuple[float, float]:
        """Limits of the 95 % interval of an accuracy of the paper."""
        total = self.table.paper_subjects
        interval = wilson_interval(round(percent * total / 100), total)
        return interval["low"], interval["high"]

    def remark(self, row: Row) -> str:
        """The last cell: the difference to the reference row, or why there is none."""
        if row.name not in self.scores:
            return self.unscored.get(row.name, "not ours")
        score = self.scores[row.name][_KEY]
        if row.cohort != "true":
            if score.interval is None:
                return "control: no interval, since the resamples do not differ"
            low, high = score.interval
            return f"control: the interval {'holds' if low <= 0.5 <= high else 'leaves out'} 50"
        if row.name == self.table.reference or self.table.reference not in self.scores:
            return "–"
        difference, limits = score.minus(self.scores[self.table.reference][_KEY])
        text = f"{100 * difference:+.1f}"
        if limits is None:
            return f"{text} (no interval): not separable"
        text += " ({:+.1f} to {:+.1f})".format(*(100 * limit for limit in limits))
        return f"{text}: {'separable' if _excludes_zero(limits) else 'not separable'}"

    def _better(self) -> dict[str, list[str]]:
        """The rows that each row is above by more than chance."""
        better: dict[str, list[str]] = {}
        for one, other in self.pairs:
            difference, limits = self.scores[one][_KEY].minus(self.scores[other][_KEY])
            if _excludes_zero(limits):
                above, below = (one, other) if difference > 0 else (other, one)
                better.setdefault(above, []).append(below)
        return better


def _excludes_zero(limits: Limits | None) -> bool:
    return limits is not None and (limits[0] > 0 or limits[1] < 0)


def _in_percent(limits: Limits | None) -> dict[str, float]:
    """Cells of an interval; none where it is not defined."""
    return {} if limits is None else {n: 100 * x for n, x in zip(_LIMITS, limits, strict=True)}
