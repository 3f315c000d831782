"""What pages say of a subject's flags: one line a fault, what to do about it folded away."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from mrn_components.images.image import SIDES

NUCLEUS_NAMES = {
    "CN": "caudate nucleus",
    "PUT": "putamen",
    "GP": "globus pallidus",
    "TH": "thalamus",
    "STN": "subthalamic nucleus",
    "SN": "substantia nigra",
    "RN": "red nucleus",
    "DN": "dentate nucleus",
}
_ONE_NUCLEUS = re.compile(rf"\w+: ({'|'.join(SIDES)}) (\w+) (measures|lies) .+")
_MANY = {
    "measures": "have masks of an unusual size",
    "lies": "lie where the other nuclei do not put them",
}
_SENTENCE = re.compile(r"(?<=[.;]) (?=[A-Z`])")


class Fault(NamedTuple):
    """A flag as pages show it."""

    found: str
    rest: list[str]  # what to do, or each nucleus; folded away


def faults_of(flags: Iterable[str]) -> list[Fault]:
    """Turn flags into faults: what is wrong with many nuclei alike is one."""
    flags = list(flags)
    found = [(flag, match) for flag in flags if (match := _ONE_NUCLEUS.fullmatch(flag))]
    faults = [_fault(flag) for flag in flags if not _ONE_NUCLEUS.fullmatch(flag)]
    for verb, words in _MANY.items():
        own = [(in_words(flag), match[2]) for flag, match in found if match[3] == verb]
        if len(own) == 1:
            faults.append(_fault(own[0][0]))
        elif own:
            names = dict.fromkeys(NUCLEUS_NAMES.get(nucleus, nucleus) for _, nucleus in own)
            text = f"{len(names)} kinds of nuclei {words}: {', '.join(names)}"
            faults.append(Fault(text, [flag for flag, _ in own]))
    return faults


def in_words(text: str) -> str:
    """Write out the nuclei of a text, such as right SN: the right substantia nigra."""
    names = "|".join(NUCLEUS_NAMES)
    pattern = rf"\b({'|'.join(SIDES)}) ({names})\b"
    return re.sub(pattern, lambda found: f"{found[1]} {NUCLEUS_NAMES[found[2]]}", text)


def _fault(flag: str) -> Fault:
    """Part a flag after its first sentence."""
    first, *rest = _SENTENCE.split(in_words(flag), maxsplit=1)
    return Fault(first, rest)
