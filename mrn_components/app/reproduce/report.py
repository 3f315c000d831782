"""A reproduced table as Markdown and CSV: the paper's numbers beside ours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from mrn_components.app.paper import METRICS, Row, Table
from mrn_components.app.reproduce.scores import Score
from mrn_components.metrics import wilson_interval
from mrn_components.system.files import csv_text

_TITLES = {"accuracy": "Accuracy", "roc_auc": "ROC AUC", "f1_macro": "F1"}
_DIFFERENCE = ("difference", "low", "high")
_KEY = "roc_auc"  # the metric that tells rows apart: it needs no threshold


@dataclass(frozen=True, kw_only=True)
class Report:
    """A table and our scores of its rows.

    Args:
        table: of the paper.
        rows: those that were asked for.
        scores: {row: {metric: score}} of the rows that were scored.
        setting: data and scale of our numbers.
        seeds: training seeds.
        unscored: why a row has no score, by its name.
    """

    table: Table
    rows: Sequence[Row]
    scores: Mapping[str, Mapping[str, Score]]
    setting: str
    seeds: Sequence[int]
    unscored: Mapping[str, str]

    def markdown(self) -> str:
        """The table for people: paper, ours, interval, and the difference to the reference row."""
        several = len(self.seeds) > 1
        chance = "and seeds" if several else "only: one seed, so without the chance of training"
        titles = [f"{_TITLES[metric]}, {who}" for metric in METRICS for who in ("paper", "ours")]
        header = ["", *titles, f"ROC AUC against {self.table.reference}"]
        lines = [
            f"# Table {self.table.name}: {self.table.title}",
            "",
            f"Paper: {self.table.paper_setting}. Ours: {self.setting}.",
            f"Training seeds: {', '.join(map(str, self.seeds))}. In percent, with 95 % intervals: "
            f"the paper's accuracy by Wilson, ours by resampling subjects {chance}.",
            "",
            *(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header))),
            *(f"| {' | '.join(self._cells(row))} |" for row in self.rows),
            "",
            *self._separable(),
            "",
            "Research use only.",
        ]
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """One line a row and metric: paper, ours, interval, deviation over the seeds."""
        ours: dict[str, float | None] = dict.fromkeys(
            ("ours", "low", "high", "sd_over_seeds", "num_seeds")
        )
        rows: list[dict[str, object]] = []
        for row in self.rows:
            for metric, paper in zip(METRICS, row.paper, strict=True):
                shown = None if paper is None else str(paper)
                rows.append({"row": row.name, "metric": metric, "paper": shown, **ours})
                if row.name in self.scores:
                    score = self.scores[row.name][metric]
                    values = score.value, *score.interval, float(score.by_seed.std())
                    numbers = [*(100 * value for value in values), len(score.by_seed)]
                    rows[-1] |= dict(zip(ours, numbers, strict=True))
        return csv_text(rows, floats=".2f")

    def pairs_csv(self) -> str:
        """One line a pair of rows and metric: difference, interval, whether that excludes 0."""
        rows: list[dict[str, object]] = []
        for one, other in self._pairs():
            for metric in METRICS:
                numbers = self.scores[one][metric].minus(self.scores[other][metric])
                percent = {n: 100 * x for n, x in zip(_DIFFERENCE, numbers, strict=True)}
                separable = int(_excludes_zero(*numbers[1:]))
                row = {"row": one, "other": other, "metric": metric, **percent}
                rows.append({**row, "separable": separable})
        return csv_text(rows, ["row", "other", "metric", *_DIFFERENCE, "separable"], floats=".2f")

    def _pairs(self) -> list[tuple[str, str]]:
        """Pairs of rows scored on the same subjects and labels: not the controls."""
        names = [r.name for r in self.rows if r.cohort == "true" and r.name in self.scores]
        return list(combinations(names, 2))

    def _cells(self, row: Row) -> list[str]:
        cells = [row.name]
        for metric, paper in zip(METRICS, row.paper, strict=True):
            cells += [self._paper(metric, paper), "–"]
            if row.name in self.scores:
                score = self.scores[row.name][metric]
                low, high = score.interval
                cells[-1] = f"{100 * score.value:.1f} ({100 * low:.1f} to {100 * high:.1f})"
        return [*cells, self._remark(row)]

    def _paper(self, metric: str, percent: float | None) -> str:
        if percent is None:
            return "–"
        if metric != "accuracy":
            return f"{percent:.1f}"
        total = self.table.paper_subjects
        interval = wilson_interval(round(percent * total / 100), total)
        return f"{percent:.1f} ({100 * interval['low']:.1f} to {100 * interval['high']:.1f})"

    def _remark(self, row: Row) -> str:
        """The last cell: the difference to the reference row, or why there is none."""
        if row.name not in self.scores:
            return self.unscored.get(row.name, "not ours")
        score = self.scores[row.name][_KEY]
        if row.cohort != "true":
            low, high = score.interval
            return f"control: the interval {'holds' if low <= 0.5 <= high else 'leaves out'} 50"
        if row.name == self.table.reference or self.table.reference not in self.scores:
            return "–"
        difference, low, high = score.minus(self.scores[self.table.reference][_KEY])
        verdict = "separable" if _excludes_zero(low, high) else "not separable"
        return f"{100 * difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}): {verdict}"

    def _separable(self) -> list[str]:
        """Say which pairs of rows differ by more than chance."""
        better: dict[str, list[str]] = {}
        for one, other in self._pairs():
            difference, low, high = self.scores[one][_KEY].minus(self.scores[other][_KEY])
            if _excludes_zero(low, high):
                above, below = (one, other) if difference > 0 else (other, one)
                better.setdefault(above, []).append(below)
        count = sum(map(len, better.values()))
        return [
            f"Of {len(self._pairs())} pairs of rows {count} are separable by their ROC AUC at 5 % "
            "(paired, not corrected for the number of pairs); the others are not separable.",
            *(f"- {above} is above {'; '.join(below)}." for above, below in better.items()),
        ]


def _excludes_zero(low: float, high: float) -> bool:
    return low > 0 or high < 0
