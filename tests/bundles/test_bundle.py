"""The run's own arguments, the check of keys, and the messages users get."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from monai.bundle import ConfigWorkflow

from mrn_components.bundle import (
    bundle_config,
    check_key,
    check_run,
    inference_config,
    locate_bundle,
    run_arguments,
    save_run,
    start_run,
)
from mrn_components.system.errors import user_message
from mrn_components.system.files import existing_file

BUNDLES = Path(__file__).parents[2] / "bundles"
CONFIG = {
    "epochs": 600,
    "resume": False,
    "dataset_dir": "here",
    "rois": {"nm": {"_target_": "mrn_components.ROI", "image": "nm", "nuclei": ["SN"]}},
    "loss": {"_target_": "mrn_components.MRNLoss", "cls_weight": 1.0},
    "network_def": {
        "_target_": "mrn_components.MRN",
        "rois": "@rois",
        "res": {"_target_": "mrn_components.RES", "dpt": {"_target_": "mrn_components.DPTHead"}},
    },
    "train": {
        "checkpoint": {"training_only": ["res.dpt", "nothing.here"]},
        "dataloader": {"_target_": "DataLoader"},
    },
    "steps": ["a", "b"],
}
INFERENCE_NETWORK = {"_target_": "mrn_components.MRN", "masked_rois": "@masked_rois"}


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """A bundle on disk and a command line that runs it."""
    configs = tmp_path / "tiny" / "configs"
    configs.mkdir(parents=True)
    (configs / "metadata.json").write_text("{}")
    (configs / "train.yaml").write_text(yaml.safe_dump(CONFIG))
    (configs / "inference.yaml").write_text(
        yaml.safe_dump({"ckpt_path": "x", "network_def": INFERENCE_NETWORK, "rois": {}})
    )

    def command_line(*arguments):
        program = "site-packages/monai/bundle/__main__.py"
        monkeypatch.setattr(
            sys,
            "argv",
            [program, "run", "--config_file", str(configs / "train.yaml"), *arguments],
        )
        return configs.parent

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # check_run replaces it
    command_line()
    return command_line


def test_run_arguments_reads_what_monai_was_given(bundle):
    root = bundle("--epochs", "3", "--rois#nm#_disabled_", "True")
    arguments = run_arguments()
    assert arguments.bundle_root == root
    assert arguments.overrides == {"epochs": 3, "rois#nm#_disabled_": True}
    merged = arguments.merged()
    assert merged["epochs"] == 3
    assert merged["rois"]["nm"]["_disabled_"] is True


def test_run_arguments_is_none_elsewhere(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pytest", "run"])
    assert run_arguments() is None
    check_run()
    save_run(output_dir="nowhere")


def test_several_config_files(bundle, tmp_path):
    root = bundle()
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("epochs: 7\n")
    sys.argv[3] = f"['{root / 'configs' / 'train.yaml'}','{overlay}']"
    assert run_arguments().merged()["epochs"] == 7
    check_run()
    sys.argv[3] = f"['{root / 'configs' / 'train.yaml'}','{overlay}','{overlay}']"
    for number in (0, 1):  # every key, of every overlay
        text = ["epochs: 7\n", "epoch: 7\n", "loss#cls_weight: 2.0\n"]
        text = text if number else [text[1], text[0], text[2]]
        overlay.write_text("".join(text))
        with pytest.raises(ValueError, match=r"overlay.yaml:epoch: .*Did you mean epochs\?"):
            check_run()


def test_an_overlay_may_bring_what_another_key_reads(bundle, tmp_path):
    root = bundle()
    overlay, last = tmp_path / "overlay.yaml", tmp_path / "last.yaml"
    sys.argv[3] = f"['{root / 'configs' / 'train.yaml'}','{overlay}','{last}']"
    overlay.write_text(
        "train#sampler: {_target_: MySampler}\ntrain#dataloader#sampler: '@train#sampler'\n"
        "width: 3\nfinalize: ['$1']\nimports: ['$import math']\nmine: ['$2']\n"
    )
    last.write_text("network_def#res#dpt#fusion_channels: $2 * @width\n")
    sys.argv += ["--run_id", "mine"]
    check_run()
    last.write_text("network_def#res#dpt#fusion_channels: $2 * @widths\n")
    with pytest.raises(ValueError, match=r"overlay.yaml:width: the config has no 'width'"):
        check_run()


def test_start_run_sets_up_the_process_and_may_be_repeated(bundle, monkeypatch):
    threads = torch.get_num_threads()
    try:
        for _ in range(2):  # monai.bundle.load and federated clients begin twice
            start_run(seed=3, num_threads=1, fast_matmul=False)
            assert torch.get_num_threads() == 1
            assert torch.initial_seed() == 3
    finally:
        torch.set_num_threads(threads)
    bundle("--epoch", "3")
    with pytest.raises(ValueError, match=r"--epoch: .*Did you mean epochs\?"):
        start_run()


def test_start_run_joins_the_other_processes_once(bundle, monkeypatch):
    monkeypatch.setattr("mrn_components.bundle.idist.initialize", (joined := []).append)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: bool(joined))
    start_run(distributed=True)
    start_run(distributed=True)
    assert joined == ["nccl" if torch.cuda.is_available() else "gloo"]


ROOT = {"_target_": "mrn_components.locate_bundle", "name": "tiny"}


def make_bundle(folder, root=ROOT):
    """A folder whose configs say that they are of ``root``."""
    (folder / "configs").mkdir(parents=True)
    for kind in ("train", "inference"):
        (folder / "configs" / f"{kind}.json").write_text(json.dumps({"bundle_root": root}))
    return folder


def root_of(folder, kind="inference"):
    """The root that ``ConfigWorkflow`` gives a config."""
    workflow = ConfigWorkflow(str(folder / "configs" / f"{kind}.json"), meta_file=None)
    return Path(workflow.parser.get_parsed_content("bundle_root")).resolve()


def test_locate_bundle_prefers_the_config_that_runs(bundle, tmp_path, monkeypatch):
    root = bundle()
    make_bundle(tmp_path / "bundles" / "tiny")
    monkeypatch.chdir(tmp_path)
    assert locate_bundle(name="tiny") == str(root)
    monkeypatch.setattr(sys, "argv", ["pytest"])
    assert locate_bundle(name="tiny") == "bundles/tiny"


def test_a_bundle_is_found_from_its_folder_and_from_the_repository(tmp_path, monkeypatch):
    bundle = make_bundle(tmp_path / "bundles" / "tiny")
    for folder in (bundle, tmp_path):
        monkeypatch.chdir(folder)
        assert root_of(bundle) == bundle
    monkeypatch.chdir(tmp_path.parent)
    assert Path(locate_bundle(name="seres10")).resolve() == BUNDLES / "seres10"
    with pytest.raises(FileNotFoundError, match=r"tiny .*does not know its folder.*bundle_root=FO"):
        locate_bundle(name="tiny")


@pytest.fixture
def runs(bundle, tmp_path, monkeypatch):
    """Two runs of one bundle, as ``save_run`` leaves them, beside the bundle they came from."""
    root = bundle()
    for kind in ("train", "inference"):
        path = root / "configs" / f"{kind}.yaml"
        path.write_text(path.read_text() + yaml.safe_dump({"bundle_root": ROOT}))
    runs = [tmp_path / name for name in ("one", "two")]
    for run in runs:
        save_run(output_dir=str(run))
    monkeypatch.setattr(sys, "argv", ["pytest"])
    shutil.move(root, tmp_path / "bundles" / "tiny")
    return runs


@pytest.mark.parametrize("kind", ["train", "inference"])
def test_a_run_finds_its_own_folder_from_anywhere(runs, tmp_path, monkeypatch, kind):
    for folder in (tmp_path, tmp_path.parent, *runs, tmp_path / "bundles" / "tiny"):
        monkeypatch.chdir(folder)
        assert [root_of(run, kind) for run in runs] == runs


@pytest.mark.parametrize("change", [shutil.move, shutil.copytree])
def test_a_moved_run_is_found_from_its_folder_and_takes_no_other(
    runs, bundle, tmp_path, monkeypatch, change
):
    one, two = runs
    there = Path(change(one, tmp_path / "elsewhere" / "one"))
    monkeypatch.chdir(there)
    assert root_of(there) == there
    # The old place holds another run now, or the same one went on.
    monkeypatch.setattr(
        sys, "argv", ["monai/bundle/x", "run", "--config_file", f"{two}/configs/train.json"]
    )
    save_run(output_dir=str(one))
    monkeypatch.setattr(sys, "argv", ["pytest"])
    for folder in (tmp_path, one, two, tmp_path / "bundles" / "tiny"):
        monkeypatch.chdir(folder)
        with pytest.raises(RuntimeError) as caught:
            root_of(there)
        assert "Name the folder that holds its configs" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    "key",
    [
        "epochs",
        "rois#nm#_disabled_",
        "rois#mine",
        "rois::nm::margin_mm",
        "+rois",
        "network_def#res#dpt#features",
        "loss#seg_weight",
        "steps#1",
    ],
)
def test_known_keys_pass(key):
    check_key(key, CONFIG, source="--")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("epoch", r"--epoch: the config has no 'epoch'. Did you mean epochs\?"),
        ("loss#cls_weigth", r"loss has no 'cls_weigth'. Did you mean cls_weight or seg_weight\?"),
        ("network_def#res#ddpt", r"network_def#res has no 'ddpt'. Did you mean dpt\?"),
        ("epochs#x", r"epochs has no 'x'"),
        ("steps#2", r"steps has no '2'"),
        ("train#dataloadr", r"train has no 'dataloadr'. Did you mean dataloader\?"),
        ("rois#mine#size", r"rois has no 'mine'"),
    ],
)
def test_misspelt_keys_are_named(key, message):
    with pytest.raises(ValueError, match=message):
        check_key(key, CONFIG, source="--")


def test_check_run_refuses_a_misspelt_override(bundle):
    bundle("--lerning_rate", "3")
    with pytest.raises(ValueError, match="--lerning_rate: the config has no 'lerning_rate'"):
        check_run()


def test_check_run_refuses_a_null_that_monai_takes_for_text(bundle):
    bundle("--rois#nm", "null")
    with pytest.raises(ValueError, match=r"--rois#nm: 'null' is text to .*; type None"):
        check_run()
    bundle("--rois#nm", "None")
    check_run()


def test_save_run_makes_the_run_a_bundle(bundle, tmp_path):
    bundle("--rois#nm#_disabled_", "True")
    save_run(output_dir=str(tmp_path / "run"))
    configs = tmp_path / "run" / "configs"
    train = json.loads((configs / "train.json").read_text())
    inference = json.loads((configs / "inference.json").read_text())
    assert train["network_def"]["res"]["dpt"]
    assert "dpt" not in inference["network_def"]["res"]
    assert inference["rois"]["nm"]["_disabled_"] is True
    assert inference["ckpt_path"] == "x"
    assert inference["network_def"]["masked_rois"] == "@masked_rois"
    assert bundle_config(tmp_path / "run", "inference") == configs / "inference.json"


def test_inference_has_the_blocks_that_the_weights_need(bundle):
    train = {
        "network_def": {"encoder": {"_target_": "mrn_components.SERes10"}},
        "rois": {"nm": {"_target_": "mrn_components.ROI"}},
        "mask_channels": {"_target_": "mrn_components.ROIMaskChannelsd"},
        "augmentation": {},
    }
    inference = inference_config(train, bundle())
    del train["augmentation"], train["mask_channels"]  # for which the inference has no place
    assert inference == train | {"ckpt_path": "x"}


def test_what_an_overlay_brought_comes_with_the_network_that_reads_it(bundle):
    train = {
        "network_def": {"_target_": "my_lab.Network", "width": "$2 * @width"},
        "width": "@base",
        "base": 8,
        "other": 3,
    }
    inference = inference_config(train, bundle())
    assert (inference["width"], inference["base"]) == ("@base", 8)
    assert "other" not in inference


def test_save_run_leaves_another_network_as_it_is(bundle, tmp_path):
    bundle("--network_def", "{'_target_': 'my_lab.Network'}")
    save_run(output_dir=str(tmp_path / "run"))
    inference = json.loads((tmp_path / "run" / "configs" / "inference.json").read_text())
    assert inference["network_def"] == {"_target_": "my_lab.Network"}


def test_no_bundle_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no bundle: it has no configs/inference\.yaml"):
        bundle_config(tmp_path, "inference")


def test_existing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model.pt is not there. Train first."):
        existing_file(path=str(tmp_path / "model.pt"), hint="Train first.")
    (tmp_path / "model.pt").touch()
    assert existing_file(path=str(tmp_path / "model.pt"), hint="") == str(tmp_path / "model.pt")


def fail_behind_monai(path):
    try:
        existing_file(path=str(path), hint="Type this.")
    except OSError as error:
        raise RuntimeError("Failed to instantiate") from error


def test_user_message_is_the_first_error_of_ours(tmp_path):
    with pytest.raises(RuntimeError) as caught:
        fail_behind_monai(tmp_path / "x")
    assert user_message(caught.value) == f"{tmp_path / 'x'} is not there. Type this."
    assert user_message(ValueError("from elsewhere")) is None


def test_what_c_code_raises_under_a_line_of_ours_is_no_message(monkeypatch):
    """A want of memory in a matrix product, say."""
    monkeypatch.setattr("mrn_components.system.errors.__file__", __file__)
    with pytest.raises(ValueError, match="invalid literal") as caught:
        int("x")
    assert user_message(caught.value) is None


def fail_behind_a_library(path):
    try:
        path.read_text()
    except OSError as error:
        raise ValueError("Type this.") from error


def test_user_message_explains_errors_of_libraries(tmp_path, monkeypatch):
    monkeypatch.setattr("mrn_components.system.errors.__file__", __file__)
    with pytest.raises(ValueError, match="Type this") as caught:
        fail_behind_a_library(tmp_path / "x")
    assert user_message(caught.value) == "Type this."


def fail_behind_ours(path):
    try:
        fail_behind_monai(path)
    except RuntimeError as error:
        raise ValueError(f"{path} is damaged. Copy it.") from error


def test_user_message_is_what_our_code_makes_of_an_error_of_ours(tmp_path, monkeypatch):
    monkeypatch.setattr("mrn_components.system.errors.__file__", __file__)
    with pytest.raises(ValueError, match="Copy it") as caught:
        fail_behind_ours(tmp_path / "x")
    assert user_message(caught.value) == f"{tmp_path / 'x'} is damaged. Copy it."


@pytest.mark.parametrize("name", ["mrn", "seres10"])
def test_a_training_refuses_what_its_inference_makes_do_without(name):
    root = Path(__file__).parent.parent.parent / "bundles" / name
    train = yaml.safe_load((root / "configs" / "train.yaml").read_text())
    inference = inference_config(train, root)
    assert (train["missing_nuclei"], inference["missing_nuclei"]) == ("error", "fallback")
    crops = [t for t in inference["preprocessing"]["transforms"] if "missing" in t]
    assert [t["missing"] for t in crops] == ["@missing_nuclei"] * 2


# ---- a resumed run


@pytest.fixture
def begun(bundle, tmp_path):
    """A run that was begun with CONFIG; resumes it with further arguments."""
    save_run(output_dir=str(tmp_path / "run"))

    def resume(*arguments, **options):
        bundle("--resume", "True", *arguments)
        save_run(output_dir=str(tmp_path / "run"), resume=True, **options)
        return json.loads((tmp_path / "run/configs/train.json").read_text())

    return resume


def test_a_resumed_run_may_be_longer_and_elsewhere(begun):
    assert begun("--epochs", "700", "--dataset_dir", "elsewhere")["epochs"] == 700


def test_a_resumed_run_has_the_config_it_was_begun_with(begun, tmp_path):
    before = (tmp_path / "run/configs/train.json").read_text()
    message = (
        r"was begun with another config: loss#cls_weight was 1.0, is now 2.0; rois#nm#margin_mm "
        r"was None, is now 3. .*--allow_changed \"\['loss#cls_weight', 'rois#nm#margin_mm'\]\""
    )
    with pytest.raises(ValueError, match=message):
        begun("--loss#cls_weight", "2.0", "--rois#nm#margin_mm", "3")
    assert (tmp_path / "run/configs/train.json").read_text() == before


def test_a_change_can_be_allowed(begun):
    with pytest.raises(ValueError, match="rois#nm#margin_mm was None"):
        begun("--rois#nm#margin_mm", "3", allow_changed=["loss", "roi"])
    begun("--rois#nm#margin_mm", "3", "--loss#cls_weight", "2.0", allow_changed=["rois", "loss"])
    begun("--loss#cls_weight", "3.0", "--rois#nm#margin_mm", "3", allow_changed="loss")
