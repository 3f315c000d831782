"""Checks of a cohort: one image under two names, and the balance of the classes."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mrn_components.checks.subject import Examination
from mrn_components.images.finding import Finding, finding

_MIN_CLASS = 5  # people of a class, for five folds (section 4.1.1)
_MIN_SHARE = 0.1  # of the rarer class


def duplicate_findings(
    examinations: Iterable[Examination], people: Mapping[str, str]
) -> Iterator[Finding]:
    """Find images that stand under several subjects, as deep examinations tell.

    The bytes of the files tell copies, the voxels also copies that were compressed, typed or turned
    anew. Scans of one person may share an image: ``people`` is {subject: person}.
    """
    examinations = list(examinations)
    reported: set[tuple[str, ...]] = set()
    for kind in ("file", "voxels"):
        owners: dict[tuple[str, str], list[str]] = defaultdict(list)
        for examination in examinations:
            for image, hashes in examination.hashes.items():
                owners[image, hashes[kind]].append(examination.subject)
        for (image, _), names in owners.items():
            several = len({people.get(name, name) for name in names}) > 1
            if several and (image, *names) not in reported:
                reported.add((image, *names))
                same = "bytes" if kind == "file" else "voxels"
                found = f"the same {same} of {image.upper()} in {', '.join(names)}"
                yield finding(f"duplicate-{kind}", "", found, subject=names[0])


def class_findings(
    people: Iterable[tuple[str, int]], names: Sequence[str] = ("HC", "PD")
) -> Iterator[Finding]:
    """Check that every class has enough people, given the person and class of each subject."""
    people = set(people)
    counts = [sum(label == wanted for _, label in people) for wanted in range(len(names))]
    first, *others, last = [f"{n} with {name}" for n, name in zip(counts, names, strict=True)]
    found = f"{', '.join([first.replace(' with', ' people with', 1), *others])} and {last}"
    if people and min(counts) < _MIN_CLASS:
        kind = "few-people" if min(counts) else "one-class"
        yield finding(kind, "", found, least=_MIN_CLASS)
    elif people and min(counts) < _MIN_SHARE * sum(counts):
        yield finding("imbalance", "", found, share=_MIN_SHARE)
