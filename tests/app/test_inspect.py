"""Foreign bundles: nothing of theirs runs, and everything of ours passes."""

import contextlib
import json
import shutil
import stat
import warnings
import zipfile
from pathlib import Path

import pytest
from attacks import BUNDLE, FILES, RUNNING, STATIC, TOUCH, foreign_bundle, planted
from monai.bundle import ComponentLocator, ConfigParser

import mrn_components
from mrn_components.app.inspect import archive, inspect_bundle, require_trusted
from mrn_components.app.inspect.configs import config_problems
from mrn_components.app.inspect.targets import READERS, WRITERS, is_allowed
from mrn_components.system.errors import UntrustedBundleError
from mrn_components.system.hashes import write_hashes

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
        with contextlib.suppress(Exception):  # after the fact
            build_by_monai(config, identity)
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


@pytest.mark.parametrize(
    "config",
    [
        {"i": ["$import os", "$import numpy as np"], "x": "$os.path.join(@a, 'b')", "a": "c"},
        {"x": {"_target_": "UNet", "spatial_dims": 3, "channels": [4, 8], "strides": [2]}},
        {"x": {"_target_": "monai.networks.nets.UNet"}},
        {"x": {"_target_": "monai.transforms.intensity.dictionary.ScaleIntensityd", "keys": "a"}},
        {"x": {"_target_": "LoadImaged", "keys": "a", "reader": "NibabelReader"}},
        {"x": {"_target_": "SaveImaged", "keys": "a", "output_dir": "@o"}, "o": "."},
        {"x": {"_target_": "torch.optim.Adam", "params": "$@net.parameters()"}, "net": 1},
        {"x": {"_target_": "torch.utils.data.DataLoader", "dataset": "@d"}, "d": 1},
        {"x": {"_target_": "SlidingWindowInferer", "roi_size": [8, 8, 8]}},
        {"x": {"_target_": "ignite.metrics.Accuracy"}},
        {"x": {"_target_": "mrn_components.ROI", "image": "qsm", "nuclei": ["SN"]}},
        {"x": "$[{'image': i, 'n': f'{i}_x'} for i in @a if i is not None]", "a": []},
        {"x": "%a", "a": {"b": 1}},
        {"net#_target_": "torch.nn.Linear", "net#in_features": 3},
    ],
    ids=lambda config: str(next(value for key, value in config.items() if key != "i"))[:40],
)
def test_what_bundles_of_others_use_passes(config):
    assert list(config_problems(config)) == []


def test_the_readers_and_writers_are_names_that_monai_finds_without_importing():
    import monai.data

    assert all(hasattr(monai.data, name) for name in READERS | WRITERS)


def test_a_name_that_is_not_in_monais_table_is_never_looked_up():
    """The pydoc module would take it for a module or a builtin."""
    assert not any(map(is_allowed, ["eval", "antigravity", "", ".", "os.", "torch", "monai"]))


def test_overrides_are_walked():
    overrides = {"network_def#_target_": "os.system", "epochs": 3, "device": "cuda:0"}
    problems = inspect_bundle(BUNDLE, overrides)
    assert [(problem.file, problem.where) for problem in problems] == [
        ("--", "network_def#_target_")
    ]
    with pytest.raises(UntrustedBundleError, match="--trust_bundle True"):
        require_trusted(BUNDLE, overrides)


def test_trust_is_logged(caplog):
    require_trusted(BUNDLE, {"x": "$open('y')"}, trust=True)
    assert "is trusted in spite of 1 problems" in caplog.text


def test_a_changed_file_is_found_before_use(tmp_path):
    bundle = foreign_bundle(tmp_path / "b")
    write_hashes(bundle)
    assert inspect_bundle(bundle) == []
    (bundle / "configs" / "inference.yaml").write_text("epochs: 3\n")
    assert "was changed: sha256" in str(inspect_bundle(bundle)[0])


def test_no_bundle(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no bundle: it has no configs/\*.yaml"):
        inspect_bundle(tmp_path)


def test_python_behind_a_link_is_found(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "__init__.py").touch()
    bundle = foreign_bundle(tmp_path / "b")
    (bundle / "nibabel").symlink_to(tmp_path / "elsewhere")
    (bundle / "configs" / "round").symlink_to(bundle)
    assert [problem.file for problem in inspect_bundle(bundle)] == ["nibabel/__init__.py"]


def test_the_package_in_a_packed_bundle_is_known_byte_by_byte(tmp_path):
    bundle = foreign_bundle(tmp_path / "bundle")
    compiled = shutil.ignore_patterns("*.pyc")
    package = Path(mrn_components.__file__).parent
    copy = shutil.copytree(package, bundle / "mrn_components", ignore=compiled)
    assert inspect_bundle(bundle) == []
    with (copy / "images" / "labels.py").open("a") as file:
        file.write("import os\n")
    (copy / "os.py").touch()
    files = [problem.file for problem in inspect_bundle(bundle)]
    assert sorted(files) == ["mrn_components/images/labels.py", "mrn_components/os.py"]


def zipped(path, members, **options):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as file:
        for name, text in members.items():
            file.writestr(name, text)
    return path


def test_a_zip_file_is_inspected_like_its_folder(tmp_path):
    good = {"b/configs/inference.json": '{"x": {"_target_": "UNet"}}'}
    assert inspect_bundle(zipped(tmp_path / "good.zip", good)) == []
    bad = {"b/configs/inference.json": '{"x": {"_target_": "os.system"}}'}
    (problem,) = inspect_bundle(zipped(tmp_path / "bad.zip", bad))
    assert (problem.file, problem.where) == ("configs/inference.json", "x#_target_")
    with pytest.raises(FileNotFoundError, match=r"empty.zip is no bundle"):
        inspect_bundle(zipped(tmp_path / "empty.zip", {"a.txt": ""}))


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/../../x", "a\\..\\x", "C:x"], ids=lambda name: repr(name)
)
def test_paths_out_of_a_zip_file_are_refused(name, tmp_path):
    (problem,) = inspect_bundle(zipped(tmp_path / "b.zip", {name: "x"}))
    assert "leads out of the archive" in str(problem)
    assert [path.name for path in tmp_path.rglob("*")] == ["b.zip"]


def test_links_and_twins_in_a_zip_file_are_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
        file.writestr("a", "x")
        file.writestr("A", "y")
    texts = " ".join(str(problem) for problem in inspect_bundle(tmp_path / "b.zip"))
    assert "'link' is a link or a device" in texts
    assert "two members have one name" in texts


def test_a_zip_file_that_grows_too_large_is_refused(tmp_path, monkeypatch):
    bomb = zipped(tmp_path / "b.zip", {"a": "0" * 10_000_000})
    monkeypatch.setattr(archive, "_SMALL", 1000)
    assert "more than 100-fold" in str(inspect_bundle(bomb)[0])
    monkeypatch.setattr(archive, "MOST_BYTES", 1000)
    assert "would unpack to 10,000,000 bytes" in str(inspect_bundle(bomb)[0])
    monkeypatch.setattr(archive, "MOST_MEMBERS", 0)
    assert "it has 1 members" in str(inspect_bundle(bomb)[0])
    (tmp_path / "no.zip").write_text("no")
    assert "it is no zip file" in str(inspect_bundle(tmp_path / "no.zip")[0])
