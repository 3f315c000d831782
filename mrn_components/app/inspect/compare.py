"""Comparing an inference config with the installed one: what of it is data, and what is not.

Of a foreign config count literals where ours has literals, and some trees of parts that neither
read nor write nor run anything. Nothing of it is built, imported or evaluated.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from monai.bundle import ReferenceResolver

from mrn_components.app.inspect.differences import Effect, shown
from mrn_components.app.inspect.vocabulary import ENCODER_WEIGHTS, Vocabulary, is_literal
from mrn_components.bundle import NETWORK_BLOCKS
from mrn_components.system.plain_data import items

_TREES = frozenset((*NETWORK_BLOCKS, "images", "target"))
# What the user decides, and no bundle: where things are, and whether leaks are overlooked.
_OF_THE_USER = (
    *("bundle_root", "dataset_dir", "output_dir", "cache_dir", "labels", "require_labels"),
    *("allow_training_subjects", "device"),
)
# Order and company of the parts, which prediction takes from ours.
_WIRING = ("initialize", "finalize", "run", "handlers", "guards", "evaluator", "dataloader")
_NAME = re.compile(r"[^\W_]\w*")

Found = tuple[str, str, Effect]  # id in the config, what stands there, what follows


@dataclass
class Comparison:
    """What became of a config.

    Args:
        settings: top keys of the installed config, and the values that the bundle puts there.
        found: what differs and is not data.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    found: list[Found] = field(default_factory=list)


def compare(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Comparison:
    """Compare a foreign inference config with the installed one.

    Args:
        theirs: as it was read, nothing resolved.
        ours: the same.
    """
    result = Comparison()
    brought = _brought_literals(theirs, ours)
    ours = {**brought, **ours}
    if "network_def" not in theirs:
        result.found.append(("", "it has no network_def: it predicts nothing", "refused"))
    for key, value in theirs.items():
        if not _NAME.fullmatch(str(key)):
            result.found.append(
                (shown(key), "no name; overlays stand in files of their own", "refused")
            )
        elif value != ours.get(key, ...):
            result.found += _compare_key(key, value, ours, result.settings)
    result.settings |= brought
    for key in sorted(ours.keys() - theirs.keys() - {"network_def"}):
        result.found.append((key, f"not there, ours {shown(ours[key])}", "ours is used"))
    return result


def _brought_literals(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Return the literals that ours lacks and trees refer to: an overlay of training adds some."""
    text = str([theirs.get(key) for key in _TREES])
    return {
        key: value
        for key, value in theirs.items()
        if key not in ours and is_literal(value) and re.search(rf"@{re.escape(str(key))}\b", text)
    }


def strange_words(
    key: str, theirs: Any, ours: Mapping[str, Any], paths: bool = False
) -> list[tuple[str, str]]:
    """Return what may not stand at a key of a config: ids, and what stands there.

    Args:
        key: top key.
        theirs: what stands there.
        ours: the installed config.
        paths: whether files may be named, outside of the trees.
    """
    if key in _TREES and key in ours:
        literals = {name for name, value in ours.items() if is_literal(value)}
        vocabulary = Vocabulary(ours[key], references=literals | _TREES)
    else:
        # A run says in its root which run it is (mark_run); the user says where it lies.
        root = ["mrn_components.locate_bundle"] if key == "bundle_root" else []
        vocabulary = Vocabulary(ours, parts=root, paths=paths or key in _OF_THE_USER)
    return list(vocabulary.strange({key: theirs}))


def _compare_key(
    key: str, theirs: Any, ours: Mapping[str, Any], settings: dict[str, Any]
) -> Iterator[Found]:
    if strange := strange_words(key, theirs, ours):
        yield from ((where, what, "refused") for where, what in strange)
    elif key in _TREES and key in ours:
        settings[key] = theirs
    elif key in _TREES:
        yield key, f"{shown(theirs)}, which ours does not have", "refused"
    elif key not in ours:
        yield key, f"{shown(theirs)}, which ours does not have", "ours is used"
    elif key not in _OF_THE_USER:
        merged, others = _merge(theirs, ours[key], key)
        if key in _WIRING:
            yield key, _both(theirs, ours[key]), "ours is used"
        else:
            yield from ((where, _both(*values), "refused") for where, *values in others)
            settings[key] = merged


def _both(theirs: Any, ours: Any) -> str:
    return f"{shown(theirs)}, ours {shown(ours)}"


def _merge(theirs: Any, ours: Any, where: str) -> tuple[Any, list[tuple[str, Any, Any]]]:
    """Return ours with the literals of theirs, and what else differs: id, theirs, ours."""
    if theirs == ours:
        return ours, []
    name = ReferenceResolver.split_id(where)[-1]
    may_differ = not name.startswith("_") and name != ENCODER_WEIGHTS
    if is_literal(theirs) and is_literal(ours) and may_differ:
        return theirs, []
    mappings = isinstance(theirs, Mapping) and isinstance(ours, Mapping)
    lists = isinstance(theirs, list) and isinstance(ours, list)
    if not ((mappings and theirs.keys() == ours.keys()) or (lists and len(theirs) == len(ours))):
        return ours, [(where, theirs, ours)]
    parts = {key: _merge(theirs[key], value, f"{where}#{key}") for key, value in items(ours)}
    merged = {key: part for key, (part, _) in parts.items()}
    others = [other for _, found in parts.values() for other in found]
    return (merged if mappings else list(merged.values())), others
