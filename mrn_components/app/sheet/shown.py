"""Values of records in words."""

from collections.abc import Iterator, Mapping
from typing import Any

_CODE = ("$", "@", "%")  # how an expression of a config begins, or a reference
_MOST_STEPS = 9  # from reference to reference


def shown(value: Any, record: Mapping[str, Any]) -> str:
    """Return a value of a record in words; "" for nothing that words can show.

    A number that is not whole has four digits, a metric its interval, a part of a config its name
    and settings, or that it is left out. References to numbers and words are followed in the
    record; expressions are not shown.
    """
    value = _followed(value, record)
    if isinstance(value, Mapping):
        return _metric(value) if {"value", "low", "high"} <= value.keys() else _part(value, record)
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, (shown(item, record) for item in value))) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else " ".join(str(value).split())


def _followed(value: Any, record: Mapping[str, Any]) -> Any:
    """Return what a reference to a number or a word leads to; None for other code."""
    for _ in range(_MOST_STEPS):
        if not isinstance(value, str) or not value.startswith(_CODE):
            return value
        found: Any = record if value.startswith("@") else None
        *above, name = value[1:].split("#")
        for part in (*above, name):
            found = found.get(part) if isinstance(found, Mapping) else None
        if isinstance(found, Mapping) and above == ["images"]:
            return name
        value = found if isinstance(found, str | int | float) else None
    return None


def _part(value: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Return ``Name(key: value, ...)`` of a part of a config, ``key: value, ...`` of a mapping."""
    if value.get("_disabled_") is True:
        return "left out"
    if value.get("reason") and value.get("auc", 0) is None:  # a control of too few subjects
        return f"not defined ({value['reason']})"
    cells = [f"{key}: {text}" for key, text in _cells(value, record)]
    name = str(value.get("_target_", "")).rsplit(".", 1)[-1]
    if name:
        return f"{name}({', '.join(cells)})" if cells else name
    return ", ".join(cells) or "none"


def _cells(value: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, item in value.items():
        if str(key).startswith("_") or not (text := shown(item, record)):
            continue
        nested = isinstance(item, Mapping | list | tuple) and "_target_" not in item
        yield str(key), f"({text})" if nested else text


def _metric(metric: Mapping[str, Any]) -> str:
    """Return a metric with its interval, three digits each, and how that was computed.

    Where either is not defined it says why.
    """
    if metric["value"] is None:
        return f"not defined ({metric.get('reason', 'no reason given')})"
    if metric["low"] is None:
        return f"{metric['value']:.3f} (no interval: {_reason(metric)})"
    method = f", {metric['method']}" if "method" in metric else ""
    return f"{metric['value']:.3f} ({metric['low']:.3f} to {metric['high']:.3f}{method})"


def _reason(metric: Mapping[str, Any]) -> str:
    return str(metric.get("reason", "not computed")).removeprefix("none: ")
