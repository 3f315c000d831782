"""Checks of a cohort: one image under two names, and the balance of the classes."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mrn_components.checks.subject import Examination
from mrn_components.images.finding import Finding

_MIN_CLASS = 5  # people of a class, for five folds (section 4.1.1)
_MIN_SHARE = 0.1  # of the rarer class


def duplicate_findings(
    examinations: Iterable[Examination], people: Mapping[str, str]
) -> Iterator[Finding]:
    """Find images that stand under several subjects.

    The bytes of the files tell copies, the voxels also copies that were compressed, typed or turned
    anew.

    Args:
        examinations: of the subjects, deep.
        people: {subject: person}; scans of one person may share an image.
    """
    examinations = list(examinations)
    reported: set[tuple[str, ...]] = set()
    for kind in ("file", "voxels"):
        owners: dict[tuple[str, str], list[str]] = defaultdict(list)
        for examination in examinations:
            for image, hashes in examination.hashes.items():
                owners[image, hashes[kind]].append(examination.subject)
        for (image, _), names in owners.items():
            if len({people.get(name, name) for name in names}) > 1:
                if (image, *names) not in reported:
                    yield _duplicate(image, kind, names)
                reported.add((image, *names))


def class_findings(
    people: Iterable[tuple[str, int]], names: Sequence[str] = ("HC", "PD")
) -> Iterator[Finding]:
    """Check that every class has enough people.

    Args:
        people: the person of each labelled subject, and the number of the class.
        names: of the classes.
    """
    people = set(people)
    counts = [sum(label == wanted for _, label in people) for wanted in range(len(names))]
    first, *others, last = [f"{n} with {name}" for n, name in zip(counts, names, strict=True)]
    found = f"{', '.join([first.replace(' with', ' people with', 1), *others])} and {last}"
    if people and min(counts) < _MIN_CLASS:
        one = min(counts) == 0
        yield Finding(
            id="one-class" if one else "few-people",
            severity="error" if one else "warning",
            found=found,
            expected=f"at least {_MIN_CLASS} of each, for five folds",
            fix="Add subjects, or use fewer folds (--num_folds)",
        )
    elif people and min(counts) < _MIN_SHARE * sum(counts):
        yield Finding(
            id="imbalance",
            severity="warning",
            found=found,
            expected=f"at least {_MIN_SHARE:.0%} in the rarer class",
            fix="Judge by ROC AUC and macro F1, not by accuracy",
        )


def _duplicate(image: str, kind: str, names: Sequence[str]) -> Finding:
    same = "bytes" if kind == "file" else "voxels"
    return Finding(
        id=f"duplicate-{kind}",
        severity="error",
        subject=names[0],
        found=f"the same {same} of {image.upper()} in {', '.join(names)}",
        expected="an image under one subject",
        fix="Take all but one out, or give them one name in the third column of the csv "
        "(case_id,label,person)",
    )
