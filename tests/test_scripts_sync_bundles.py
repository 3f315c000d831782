"""The blocks that configs share, and the script that keeps them equal."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "sync_bundles.py"
COMPLETE = [
    p for kind in ("train", "inference") for p in ROOT.glob(f"bundles/*/configs/{kind}.yaml")
]
SHARED = {
    "train": {"rois", "data", "preprocessing", "augmentation", "metrics"},
    "inference": {"rois", "preprocessing"},
}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("sync_bundles", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bundles(tmp_path):
    """Two bundles that share a block."""
    block = "# >>> shared: rois\nrois: {a: 1}\n# <<< shared\n"
    for name, kinds in {"mrn": ("train", "inference"), "other": ("train",)}.items():
        (tmp_path / name / "configs").mkdir(parents=True)
        for kind in kinds:
            (tmp_path / name / "configs" / f"{kind}.yaml").write_text(f"x: {name}\n{block}y: 2\n")
    return tmp_path


def test_shared_blocks_are_equal():
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0)


@pytest.mark.parametrize("path", COMPLETE, ids=lambda p: f"{p.parent.parent.name}/{p.stem}")
def test_complete_configs_have_the_shared_blocks(path, script):
    shared = SHARED[path.stem]
    if path.parent.parent.name == "segmentation":  # whole images, which nnU-Net augments itself
        shared &= {"data"}
    assert shared <= script.blocks(path.read_text()).keys()


def test_a_changed_block_is_named_and_then_copied(script, bundles):
    other = bundles / "other" / "configs" / "train.yaml"
    whole = other.read_text()
    other.write_text(whole.replace("a: 1", "a: 3"))
    assert script.sync(bundles, check=True) == ["other/configs/train.yaml: rois"]
    assert "a: 3" in other.read_text()
    assert script.sync(bundles, check=False) == ["other/configs/train.yaml: rois"]
    assert other.read_text() == whole
    assert script.sync(bundles, check=True) == []


def test_a_block_that_mrn_lacks_is_refused(script, bundles):
    other = bundles / "other" / "configs" / "train.yaml"
    other.write_text("# >>> shared: mine\nx: 1\n# <<< shared\n")
    with pytest.raises(ValueError, match=r"blocks \['mine'\] stand in no config of bundles/mrn"):
        script.sync(bundles, check=False)


def test_check_fails_on_a_difference(tmp_path):
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPT, tmp_path / "scripts")
    for path in COMPLETE:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    config = tmp_path / "bundles" / "seres10" / "configs" / "train.yaml"
    config.write_text(config.read_text().replace("nuclei: [DN]", "nuclei: [RN]"))
    command = [sys.executable, tmp_path / "scripts" / SCRIPT.name, "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "seres10/configs/train.yaml: rois differs from bundles/mrn",
        "Run python scripts/sync_bundles.py.",
    ]
