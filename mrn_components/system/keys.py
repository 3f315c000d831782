"""Keys of a config that a user typed: whether there are such, and values of their type."""

import json
import re
from collections.abc import Mapping
from inspect import Parameter, signature
from pydoc import locate
from typing import Any

import torch

from mrn_components.system.errors import UnknownKeyError
from mrn_components.system.values import did_you_mean, nearest, parse_bool, parse_number

# Sections of a config that MONAI runs, or evaluates first; an overlay may bring them.
_SECTIONS = ("imports", "initialize", "run", "finalize")


def check_key(key: str, config: Mapping[str, Any], source: str, readers: str = "") -> None:
    """Check that a key names something in a config, or something new that is read.

    New names are read where a component takes the mapping they stand in (``rois#mine``), and where
    another key refers to them (``@train#sampler``).

    Args:
        key: id such as ``network_def#res#ffa#num_layers``; a leading ``+`` extends.
        config: merged config, references unresolved.
        source: where the key stands, for the message.
        readers: text of all configs that may refer to the key. Empty takes ``config``.

    Raises:
        UnknownKeyError: naming the unknown part and the nearest known names.
    """
    readers = readers or config_text(config)
    parts = _parts(key)
    node: Any = {**dict.fromkeys(_SECTIONS), **config}
    is_taken = False  # whether a component takes all of the mapping at hand
    for depth, part in enumerate(parts):
        path = "#".join(parts[: depth + 1])
        plain = isinstance(node, Mapping) and "_target_" not in node
        is_read = re.search(rf"@{re.escape(path)}(?![\w#])", readers) is not None
        known = _known_keys(node, part)
        may_be_new = plain and depth == len(parts) - 1 and (is_taken or is_read)
        if part not in known and not may_be_new:
            near = nearest(part, known)
            where = "#".join(parts[:depth]) or "the config"
            meant = did_you_mean(near) or f" It has {sorted(known)}."
            text = f"{source}{key}: {where} has no {part!r}.{meant}"
            raise UnknownKeyError(text, key=key, near=near)
        is_taken = is_taken or not plain or is_read
        node = node[int(part)] if isinstance(node, list) else node.get(part)


def config_text(config: Any) -> str:
    """The text of a config, in which references are found."""
    return json.dumps(config, default=str).replace("::", "#")


def _known_keys(node: Any, part: str) -> set[str]:
    """Return the names that may follow ``node``; ``part`` is one where any name may."""
    if isinstance(node, list):
        return {str(index) for index in range(len(node))}
    if not isinstance(node, Mapping):
        return set()
    if "_target_" not in node:
        return set(node)
    parameters = _parameters(node)
    if any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values()):
        return {part}
    return {*parameters, "_target_", "_disabled_", "_requires_", "_desc_", "_mode_"}


def _parameters(component: Mapping[str, Any]) -> Mapping[str, Parameter]:
    """The parameters of a component; any, for a bare name of MONAI's, which MONAI finds."""
    name = str(component["_target_"])
    target = locate(name) or locate(f"monai.{name}")
    if callable(target):
        return signature(target).parameters
    return {"any": Parameter("any", Parameter.VAR_KEYWORD)}


def _parts(key: str) -> list[str]:
    return key.lstrip("+").replace("::", "#").split("#")


def typed_value(key: str, value: Any, config: Mapping[str, Any], source: str) -> Any:
    """Read the value of a key that ``check_key`` found by the type in the config, bool or number.

    Expressions and references stay as they are.

    Raises:
        ValueError: naming the key, its value and what is accepted.
    """
    name = f"{source}{key}"
    if isinstance(value, str) and value[:1] in ("$", "@", "%"):
        return value
    if value == "null":  # as YAML has it
        return None
    own = None if key[0] == "+" else _own_value(key, config)
    if isinstance(own, bool) or key.endswith("_disabled_"):
        return parse_bool(name, value)
    if isinstance(own, int | float) and value is not None:
        # A number within a component may be written as 1 and mean 1.0; 3 stays 3.
        number = parse_number(name, value, whole=isinstance(own, int) and "#" not in key)
        return number if isinstance(value, str) or isinstance(number, int) else value
    return value


def _own_value(key: str, config: Mapping[str, Any]) -> Any:
    """What a config has under a key, else the component's default, else None."""
    node: Any = config
    *parents, name = _parts(key)
    for part in parents:
        node = node[int(part)] if isinstance(node, list) else node[part]
    if isinstance(node, list):
        return node[int(name)]
    if name in node or "_target_" not in node:
        return node.get(name)
    return getattr(_parameters(node).get(name), "default", None)


def check_device(overrides: Mapping[str, Any]) -> None:
    """Refuse a ``device`` among overrides that torch does not know, or that this machine lacks."""
    device = overrides.get("device")
    if device is None or str(device).startswith(("$", "@")):
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        count = torch.cuda.device_count()
        gpus = f"cuda:0 to cuda:{count - 1} are here" if count else "no GPU is here"
        gpus = "mps is here" if torch.backends.mps.is_available() else gpus
        raise ValueError(f"--device: {device!r} cannot be used; type cpu ({gpus}).") from error
