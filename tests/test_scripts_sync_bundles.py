"""The blocks that configs share, and the script that keeps them equal."""

import importlib.util
import itertools
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "sync_bundles.py"
# Lines that two configs have in common outside of the shared blocks, and why.
EQUAL = {
    r"network: \$@network_def\.to\(@device\)": "ends the network, which is each bundle's own",
    r"mask_channels: .*|encoder: .*SERes10.*": "of one bundle, whose other block has them too",
    r"bundle_root: .*": "names the bundle",
    r"name: vit_base.*|[fs]fa: .*": "inference leaves parts of the network out; see test_paper.py",
    r"encoder_weights: none|dropout: 0\.5": "a choice that two networks happen to share",
    r"handlers#msupmoco#_disabled_: true|pretrain_epochs: 0": "overlays without contrast",
    r"(betas|fused): .*": "ends the optimiser, whose groups are each network's own",
    r"dataset_dir: data/phantom": "of nuclei: its train and inference want other things beside it",
    r"image: qsm|plan: .*|inferer: .*NucleiRegionInferer.*": "of one bundle, which nnU-Net trains",
    r"images: .*select_image.*": "the one image of a bundle, in train and inference",
}
# Lines that only hand on: a reference, or a component without arguments of its own.
WIRING = re.compile(r'[\w#]+:|[\w#]+: "@[\w#]+"|_target_: [\w.]+')


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


def test_a_block_may_stand_in_an_overlay(script, bundles):
    for name, text in {"mrn": "x: 1", "other": "x: 2"}.items():
        overlay = bundles / name / "configs" / "small.yaml"
        overlay.write_text(f"# >>> shared: small\n{text}\n# <<< shared\n")
    assert script.sync(bundles, check=False) == ["other/configs/small.yaml: small"]
    assert "x: 1" in (bundles / "other" / "configs" / "small.yaml").read_text()


def test_shared_blocks_are_equal():
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0)


def own_lines(script, path):
    """The lines of a config outside of its shared blocks, without comments and wiring."""
    text = path.read_text()
    for block in script.blocks(text).values():
        text = text.replace(block, "")
    lines = (re.sub(r"(^|  )#.*", "", line).strip() for line in text.splitlines())
    return {line for line in lines if line and not WIRING.fullmatch(line)}


def pairs():
    """Configs that could share a block: of two bundles, and what trains and infers in one."""
    paths = sorted(ROOT.glob("bundles/*/configs/*.yaml"))
    for one, other in itertools.combinations(paths, 2):
        if one.parent != other.parent or {one.stem, other.stem} == {"train", "inference"}:
            yield one, other


def test_what_is_equal_is_shared_or_has_a_reason(script):
    equal = {}
    for one, other in pairs():
        for line in own_lines(script, one) & own_lines(script, other):
            if not any(re.fullmatch(pattern, line) for pattern in EQUAL):
                equal.setdefault(line, set()).update({str(one), str(other)})
    assert equal == {}


def test_every_reason_is_needed(script):
    lines = set().union(*(own_lines(script, a) & own_lines(script, b) for a, b in pairs()))
    for pattern in EQUAL:
        assert any(re.fullmatch(pattern, line) for line in lines), pattern


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
    for path in ROOT.glob("bundles/*/configs/*.yaml"):
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
