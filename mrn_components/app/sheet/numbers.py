"""Facts of the evaluation: metrics, intervals, errors, groups."""

from typing import Any

from mrn_components.app.by_group import say_test
from mrn_components.app.sheet.shown import shown
from mrn_components.app.sheet.study import NOTHING, Derived, Study
from mrn_components.data.target import Classes

# Columns of `--group_by` that are clusters of subjects, and those that are groups of people.
_CLUSTERS = {"site", "center", "centre", "hospital", "scanner", "country"}
_PEOPLE = {"sex", "gender", "age", "ethnicity", "race"}


def metrics_of(study: Study) -> dict[str, dict[str, Any]]:
    """Return the metrics of the evaluated model by name.

    Each is ``{"value", "low", "high", ...}``: shares and areas from 0 to 1, of a score errors in
    its unit; None where it is not defined.
    """
    found = study.contents.get("metrics", {})
    return {k: v for k, v in found.items() if isinstance(v, dict) and {"value", "low"} <= v.keys()}


def performance(study: Study) -> Derived:
    """Give every metric with its interval, three digits each, in the order of the records."""
    found = metrics_of(study)
    text = "; ".join(f"{name} {shown(metric, {})}" for name, metric in found.items())
    return text, [("metrics", name) for name in found]


def measures(study: Study) -> Derived:
    """Name the metrics."""
    found = metrics_of(study)
    return ", ".join(found), [("metrics", name) for name in found]


def figures(study: Study) -> Derived:
    """Name the figures."""
    found = study.contents.get("figures", {})
    return ", ".join(found.values()), [("figures", name) for name in found]


def intervals(study: Study) -> Derived:
    """Say how the intervals are computed: share that they hold, methods, resamples and seed."""
    if not (found := metrics_of(study)):
        return NOTHING
    by_method: dict[str, list[str]] = {}
    for name, metric in found.items():
        method = str(metric.get("method", "no name")) if metric["low"] is not None else "none"
        by_method.setdefault(method, []).append(name)
    each = "; ".join(f"{method}: {', '.join(names)}" for method, names in by_method.items())
    confidence, bootstrap = (study.contents["metrics"][key] for key in ("confidence", "bootstrap"))
    drawn = f"{bootstrap['resamples']} resamples, seed {bootstrap['seed']}"
    text = f"{confidence:.0%} intervals by {each}; bootstrap of {drawn}"
    return text, [("metrics", key) for key in ("confidence", "bootstrap", *found)]


def errors(study: Study) -> Derived:
    """Count the subjects by label and decision; a score has none."""
    found = study.value("metrics", "confusion")
    if found:
        return shown(found, {}), [("metrics", "confusion")]
    if isinstance(study.target, Classes):
        return NOTHING
    return "a score has no decisions; scatter.svg shows it", [("metrics", "target")]


def by_group(study: Study) -> Derived:
    """Give the main metrics of each group, its size, and whether groups differ, by any column."""
    return _groups(study, {*(study.value("metrics", "by_group") or ())})


def by_cluster(study: Study) -> Derived:
    """Give the main metrics of each site, and whether sites differ."""
    return _groups(study, _CLUSTERS)


def by_people(study: Study) -> Derived:
    """Give the main metrics of groups of people."""
    return _groups(study, _PEOPLE)


def _groups(study: Study, columns: set[str]) -> Derived:
    found = study.value("metrics", "by_group") or {}
    texts, places = [], []
    for column in (name for name in found if name.lower() in columns or name in columns):
        own = found[column][study.value("metrics", "name")]
        lines = []
        for name, group in own["groups"].items():
            metrics = (f"{m} {shown(group[m], {})}" for m in study.target.main_metrics)
            few = ", few" if group["few"] else ""
            lines.append(f"{name} (n {group['n']}{few}): {', '.join(metrics)}")
        lines += [f"{name}: {say_test(test)}" for name, test in own["heterogeneity"].items()]
        texts.append(f"by {column}: {'; '.join(lines)}")
        places.append(("metrics", f"by_group#{column}"))
    return ". ".join(texts), places
