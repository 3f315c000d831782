"""What a network predicts of a subject: a class, or a score.

N subjects, K classes. Labels of classes are their numbers, 0 to K - 1, and probabilities are 0 to
1: P(positive) (N,) of two classes, else (N, K). Scores and their labels (N,) are in their unit.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from mrn_components.system.files import write_json

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")  # a column is named after it
TAKEN = re.compile(  # names of other columns of tables
    "subject|status|class|label|error|flags|trained_on|unlike_training|mask_source|missing_rois|"
    "baseline|masked|tta_std|set|set_level|fold.*|prob_.*|.*_calibrated"
)
_FILE = "target.json"
_NUM_PARTS = 3  # of a score's range: the categories of the contrastive loss


def _check_names(argument: str, names: Sequence[str]) -> None:
    if wrong := [name for name in names if not _NAME.fullmatch(name)]:
        raise ValueError(
            f"target {argument}: {wrong[0]!r} must begin with a letter and hold letters, digits, "
            "'-' and '_' only, since columns are named after it."
        )


@dataclass(frozen=True, kw_only=True)
class Classes:
    """One of some diagnoses.

    Of two classes tables show the probability of the positive one, and the number of the class; of
    more the probability of each, and the name of the class.

    Args:
        names: of the classes, in the order of their numbers in tables.
        positive: the class that sensitivity and P(...) speak of.

    Raises:
        ValueError: for fewer than two names, names that are equal or no names of columns, or a
            positive class that is none of them.
    """

    names: Sequence[str] = ("HC", "PD")
    positive: str = "PD"

    def __post_init__(self) -> None:
        names = tuple(map(str, self.names))
        if len(names) < 2 or len({name.lower() for name in names}) < len(names):
            raise ValueError(f"target names must be two or more that differ, got {list(names)}.")
        _check_names("names", names)
        if self.positive not in names:
            raise ValueError(
                f"target positive must be one of {list(names)}, got {self.positive!r}."
            )
        object.__setattr__(self, "names", names)

    main_metrics = ("accuracy", "roc_auc", "f1_macro")  # the paper's (section 4.1.3)
    noun = "probability"
    span = (0.0, 1.0)

    @property
    def is_binary(self) -> bool:
        """Whether there are two classes."""
        return len(self.names) == 2

    @property
    def number(self) -> int:
        """The number of the positive class."""
        return self.names.index(self.positive)

    @property
    def num_outputs(self) -> int:
        """A logit a class."""
        return len(self.names)

    num_categories = num_outputs  # groups of subjects that the contrastive loss holds apart

    @property
    def _shown(self) -> Sequence[int]:
        """The classes whose probability tables show."""
        return [self.number] if self.is_binary else range(len(self.names))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a prediction in tables."""
        return tuple(f"prob_{self.names[number].lower()}" for number in self._shown)

    @property
    def lead(self) -> str:
        """The column that stands for all where there is room for one number."""
        return f"prob_{self.positive.lower()}"

    @property
    def title(self) -> str:
        """What pages call ``lead``."""
        return f"P({self.positive})"

    def parse(self, value: Any) -> int:
        """Return the number of a class by it or its name; a ValueError names the accepted."""
        text = f"{value:g}" if isinstance(value, float) else str(value).strip().lower()
        known = {str(number): number for number in range(len(self.names))}
        known |= {name.lower(): number for number, name in enumerate(self.names)}
        if isinstance(value, bool) or text not in known:
            *others, last = (f"{number} ({name})" for number, name in enumerate(self.names))
            raise ValueError(f"label must be {', '.join(others)} or {last}, got {value!r}.")
        return known[text]

    def shown(self, label: float) -> int | str:
        """Return a label as tables show it: of two classes its number, else the class's name."""
        return int(label) if self.is_binary else self.names[int(label)]

    def groups(self, labels: Sequence[float], _parts: int) -> tuple[Sequence[str], np.ndarray]:
        """Return the names of the K classes, and the class (N,) of each label."""
        return self.names, np.array(labels, dtype=int)

    def categories(self, labels: Any) -> Any:
        """Return the category, 0 to K - 1, of each label, a tensor for a tensor of any shape."""
        return labels

    def values(self, outputs: Any) -> dict[str, Any]:
        """Return what logits (..., K) say: probabilities (...), a tensor, of each column."""
        prob = outputs.float().softmax(dim=-1)
        return {name: prob[..., k] for name, k in zip(self.columns, self._shown, strict=True)}

    def by_class(self, values: Any) -> np.ndarray:
        """Return as probabilities of every class (N, K) what ``metrics`` takes."""
        values = np.asarray(values, dtype=float)
        if not self.is_binary:
            return values
        both = [values, 1 - values]
        return np.stack(both if self.number == 0 else both[::-1], axis=-1)

    def in_tables(self, prob: np.ndarray) -> dict[str, np.ndarray]:
        """Return of probabilities of every class (..., K) the columns of tables (...)."""
        return {name: prob[..., k] for name, k in zip(self.columns, self._shown, strict=True)}

    def decide(self, values: Mapping[str, float]) -> dict[str, int | str]:
        """Return the cell ``class`` that ``columns`` decide: above 0.5, or the largest."""
        if self.is_binary:
            return {"class": self.number if values[self.lead] > 0.5 else 1 - self.number}
        best = max(self.columns, key=lambda column: values[column])
        return {"class": self.names[self.columns.index(best)]}

    def metrics(self, values: Any, labels: Any, seed: int = 1) -> dict[str, dict[str, Any]]:
        """Score probabilities by labels (N,), as ``diagnosis_metrics`` or ``class_metrics`` do.

        Returns:
            ``{metric: {"value", "low", "high", "method", ...}}``; None where it is not defined.
        """
        from mrn_components import metrics  # takes a second

        if self.is_binary:
            return metrics.diagnosis_metrics(values, np.equal(labels, self.number), seed)
        return metrics.class_metrics(values, labels, names=self.names, seed=seed)

    def compare(self, a: Any, b: Any, labels: Any) -> dict[str, dict[str, Any]]:
        """Test whether two models' probabilities differ, a less b; see ``compare_classes``."""
        from mrn_components import metrics

        if self.is_binary:
            return metrics.compare_diagnoses(a, b, np.equal(labels, self.number))
        return metrics.compare_classes(a, b, labels)

    def confusion(self, values: Any, labels: Any) -> dict[str, int]:
        """Count the subjects by label (N,) and decision: ``{"true_hc": ..., "false_pd": ...}``.

        Of more than two classes the keys are such as "hc_as_msa".
        """
        values, labels = np.asarray(values), np.asarray(labels)
        found = np.where(values > 0.5, self.number, 1 - self.number)
        found = found if self.is_binary else values.argmax(axis=1)
        counts = {}
        for label, name in enumerate(map(str.lower, self.names)):
            for decision, other in enumerate(map(str.lower, self.names)):
                right = "true" if label == decision else "false"
                key = f"{right}_{other}" if self.is_binary else f"{name}_as_{other}"
                counts[key] = int(np.sum((labels == label) & (found == decision)))
        return counts

    def counts(self, labels: Any) -> list[int]:
        """Count the subjects of each of the K classes, by labels (N,)."""
        return [int(np.sum(np.asarray(labels) == number)) for number in range(len(self.names))]

    def cohort(self, labels: Any, of_them: str = "") -> str:
        """Say of how many subjects and classes a cohort is, by labels (N,)."""
        counts = self.counts(labels)
        parts = [f"{counts[number]}{of_them} {self.names[number]}" for number in self._shown]
        return ", ".join([f"{len(labels)} subjects", *parts])


@dataclass(frozen=True, kw_only=True)
class Score:
    """A number on a scale, such as a UPDRS sum.

    The network gives its distance from the middle of the range, in units of the range, so that an
    untrained one predicts the middle. The contrastive loss takes thirds of the range for
    classes, so that the range should be that of the cohort, not of the scale.

    Args:
        name: of the score; its column in tables.
        unit: of it, for pages.
        range: lowest and highest value. Labels outside are refused, predictions are cut off.

    Raises:
        ValueError: for a name that is none of a column, or a range that is none.
    """

    name: str = "score"
    unit: str = ""
    range: Sequence[float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        _check_names("name", [self.name])
        if TAKEN.fullmatch(self.name.lower()):
            raise ValueError(
                f"target name {self.name!r} is another column of tables; choose another."
            )
        if len(self.range) != 2 or not self.range[0] < self.range[1]:
            raise ValueError(f"target range must be [low, high], got {list(self.range)}.")
        object.__setattr__(self, "range", tuple(map(float, self.range)))

    main_metrics = ("pearson", "spearman", "mae")
    noun = "score"
    num_outputs = 1
    num_categories = _NUM_PARTS
    is_binary = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of a prediction in tables."""
        return (self.name,)

    @property
    def lead(self) -> str:
        """The column that stands for all where there is room for one number."""
        return self.name

    @property
    def title(self) -> str:
        """What pages call ``lead``."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def span(self) -> tuple[float, float]:
        """Lowest and highest value."""
        return self.range[0], self.range[1]

    def parse(self, value: Any) -> float:
        """Read a score within the range; a ValueError names what came and the range."""
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        low, high = self.range
        if not low <= number <= high:  # also refuses NaN
            raise ValueError(f"label must be a number from {low:g} to {high:g}, got {value!r}.")
        return number

    def shown(self, label: float) -> float:
        """Return a label as tables show it: seven digits are what a network's numbers have."""
        return float(f"{label:.7g}")

    def groups(self, labels: Sequence[float], parts: int) -> tuple[Sequence[str], np.ndarray]:
        """Return names of the parts between quantiles of labels (N,), and the part (N,) of each."""
        edges = np.quantile(labels, np.arange(1, parts) / parts)
        names = [f"{self.name} up to {edge:.4g}" for edge in edges]
        return [*names, f"a higher {self.name}"], np.searchsorted(edges, labels)

    def categories(self, labels: Any) -> Any:
        """Return the third of the range, 0 to 2, of labels in a tensor of any shape."""
        return (self.scaled(labels) * _NUM_PARTS).long().clamp(0, _NUM_PARTS - 1)

    def scaled(self, labels: Any) -> Any:
        """Return labels of any shape in units of the range, 0 to 1."""
        return (labels - self.range[0]) / (self.range[1] - self.range[0])

    def values(self, outputs: Any) -> dict[str, Any]:
        """Return the scores (...) that outputs (..., 1) say, by column, cut off at the range."""
        low, high = self.range
        value = low + (high - low) * (0.5 + outputs[..., 0].float())
        return {self.name: value.clamp(low, high) + 0 * value}  # what is not finite stays so

    def decide(self, _values: Mapping[str, float]) -> dict[str, int | str]:
        """Return no cell: a score is no class."""
        return {}

    def metrics(self, values: Any, labels: Any, seed: int = 1) -> dict[str, dict[str, Any]]:
        """Score predictions (N,) by labels (N,), each with an interval; see ``score_metrics``."""
        from mrn_components import metrics

        return metrics.score_metrics(values, labels, seed)

    def compare(self, a: Any, b: Any, labels: Any) -> dict[str, dict[str, Any]]:
        """Test whether predictions (N,) differ, a less b, as ``compare_scores`` does."""
        from mrn_components import metrics

        return metrics.compare_scores(a, b, labels)

    def cohort(self, labels: Any, _of_them: str = "") -> str:
        """Say of how many subjects a cohort is."""
        return f"{len(labels)} subjects"


Target: TypeAlias = Classes | Score

HC_PD = Classes()  # of verbs without a bundle, and of tables that say nothing


def describe(target: Target) -> dict[str, Any]:
    """Return what ``make_target`` makes a target of."""
    return {"kind": type(target).__name__, **asdict(target)}


def make_target(content: Mapping[str, Any]) -> Target:
    """Make a target of what ``describe`` returned; a ValueError says that it names none."""
    kinds: dict[Any, type[Classes] | type[Score]] = {"Classes": Classes, "Score": Score}
    try:
        arguments = dict(content)
        return kinds[arguments.pop("kind")](**arguments)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{content} names no target: {error}.") from error


def write_target(folder: Path, target: Target) -> None:
    """Write ``target.json`` beside tables, which tells what they hold; of HC and PD none."""
    if target == HC_PD:
        (folder / _FILE).unlink(missing_ok=True)  # of an earlier run
        return
    write_json(folder / _FILE, describe(target))


def read_target(folder: Path) -> Target:
    """Return what the tables in a folder hold: by their ``target.json``, else HC and PD."""
    path = folder / _FILE
    if not path.is_file():
        return HC_PD
    try:
        return make_target(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{path}: {error} Predict the subjects again.") from error
