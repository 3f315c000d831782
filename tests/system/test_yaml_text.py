"""A YAML text with other values keeps its lines and comments."""

from pathlib import Path

import pytest
import yaml

from mrn_components.system.yaml_text import edited_yaml

TEXT = """\
# what this is
one: 1  # of them
rois:  # edit here
  # of NM
  nm: {image: "@nm", size: 224}  # flow
  qsm:
    nuclei: [SN, RN]  # listed
    size: 224
steps:
  - {name: a, to: 1}  # first
  - name: b
    to: 2
# >>> the last
last: null
"""
CONFIGS = sorted((Path(__file__).parents[2] / "bundles").glob("*/configs/*.yaml"))


def edited(**changes):
    content = yaml.safe_load(TEXT) | changes
    text = edited_yaml(TEXT, content)
    assert yaml.safe_load(text) == content
    old, new = TEXT.splitlines(), text.splitlines()
    return [line for line in new if line not in old], [line for line in old if line not in new]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_the_same_content_is_the_same_text(path):
    text = path.read_text()
    assert edited_yaml(text, yaml.safe_load(text)) == text


def test_a_changed_value_keeps_its_comment_which_says_what_it_was():
    assert edited(one=True) == (["one: true  # was 1: of them"], ["one: 1  # of them"])
    assert edited(one=1.0)[0] == ["one: 1.0  # was 1: of them"]


def test_below_a_key_only_what_differs_is_written():
    rois = yaml.safe_load(TEXT)["rois"]
    nm = "  nm: {image: '@nm', size: 56}  # was {image: '@nm', size: 224}: flow"
    assert edited(rois=rois | {"nm": {"image": "@nm", "size": 56}})[0] == [nm]
    qsm = {"nuclei": ["SN"], "margin": 3}
    new, gone = edited(rois=rois | {"qsm": qsm})
    assert new == ["    nuclei: [SN]  # was [SN, RN]: listed", "    margin: 3"]
    assert gone == ["    nuclei: [SN, RN]  # listed", "    size: 224"]


def test_keys_come_and_go_and_lists_change():
    content = {"one": 1, "rois": [1, {"x": None}], "new": {"a": ["$b", "@c"]}}
    content["steps"] = [{"name": "a", "to": 1}, {"name": "b", "to": 3}]
    text = edited_yaml(TEXT, content)
    assert yaml.safe_load(text) == content
    assert "# what this is" in text
    assert "  - {name: a, to: 1}  # first\n  - name: b\n    to: 3\n# >>> the last\n" in text
    assert text.endswith("new: {a: [$b, '@c']}\n")


def test_texts_that_yaml_would_read_otherwise_are_quoted():
    words = {"one": "1.0e-5", "rois": "yes: # no", "steps": "", "last": "line\nline é"}
    assert yaml.safe_load(edited_yaml(TEXT, words)) == words


@pytest.mark.parametrize("text", ["{one: 1, two: 2}", "one: &x {a: 1}\ntwo: *x\n"])
def test_of_other_styles_the_content_is_right(text):
    content = {"one": {"a": 2}, "three": 3}
    assert yaml.safe_load(edited_yaml(text, content)) == content
