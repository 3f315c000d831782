"""Foreign bundles: nothing of theirs runs, and everything of ours passes."""

import contextlib
import copy
import json
import os
import shutil
import socket
import stat
import time
import warnings
import zipfile
from pathlib import Path

import monai.transforms
import pytest
from attacks import BUNDLE, CHANGES, FILES, RUNNING, STATIC, changed_bundle, foreign_bundle, planted
from monai.bundle import ComponentLocator, ConfigParser
from tiny_run import make_datalist, make_run
from tiny_segmentation import make_plan, make_segmentation_bundle

import mrn_components
from mrn_components.app.ensemble import save_ensemble
from mrn_components.app.inspect import archive, inspect_bundle, open_bundle
from mrn_components.app.inspect.compare import compare
from mrn_components.app.inspect.vocabulary import _PARTS
from mrn_components.app.mask_makers import NucleiSegmenter
from mrn_components.app.predict import inference_workflow, predict
from mrn_components.bundle import RunArguments, inference_config
from mrn_components.system.errors import UntrustedBundleError
from mrn_components.system.hashes import write_hashes

BUNDLES = sorted(path for path in BUNDLE.parent.iterdir() if (path / "configs").is_dir())


def refused(bundle):
    return [found for found in inspect_bundle(bundle) if found.effect == "refused"]


def build_by_monai(config, identity, locator=ComponentLocator()):  # noqa: B008  scanned once
    """What MONAI would do with the config; raises what it raises."""
    parser = ConfigParser(config)
    parser.locator = locator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parser.get_parsed_content(identity)


# ---- attacks


def check_refused(bundle, trace, data="nowhere"):
    """No verb takes the bundle, and none leaves a trace."""
    assert refused(bundle)
    with pytest.raises(UntrustedBundleError, match="nothing of it was run"):
        inference_workflow(str(data), str(trace.parent / "out"), bundle=str(bundle))
    with pytest.raises(UntrustedBundleError, match="nothing of it was run"):
        NucleiSegmenter(str(bundle), "qsm")
    assert not trace.exists()


@pytest.mark.parametrize("name", RUNNING)
def test_an_attack_is_found_and_leaves_no_trace(name, tmp_path):
    trace = tmp_path / "trace"
    config, identity = planted(RUNNING[name], trace)
    check_refused(changed_bundle(tmp_path / "b", config), trace)
    if identity is not None:  # the attack is one: MONAI itself falls for it
        with contextlib.suppress(Exception):  # after the fact
            build_by_monai(config, identity)
        assert trace.exists()


@pytest.mark.parametrize("name", STATIC)
def test_a_danger_is_found(name, tmp_path):
    check_refused(changed_bundle(tmp_path / "b", STATIC[name]), tmp_path / "trace")


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_that_is_no_data_is_found(name, tmp_path):
    changes = CHANGES[name]
    if name not in ("no number", "a number without end"):  # which JSON's writer would change
        changes = planted(changes, tmp_path / "trace")
    bundle = changed_bundle(tmp_path / "b", changes)
    check_refused(bundle, tmp_path / "trace")
    keys = {found.where.split("#")[0] for found in refused(bundle)}
    assert keys & {*changes} or keys == {""}


def test_a_name_that_a_bundle_brings_leads_to_no_part(tmp_path):
    for value in ("@evaluator", {"_target_": "mrn_components.MRN"}):
        bundle = changed_bundle(tmp_path / "b", {"x": value, "network_def": "@x"})
        assert {found.where for found in refused(bundle)} == {"network_def"}


@pytest.mark.parametrize("kind", ["seres10", "segmentation"])
def test_a_change_of_another_bundle_is_found(kind, tmp_path):
    bundle = changed_bundle(tmp_path / "b", {"precision": "$print()"}, name=kind)
    check_refused(bundle, tmp_path / "trace")


@pytest.mark.parametrize("name", FILES)
def test_a_dangerous_file_is_found(name, tmp_path):
    trace = tmp_path / "trace"
    file, text = planted(FILES[name], trace)
    bundle = foreign_bundle(tmp_path / "b", **{file: text})
    assert {found.file for found in inspect_bundle(bundle)} == {file}
    assert not trace.exists()


def test_a_config_of_training_does_not_keep_from_predicting(tmp_path):
    """Prediction does not read it, and who trains from it is warned."""
    train = json.dumps({"loss": {"_target_": "my_lab.Loss"}, "x": "$print()", "lr": 0.1})
    bundle = foreign_bundle(tmp_path / "b", **{"configs/train.json": train})
    found = inspect_bundle(bundle)
    assert [(each.where, each.effect) for each in found] == [
        ("loss#_target_", "not predicted with"),
        ("x", "not predicted with"),
    ]
    assert open_bundle(bundle, {})[0] == BUNDLE / "configs" / "inference.yaml"


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan["architecture"].update(network_class_name="subprocess.Popen"),
        lambda plan: plan["architecture"].update(
            network_class_name="dynamic_network_architectures.architectures.abstract_arch.os.system"
        ),
        lambda plan: plan["architecture"].update(_kw_requires_import=["n_stages"]),
        lambda plan: plan["architecture"]["arch_kwargs"].update(nonlin="torch.nn.Module"),
        lambda plan: plan["normalization"].update(scheme="ImageNormalization"),
        lambda plan: plan.update(folds="many"),
        lambda plan: plan.update(labels=10**9),
        lambda plan: plan.update(architecture=[]),
        lambda plan: plan.pop("spacing_mm"),
    ],
)
def test_a_plan_is_data(change, tmp_path):
    bundle = make_segmentation_bundle(tmp_path / "b")
    plan = make_plan()
    change(plan)
    (bundle / "configs" / "plan_qsm.json").write_text(json.dumps(plan))
    check_refused(bundle, tmp_path / "trace")


# ---- odd files


def fifo(path):
    os.mkfifo(path)


def unix_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def endless(path):
    path.symlink_to("/dev/zero")


def loop(path):
    path.symlink_to(path.name)


def folder(path):
    path.mkdir()


def binary(path):
    path.write_bytes(b"\xff\xfe\x00{")


def deep(path):
    path.write_text('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}")


def large(path):
    with path.open("wb") as file:
        file.truncate(2**33)


def twice(path):
    path.write_text('{"a": 1, "a": 2}')


def merged(path):
    lines = [f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 40)]
    path.write_text("\n".join(["a0: &a0 {x: 1}", *lines]))


ODD = [fifo, unix_socket, endless, loop, folder, binary, deep, large, twice]


@pytest.mark.parametrize("make", [*ODD, merged], ids=lambda make: make.__name__)
@pytest.mark.parametrize(
    "name", ["configs/inference.json", "configs/a.yaml", "configs/plan_qsm.json", "models/model.pt"]
)
def test_odd_files_are_named_and_never_waited_for(make, name, tmp_path, monkeypatch):
    bundle = foreign_bundle(tmp_path / "b", **{"models/x": ""})
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    make(Path("b", name))
    start = time.monotonic()
    assert name in {found.file for found in inspect_bundle("b")}
    assert time.monotonic() - start < 20
    Path("b", "elsewhere").mkdir()
    for kind in (fifo, unix_socket, loop):  # nobody reads them there
        kind(Path("b", "elsewhere", kind.__name__))
    assert {found.file for found in inspect_bundle(bundle)} == {name}


# ---- what passes


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_the_bundles_of_this_repository_pass(bundle):
    assert inspect_bundle(bundle) == []
    file = bundle / "configs" / "inference.yaml"
    assert open_bundle(bundle, {}) == (file, {"bundle_root": str(bundle)})


def ids(node, where=""):
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        yield (inner := f"{where}#{key}".lstrip("#"))
        if isinstance(value, dict | list):
            yield from ids(value, inner)


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
@pytest.mark.parametrize("code", ["$print()", "%/etc/passwd", {"_target_": "os.system"}], ids=str)
def test_code_at_any_place_of_a_config_is_found(bundle, code):
    ours = ConfigParser.load_config_file(str(bundle / "configs" / "inference.yaml"))
    for where in ids(ours):
        parser = ConfigParser(copy.deepcopy(ours))
        parser[where] = code
        result = compare(parser.get(), ours)
        assert "refused" in [effect for *_, effect in result.found], where
        assert "print" not in str(result.settings), where


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_a_run_of_a_bundle_passes(bundle):
    """What a training writes as its inference config, with what training alone knows left out."""
    configs = [str(bundle / "configs" / f"{name}.yaml") for name in ("train", "inference")]
    train, ours = map(ConfigParser.load_config_file, configs)
    assert compare(inference_config(train, bundle), ours).found == []


@pytest.mark.parametrize("overlay", ["small", "frozen"])
def test_a_training_config_with_an_overlay_passes(tmp_path, overlay):
    bundle = foreign_bundle(tmp_path / "b")
    configs = next(path for path in BUNDLES if path.name == "mrn") / "configs"
    train = RunArguments((configs / "train.yaml", configs / f"{overlay}.yaml")).merged()
    (bundle / "configs" / "train.json").write_text(json.dumps(train))
    assert inspect_bundle(bundle) == []


def test_a_clean_copy_passes(tmp_path):
    bundle = foreign_bundle(tmp_path / "b")
    assert inspect_bundle(bundle) == []
    open_bundle(bundle, {})


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"image_size": 56, "precision": "fp32", "tta": True, "masked_rois": ["nm"]}, "mrn"),
        (
            {"rois": {"mid": {"_target_": "mrn_components.ROI", "image": "qsm", "nuclei": []}}},
            "mrn",
        ),
        ({"dataset_dir": "/data/x", "labels": "../l.csv", "device": "cuda:1"}, "mrn"),
        (
            {
                "network_def": {
                    "_target_": "mrn_components.MRN",
                    "rois": "@rois",
                    "encoder": {
                        "_target_": "mrn_components.VolumeViT",
                        "weights": "@encoder_weights",
                    },
                    "dropout": 0.1,
                }
            },
            "seres10",
        ),
        ({"precision": "fp32", "image": "nm"}, "segmentation"),
        ({"size": 28, "rois": {"nm": {"_target_": "mrn_components.ROI", "size": "@size"}}}, "mrn"),
    ],
)
def test_data_pass_and_count(changes, kind, tmp_path):
    bundle = changed_bundle(tmp_path / "b", changes, name=kind)
    assert inspect_bundle(bundle) == []
    file, settings = open_bundle(bundle, {})
    assert file == BUNDLE.parent / kind / "configs" / "inference.yaml"
    users = {"dataset_dir", "labels", "device"}
    assert settings == {k: v for k, v in changes.items() if k not in users} | {
        "bundle_root": str(bundle)
    }


def test_data_of_a_bundle_do_not_stay_for_the_next(tmp_path):
    changed = changed_bundle(tmp_path / "b", {"image_size": 56, "rois": {}})
    open_bundle(changed, {"rois": {"x": {"_target_": "mrn_components.ROI", "image": "@images#nm"}}})
    assert open_bundle(BUNDLE, {})[1] == {"bundle_root": str(BUNDLE)}


def test_wiring_of_another_version_gives_way_to_ours(tmp_path):
    """Order and company of known parts: prediction takes ours, and says so."""
    ours = ConfigParser.load_config_file(str(BUNDLE / "configs" / "inference.yaml"))
    guards = {name: part for name, part in ours["guards"].items() if name != "faults"}
    changes = {"guards": guards, "note": "a word", "run": [], "handlers": ["a word"]}
    bundle = changed_bundle(tmp_path / "b", changes)
    found = inspect_bundle(bundle)
    assert {each.effect for each in found} == {"ours is used"}
    assert {each.where for each in found} == set(changes)
    assert open_bundle(bundle, {})[1] == {"bundle_root": str(bundle)}


def test_runs_and_ensembles_pass_and_predict_as_by_their_own_config(cohort, tmp_path):
    runs = [make_run(tmp_path / f"run{seed}", seed=seed) for seed in (0, 1)]
    data = make_datalist(cohort, tmp_path / "data.json", count=1)
    for bundle in (runs[0], save_ensemble(runs, tmp_path / "ensemble")):
        assert inspect_bundle(bundle) == []
        tables = [
            predict(
                data, tmp_path / f"{bundle.name}{trust}", bundle=str(bundle), trust_bundle=trust
            )
            for trust in (False, True)
        ]
        assert tables[0].read_bytes() == tables[1].read_bytes()


def test_a_bundle_is_compared_with_the_nearest_where_it_has_no_name(tmp_path):
    for kind in ("mrn", "seres10", "segmentation"):
        bundle = changed_bundle(tmp_path / kind, {"bundle_root": "."}, name=kind)
        assert inspect_bundle(bundle) == []
        assert open_bundle(bundle, {})[0].parents[1].name == kind


def test_the_harmless_parts_are_components_of_ours_or_transforms_of_monai():
    for target in _PARTS:
        module, _, name = f"monai.transforms.{target}".rpartition("monai.transforms.")[
            2
        ].rpartition(".")
        owner = mrn_components if module == "mrn_components" else monai.transforms
        assert hasattr(owner, name), target


def test_overrides_are_walked():
    overrides = {"network_def#_target_": "os.system", "image_size": 3, "device": "cuda:0"}
    with pytest.raises(UntrustedBundleError, match=r"--: network_def#_target_: .os.system.: no"):
        open_bundle(BUNDLE, overrides)
    for key, value in {
        "precision": "$print()",
        "preprocessing#transforms#1": {"_target_": "LoadImaged", "keys": "nm"},
        "network_def#res#sfa": {"_target_": "my_lab.Pool"},
    }.items():
        with pytest.raises(UntrustedBundleError, match=rf"(?s)--: {key}.*--trust_bundle True"):
            open_bundle(BUNDLE, {key: value})


@pytest.mark.parametrize("tree", ["network_def", "rois", "preprocessing"])
def test_overrides_of_what_a_bundle_brings_are_walked(tree, tmp_path):
    """The bundle's own tree is not changed by the override that it is compared with."""
    theirs = ConfigParser.load_config_file(str(BUNDLE / "configs" / "inference.yaml"))[tree]
    bundle = changed_bundle(tmp_path / "b", {tree: {**theirs, "_disabled_": False}})
    key = "rois#nm#_target_" if tree == "rois" else f"{tree}#_target_"
    with pytest.raises(UntrustedBundleError, match=f"--: {key}: 'os.system': no part"):
        open_bundle(bundle, {key: "os.system"})


def test_the_user_names_files_and_settings(tmp_path):
    overrides = {"ckpt_path": "/tmp/x.pt", "cache_dir": str(tmp_path), "encoder_weights": "/x.pth"}
    overrides |= {"network_def#dropout": 0.1, "rois#qsm3#_disabled_": True}
    overrides["rois#mid"] = {"_target_": "mrn_components.ROI", "image": "qsm", "nuclei": ["SN"]}
    _, settings = open_bundle(BUNDLE, overrides)
    assert settings == {"bundle_root": str(BUNDLE), **overrides}
    with pytest.raises(ValueError, match="precision"):
        open_bundle(BUNDLE, {"precisoin": "fp32"})


def test_trust_is_logged_and_takes_the_bundles_own_config(tmp_path, caplog):
    bundle = changed_bundle(tmp_path / "b", {"precision": "$'fp' + '32'"})
    for trust in (False, "true", "false", 1):  # of the command line comes True
        with pytest.raises(UntrustedBundleError):
            open_bundle(bundle, {}, trust)
    file, settings = open_bundle(bundle, {"tta": True}, trust=True)
    assert file == bundle / "configs" / "inference.json"
    assert settings == {"bundle_root": str(bundle), "tta": True}
    assert "is trusted in spite of 1 differences" in caplog.text


def test_a_changed_file_is_found_before_use(tmp_path):
    bundle = foreign_bundle(tmp_path / "b")
    write_hashes(bundle)
    assert inspect_bundle(bundle) == []
    (bundle / "configs" / "inference.yaml").write_text("epochs: 3\n")
    assert "was changed: sha256" in str(inspect_bundle(bundle)[-1])


def test_no_bundle(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no bundle: it has no configs/inference\.yaml"):
        inspect_bundle(tmp_path)


def test_python_behind_a_link_is_found(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "__init__.py").touch()
    bundle = foreign_bundle(tmp_path / "b")
    (bundle / "nibabel").symlink_to(tmp_path / "elsewhere")
    (bundle / "configs" / "round").symlink_to(bundle)
    assert [found.file for found in inspect_bundle(bundle)] == ["nibabel/__init__.py"]


def test_the_package_in_a_packed_bundle_is_known_byte_by_byte(tmp_path):
    bundle = foreign_bundle(tmp_path / "bundle")
    compiled = shutil.ignore_patterns("*.pyc")
    package = Path(mrn_components.__file__).parent
    copy = shutil.copytree(package, bundle / "mrn_components", ignore=compiled)
    assert inspect_bundle(bundle) == []
    template = next(path for path in copy.rglob("*.html*"))
    for file in (copy / "images" / "boxes.py", template, copy / "py.typed"):
        with file.open("a") as opened:
            opened.write("import os\n")
    for name in ("os.py", "new.yaml"):
        (copy / name).touch()
    names = {"images/boxes.py", template.relative_to(copy).as_posix(), "py.typed"}
    found = {difference.file for difference in refused(bundle)}
    assert found == {f"mrn_components/{name}" for name in {*names, "os.py", "new.yaml"}}


def zipped(path, members, **options):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as file:
        for name, text in members.items():
            file.writestr(name, text)
    return path


def test_a_zip_file_is_inspected_like_its_folder(tmp_path):
    ours = (BUNDLE / "configs" / "inference.yaml").read_text()
    good = {"b/configs/inference.yaml": ours}
    assert inspect_bundle(zipped(tmp_path / "good.zip", good)) == []
    bad = {"b/configs/inference.yaml": f"{ours}x: {{_target_: os.system}}"}
    (found,) = inspect_bundle(zipped(tmp_path / "bad.zip", bad))
    assert (found.file, found.where) == ("configs/inference.yaml", "x#_target_")
    with pytest.raises(FileNotFoundError, match=r"empty.zip is no bundle"):
        inspect_bundle(zipped(tmp_path / "empty.zip", {"b/a.txt": ""}))


@pytest.mark.parametrize("other", ["c/configs/inference.yaml", "nibabel.py", "__MACOSX/x"])
def test_a_zip_file_with_more_than_one_bundle_is_refused(other, tmp_path):
    ours = (BUNDLE / "configs" / "inference.yaml").read_text()
    members = {"b/configs/inference.yaml": ours, other: "$print()"}
    (found,) = inspect_bundle(zipped(tmp_path / "b.zip", members))
    assert "everything must lie in one folder" in str(found)


def test_a_damaged_zip_file_is_named(tmp_path):
    path = zipped(tmp_path / "b.zip", {"b/configs/inference.yaml": "x" * 1000})
    content = bytearray(path.read_bytes())
    content[40:60] = bytes(20)
    path.write_bytes(content)
    (found,) = inspect_bundle(path)
    assert "cannot be unpacked" in str(found)
    clash = zipped(tmp_path / "c.zip", {"b/configs": "x", "b/configs/inference.yaml": "x"})
    assert "cannot be unpacked" in str(inspect_bundle(clash)[0])


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/../../x", "a\\..\\x", "C:x"], ids=lambda name: repr(name)
)
def test_paths_out_of_a_zip_file_are_refused(name, tmp_path):
    (found,) = inspect_bundle(zipped(tmp_path / "b.zip", {name: "x"}))
    assert "leads out of the archive" in str(found)
    assert [path.name for path in tmp_path.rglob("*")] == ["b.zip"]


def test_links_and_twins_in_a_zip_file_are_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
        file.writestr("a", "x")
        file.writestr("A", "y")
    texts = " ".join(str(found) for found in inspect_bundle(tmp_path / "b.zip"))
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
