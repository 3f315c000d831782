"""Every config of every bundle: what can be known without building it, then building it."""

import inspect
import re
import sys
import warnings
from pathlib import Path
from pydoc import locate

import pytest
import yaml
from monai.bundle import ComponentLocator, ConfigParser, ConfigWorkflow
from tiny_bundles import NETWORKS

import mrn_components
from mrn_components.bundle import check_run
from mrn_components.images.image import CHALLENGE_IMAGES

BUNDLES = Path(__file__).parent.parent.parent / "bundles"
COMPLETE = sorted(BUNDLES.glob("*/configs/train.yaml")) + sorted(
    BUNDLES.glob("*/configs/inference.yaml")
)
OVERLAYS = {
    "small": "train",
    "frozen": "train",
    "light": "train",
    "strong": "train",
    "multi_gpu_train": "train",
    "m3d_clip": "train",
    "evaluate": "inference",
    "multi_gpu_evaluate": "inference",
    "ensemble": "inference",
}
CONFIGS = sorted(BUNDLES.glob("*/configs/*.yaml"))


def walk(config, path=""):
    """Every (id, value) of a nested config."""
    yield path, config
    if isinstance(config, dict | list):
        children = config.items() if isinstance(config, dict) else enumerate(config)
        for key, value in children:
            yield from walk(value, f"{path}#{key}" if path else str(key))


def name_of(path):
    return f"{path.parent.parent.name}/{path.stem}"


def target_of(name, locator=ComponentLocator()):  # noqa: B008  one scan of MONAI serves all
    module = locator.get_component_module_name(name)
    return locate(f"{module}.{name}") if module else locate(name)


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_targets_exist_and_take_their_arguments(path):
    for where, config in walk(yaml.safe_load(path.read_text())):
        if not isinstance(config, dict) or "_target_" not in config:
            continue
        target = target_of(config["_target_"])
        assert target is not None, f"{where}: {config['_target_']}"
        if config["_target_"].startswith("mrn_components."):
            assert config["_target_"].split(".")[1] in mrn_components.__all__
        parameters = inspect.signature(target).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            given = {key for key in config if not key.startswith("_")}
            assert given <= set(parameters), f"{where}: {given - set(parameters)}"


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_configs_keep_to_what_works_everywhere(path):
    text = path.read_text()
    assert "<<:" not in text
    assert "lambda" not in text
    for where, value in walk(yaml.safe_load(text)):
        if isinstance(value, str):
            assert not value.startswith("%"), f"{where}: a file macro dies when the bundle moves"
            assert not re.match(r"^(/|[A-Z]:)", value), f"{where}: an absolute path"
            assert not re.match(r"^[0-9.]+e[-+]?[0-9]+$", value), f"{where}: a string, not a number"
            assert not re.search(r"#\d", value), f"{where}: a position in a list"


@pytest.mark.parametrize("path", [p for p in CONFIGS if p.stem in OVERLAYS], ids=name_of)
def test_overlays_name_keys_of_their_base(path, monkeypatch):
    base = path.with_name(f"{OVERLAYS[path.stem]}.yaml")
    program = "site-packages/monai/bundle/__main__.py"
    monkeypatch.setattr(sys, "argv", [program, "run", "--config_file", f"['{base}','{path}']"])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # check_run replaces it
    check_run()
    sys.argv += ["--lerning_rate", "3"]
    with pytest.raises(ValueError, match="--lerning_rate: the config has no 'lerning_rate'"):
        check_run()


@pytest.mark.parametrize("path", COMPLETE, ids=name_of)
def test_the_images_are_the_challenges(path):
    """What runs without a bundle takes the same images as what runs with one."""
    images = ConfigParser(ConfigParser.load_config_file(str(path))).get_parsed_content("images")
    assert images == CHALLENGE_IMAGES


def test_every_config_is_complete_or_a_known_overlay():
    assert {p.stem for p in CONFIGS} == {"train", "inference", *OVERLAYS}


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_no_key_stands_twice(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ConfigParser.load_config_file(str(path))


@pytest.mark.parametrize("bundle", sorted({p.parent.parent for p in CONFIGS}), ids=lambda p: p.name)
def test_every_bundle_has_the_same_files(bundle):
    mrn = BUNDLES / "mrn"
    files = {p.relative_to(mrn) for part in ("configs", "docs") for p in (mrn / part).iterdir()}
    for recipe in ("frozen", "light", "strong"):  # for MRN's network alone
        files.remove(Path("configs", f"{recipe}.yaml"))
    if bundle.name == "segmentation":  # nnU-Net has its own folds, ensembles and processes
        files = {file for file in files if file.name[:5] not in ("ensem", "evalu", "multi")}
        files |= {Path("configs", f"plan_{image}.json") for image in ("nm", "qsm")}
    assert [str(file) for file in files | {Path("LICENSE")} if not (bundle / file).is_file()] == []


@pytest.mark.parametrize("path", COMPLETE, ids=name_of)
def test_the_property_check_of_monai_is_content(path, cohort, tmp_path):
    kind = "train" if path.stem == "train" else "infer"
    workflow = ConfigWorkflow(
        str(path),
        workflow_type=kind,
        logging_file=False,
        dataset_dir=str(cohort),
        output_dir=str(tmp_path),
        bundle_root=str(tmp_path),
        encoder_weights="none",
        **NETWORKS[path.parent.parent.name],
        ckpt_path=__file__,
    )
    workflow.initialize()
    workflow.initialize()  # federated learning clients do it twice
    assert workflow.check_properties() == []
