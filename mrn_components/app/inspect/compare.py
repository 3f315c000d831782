"""Comparing an inference config with the installed one: what of it is data, and what is not.

Of a foreign config count literals where ours has literals, and some trees of parts that neither
read nor write nor run anything. Nothing of it is built, imported or evaluated.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from monai.bundle import ReferenceResolver

from mrn_components.app.inspect.vocabulary import ENCODER_WEIGHTS, Vocabulary, is_literal, shown
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
# What our configs had before 2026-11-26 for what the user decides.
_EARLIER = {"device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')"}
_NAME = re.compile(r"[^\W_]\w*")

# Prediction refuses it; or prediction does not read it, but who trains from it would run it; or
# the installed one is used in its place.
Effect = Literal["refused", "not predicted with", "ours is used"]


class Difference(NamedTuple):
    """Something in a bundle that differs from the installed one and is not data."""

    file: str  # path in the bundle; "--" for an override from the command line
    where: str  # id in a config, else empty
    what: str  # what stands there, what stands in ours, or what is wrong with it
    effect: Effect = "refused"

    def __str__(self) -> str:
        parts = [part for part in (self.file, self.where, self.what) if part]
        return ": ".join(parts) + ("" if self.effect == "refused" else f" ({self.effect})")


class Comparison(NamedTuple):
    """What became of a config."""

    settings: dict[str, Any]  # top keys of the installed config, and what the bundle puts there
    found: list[Difference]  # what is not data


def compare(theirs: Mapping[str, Any], ours: Mapping[str, Any], file: str = "") -> Comparison:
    """Compare a foreign inference config with ours, both as they were read; ``file`` has theirs."""
    settings = _brought_literals(theirs, ours)
    ours = {**settings, **ours}
    found: list[Difference] = []
    if "network_def" not in theirs:
        found.append(Difference(file, "", "it has no network_def: it predicts nothing"))
    for key, value in theirs.items():
        strange = [Difference(file, *each) for each in _compare_key(key, value, ours)]
        found += strange
        if not strange and key not in _OF_THE_USER and value != ours[key]:
            settings[key] = value
    for key in sorted(ours.keys() - theirs.keys() - {"network_def"}):
        found.append(Difference(file, key, f"not there, ours {shown(ours[key])}", "ours is used"))
    return Comparison(settings, found)


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
    """Return the ids below a top key at which ``theirs`` may not stand in ours, and what does.

    With ``paths`` files may be named, outside of the trees.
    """
    if key in _TREES and key in ours:
        literals = {name for name, value in ours.items() if is_literal(value)}
        vocabulary = Vocabulary(ours[key], references=literals | _TREES)
    else:
        # A run says in its root which run it is (mark_run); the user says where it lies.
        root = ["mrn_components.locate_bundle"] if key == "bundle_root" else []
        vocabulary = Vocabulary(
            ours, _EARLIER.get(key), parts=root, paths=paths or key in _OF_THE_USER
        )
    return list(vocabulary.strange({key: theirs}))


def _compare_key(
    key: str, theirs: Any, ours: Mapping[str, Any]
) -> Iterator[tuple[str, str, Effect]]:
    """Yield what keeps the value of a top key from standing in ours."""
    if not _NAME.fullmatch(str(key)):
        yield shown(key), "no name; overlays stand in files of their own", "refused"
    elif theirs == ours.get(key, ...):
        return
    elif strange := strange_words(key, theirs, ours):
        yield from ((where, what, "refused") for where, what in strange)
    elif key not in ours:
        effect: Effect = "refused" if key in _TREES else "ours is used"
        yield key, f"{shown(theirs)}, which ours does not have", effect
    elif key in _WIRING:
        yield key, f"{shown(theirs)}, ours {shown(ours[key])}", "ours is used"
    elif key not in _TREES and key not in _OF_THE_USER:
        for where, *values in _no_literals(theirs, ours[key], key):
            yield where, "{}, ours {}".format(*map(shown, values)), "refused"


def _no_literals(theirs: Any, ours: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield where theirs is no literal in the place of one of ours: id, theirs, ours."""
    if theirs == ours:
        return
    name = ReferenceResolver.split_id(where)[-1]
    literals = is_literal(theirs) and is_literal(ours)
    if literals and not name.startswith("_") and name != ENCODER_WEIGHTS:
        return
    mappings = isinstance(theirs, Mapping) and isinstance(ours, Mapping)
    lists = isinstance(theirs, list) and isinstance(ours, list)
    if (mappings and theirs.keys() == ours.keys()) or (lists and len(theirs) == len(ours)):
        for key, value in items(ours):
            yield from _no_literals(theirs[key], value, f"{where}#{key}")
    else:
        yield where, theirs, ours
