"""Kinds of findings: every one that a check names is described, and no other."""

import re
from pathlib import Path

import mrn_components
from mrn_components.images.finding import _kinds, finding

PACKAGE = Path(mrn_components.__file__).parent


def test_the_kinds_are_those_that_the_checks_name():
    source = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    assert {name for name in _kinds() if f'"{name}"' not in source} == {
        *("duplicate-file", "duplicate-voxels")  # f"duplicate-{kind}"
    }
    named = re.findall(r'\b(?:finding|fault|(?:case|self)\.add)\(\s*"([a-z0-9-]+)"', source)
    assert {*named} <= _kinds().keys()


def test_words_of_a_check_stand_in_the_texts_or_for_them():
    found = finding("spacing", "a/NM.nii", "voxels of 20 mm", subject="S", low=0.1, high=10)
    assert str(found) == (
        "S NM.nii: voxels of 20 mm; expected 0.1 to 10 mm. Convert the image again with its unit "
        "in mm."
    )
    assert found.severity == "error"
    milder = finding("non-finite", "", "{", severity="warning", expected="{", fix="}")
    assert (milder.severity, milder.expected, milder.fix) == ("warning", "{", "}")
