"""Foreign bundles: nothing of theirs runs, and everything of ours passes."""

import json
import stat
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from monai.bundle import ComponentLocator, ConfigParser

from attacks import BUNDLE, FILES, RUNNING, STATIC, TOUCH, foreign_bundle, planted
from mrn_components.app.inspect import archive, inspect_bundle, require_trusted
from mrn_components.app.inspect.configs import config_problems
from mrn_components.app.inspect.targets import READERS, WRITERS, is_allowed
from mrn_components.errors import UntrustedBundleError
from mrn_components.hashes import write_hashes

BUNDLES = sorted(path for path in BUNDLE.parent.iterdir() if (path / "configs").is_dir())


def build_by_monai(config, identity, locator=ComponentLocator()):  # noqa: B008  scanned once
    """What MONAI would do with the config; raises what it raises."""
    parser = ConfigParser(config)
    parser.locator = locator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parser.get_parsed_content(identity)


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_the_bundles_of_this_repository_pass(bundle):
    assert inspect_bundle(bundle) == []


def test_every_config_of_ours_is_walked():
    """The walk reads what the test above lets pass: a target in any config is found."""
    for path in BUNDLE.parent.glob("*/configs/*.yaml"):
        config = ConfigParser.load_config_file(str(path))
        count = path.read_text().count("_target_") + path.read_text().count("$")
        if count:
            assert list(config_problems(_poisoned(config))), path


def _poisoned(node):
    if isinstance(node, dict):
        return {
            key: "os.system" if key == "_target_" else _poisoned(value)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [_poisoned(value) for value in node]
    return f"${TOUCH}" if isinstance(node, str) and node.startswith("$") else node


@pytest.mark.parametrize("name", RUNNING)
def test_an_attack_is_found_and_leaves_no_trace(name, tmp_path):
    trace = tmp_path / "trace"
    config, identity = planted(RUNNING[name], trace)
    bundle = foreign_bundle(tmp_path / "b", **{"configs/inference.json": json.dumps(config)})
    assert inspect_bundle(bundle)
    with pytest.raises(UntrustedBundleError, match="nothing of it was run"):
        require_trusted(bundle)
    assert list(config_problems(config))  # as overrides too
    assert not trace.exists()
    if identity is not None:  # the attack is one: MONAI itself falls for it
        try:
            build_by_monai(config, identity)
        except Exception as error:
            assert trace.exists(), error
        assert trace.exists()


@pytest.mark.parametrize("name", STATIC)
def test_a_danger_is_found(name, tmp_path):
    text = json.dumps(STATIC[name])
    bundle = foreign_bundle(tmp_path, **{"configs/more.json": text})
    problems = inspect_bundle(bundle)
    assert {problem.file for problem in problems} == {"configs/more.json"}


@pytest.mark.parametrize("name", FILES)
def test_a_dangerous_file_is_found(name, tmp_path):
    trace = tmp_path / "trace"
    file, text = planted(FILES[name], trace)
    bundle = foreign_bundle(tmp_path / "b", **{file: text})
    assert {problem.file for problem in inspect_bundle(bundle)} == {file}
    assert not trace.exists()


def test_a_clean_copy_passes(tmp_path):
    bundle = foreign_bundle(tmp_path / "b")
    assert inspect_bundle(bundle) == []
    require_trusted(bundle)
