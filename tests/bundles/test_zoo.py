"""What the Model Zoo's CI and the clients of a bundle do with ours, at a tiny size.

``configs/`` and weights are those that ``scripts/pack_bundle.py`` packs; networks are made tiny.
"""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from monai.bundle import (
    ConfigParser,
    ckpt_export,
    create_workflow,
    download,
    download_large_files,
    load,
    onnx_export,
    verify_metadata,
    verify_net_in_out,
)
from monai.data import MetaTensor, decollate_batch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import WeightType
from monai.fl.utils.exchange_object import ExchangeObject
from monai.transforms import LoadImage, LoadImaged, SaveImaged
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_bundles import NETWORKS

from mrn_components.app.mask_makers import NucleiSegmenter
from mrn_components.app.packing.configs import take_configs, write_marks, write_twins
from mrn_components.app.packing.weights import build_network
from mrn_components.images.image import CHALLENGE_IMAGES
from mrn_components.images.volume import read_volume
from mrn_components.system.hashes import verify_hashes

ROOT = Path(__file__).parent.parents[1]
SCRIPT = ROOT / "scripts" / "pack_bundle.py"
SCHEMA = Path(__file__).parent.parent / "meta_schema_20240725.json"
NAMES = sorted(path.name for path in (ROOT / "bundles").iterdir())
TEMPLATE = [  # docs/readme_template.md of the Model Zoo
    *("Authors", "Tags", "Model description", "Data", "Preprocessing", "Performance"),
    *("Additional usage steps", "System configuration", "Limitations", "Citation", "References"),
]
CLASSIFIERS = [name for name in NAMES if name != "segmentation"]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("pack_bundle", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_tiny(name, folder):
    """A copy of a bundle's configs whose networks are tiny, as the folder of a run has them."""
    configs = folder / "configs"
    configs.mkdir(parents=True)
    for kind in ("train", "inference"):
        parser = ConfigParser()
        parser.read_config(str(ROOT / "bundles" / name / "configs" / f"{kind}.yaml"))
        for key, value in NETWORKS[name].items():
            if key == "plan":
                for image in ("nm", "qsm"):
                    plan = {**value, "image": image, "labels": 2 if image == "nm" else 16}
                    (configs / f"plan_{image}.json").write_text(json.dumps(plan))
            else:
                parser[key] = value
        config = {key: value for key, value in parser.get().items() if key != "_meta_"}
        (configs / f"{kind}.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module", params=NAMES)
def packed(request, script, tmp_path_factory):
    """A tiny bundle as the packer makes it, in a zip."""
    name = request.param
    folder = tmp_path_factory.mktemp("packed")
    run = make_tiny(name, folder / "run")
    arguments = [name, "--run", str(run), "--random_weights", "--safetensors", "--no_proof"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "make_sample", lambda _folder: None)  # takes seconds
        script.main([*arguments, "--output", str(folder / "zips" / f"{name}.zip")])
    return folder / "zips" / f"{name}.zip"


@pytest.fixture(scope="module")
def bundle(packed, tmp_path_factory):
    """The zip, unpacked by MONAI's own ``download``."""
    folder = tmp_path_factory.mktemp("models")
    download(name=packed.stem, url=packed.as_uri(), bundle_dir=str(folder), progress=False)
    return folder / packed.stem


def test_the_zip_holds_the_bundle_and_nothing_beside_it(packed):
    with zipfile.ZipFile(packed) as archive:
        names = archive.namelist()
    root = {name.split("/")[0] for name in names}
    assert root == {packed.stem}
    inside = {name.removeprefix(f"{packed.stem}/") for name in names}
    assert {"LICENSE", "hashes.json", "large_files.yml", "requirements.txt"} <= inside
    assert {"mrn_components/__init__.py", "models/model.pt", "models/model.safetensors"} <= inside
    assert not [name for name in inside if "__pycache__" in name or "/cache/" in name]


def test_the_same_bundle_gives_the_same_zip(script, tmp_path):
    (tmp_path / "x" / "models").mkdir(parents=True)
    (tmp_path / "x" / "models" / "model.pt").write_bytes(b"weights")
    script.write_zip(tmp_path / "x", tmp_path / "a.zip")
    (tmp_path / "x" / "models" / "model.pt").touch()
    script.write_zip(tmp_path / "x", tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_hashes_are_those_of_the_files_and_tell_a_change(bundle, tmp_path):
    assert verify_hashes(bundle) == {}
    download_large_files(bundle_path=str(bundle))  # all there: verifies, downloads nothing
    copy = shutil.copytree(bundle, tmp_path / bundle.name)
    (copy / "models" / "model.pt").write_bytes(b"other weights")
    assert "models/model.pt" in verify_hashes(copy)


def test_every_json_equals_its_yaml(bundle):
    yamls = sorted((bundle / "configs").glob("*.yaml"))
    assert {"train", "inference"} <= {path.stem for path in yamls}
    for path in yamls:
        twin = json.loads(path.with_suffix(".json").read_text())
        assert twin == ConfigParser.load_config_file(str(path)) == yaml.safe_load(path.read_text())


def test_safetensors_hold_the_same_weights(bundle):
    for path in (bundle / "models").glob("*.pt"):
        weights = torch.load(path, weights_only=True)
        twin = load_file(path.with_suffix(".safetensors"))
        with safe_open(path.with_suffix(".safetensors"), "pt") as file:
            other_names = file.metadata()  # of tensors that are there once
        assert twin.keys() <= weights.keys()
        for name, tensor in weights.items():
            assert torch.equal(tensor, twin[name if name in twin else other_names[name]])


def test_metadata_keeps_the_schema_and_is_complete(bundle):
    # The schema is at its place, so that MONAI does not download it.
    verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(SCHEMA))
    content = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert content["schema"].endswith(SCHEMA.name)
    assert content["version"] in content["changelog"]
    for key in ("name", "intended_use", "data_source", "references", "modality"):
        assert content[key], key
    assert content["eval_metrics"] == {}  # of weights that nobody trained
    assert "mrn-components" not in content["required_packages_version"]


def sections(text):
    lines = [line.strip("#* ") for line in text.splitlines() if line.startswith(("##", "###"))]
    return [line for line in lines if line in TEMPLATE]


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_has_the_sections_of_the_zoos_template(name):
    assert sections((ROOT / "bundles" / name / "docs" / "README.md").read_text()) == TEMPLATE


def test_the_card_of_random_weights_tells_of_no_training(bundle):
    text = (bundle / "docs" / "README.md").read_text()
    assert "Nobody trained these weights" in text
    for words in ("epochs:", "curves.png", "were not trained with any", "began with random"):
        assert words not in text, words


def test_the_packed_readme_has_them_too(bundle):
    assert sections((bundle / "docs" / "README.md").read_text()) == TEMPLATE


@pytest.mark.parametrize("name", NAMES)
def test_measured_scores_have_intervals_and_say_of_whom(name):
    card = json.loads((ROOT / "bundles" / name / "configs" / "metadata.json").read_text())
    measured = card["eval_metrics"]["measured"]
    assert "phantoms" in measured["what"]
    scores = [score for score in measured.values() if isinstance(score, dict)]
    assert scores
    for score in scores:
        low, high = score["interval_95"]
        assert 0 <= low <= score["value"] <= high <= 1


def test_metadata_off_the_schema_is_refused(bundle, tmp_path):
    content = json.loads((bundle / "configs" / "metadata.json").read_text())
    del content["network_data_format"]
    (tmp_path / "metadata.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="network_data_format"):
        verify_metadata(meta_file=str(tmp_path / "metadata.json"), filepath=str(SCHEMA))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_metadata_name_the_tensors_of_the_network(name):
    configs = ROOT / "bundles" / name / "configs"
    inputs = json.loads((configs / "metadata.json").read_text())["network_data_format"]["inputs"]
    rois = ConfigParser.load_config_file(str(configs / "inference.yaml"))["rois"]
    assert list(inputs) == ["image", *list(rois)[1:]]
    for entry, roi in zip(inputs.values(), rois.values(), strict=True):
        channels = 1 if name == "mrn" else 2 + len(roi["nuclei"])
        assert entry["num_channels"] == channels == len(entry["channel_def"])


def test_metadata_name_the_labels_of_the_segmentation():
    path = ROOT / "bundles" / "segmentation" / "configs" / "metadata.json"
    pred = json.loads(path.read_text())["network_data_format"]["outputs"]["pred"]
    names = {"0": "background"}
    for nucleus, sides in CHALLENGE_IMAGES["qsm"].nuclei.items():
        names |= {str(i): f"{nucleus} {s}" for i, s in zip(sides, ("right", "left"), strict=True)}
    assert pred["channel_def"] == names


def test_the_network_has_the_inputs_and_outputs_of_the_metadata(bundle):
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / "inference.yaml"),
        bundle_root=str(bundle),
    )


def test_the_weights_export_as_torchscript_and_run(bundle, tmp_path):
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(bundle / "models" / "model.pt"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / "inference.yaml"),
        bundle_root=str(bundle),
    )
    network = build_network(bundle, {"precision": "fp32"}).eval()
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    channels = 3 if bundle.name == "seres10" else 1
    with torch.no_grad():
        for depth in (4, 8):
            image = torch.rand(1, channels, depth, 32, 32)
            got = torch.jit.load(tmp_path / "model.ts")(image)
            torch.testing.assert_close(got, network(image), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_a_region_of_any_name_exports(tmp_path):
    """By MONAI's commands, which hand over the first region alone."""
    runtime = pytest.importorskip("onnxruntime")
    bundle = make_tiny("mrn", tmp_path / "mrn")
    config = json.loads((bundle / "configs" / "inference.json").read_text())
    config["rois"] = {"mid": config["rois"]["qsm2"], "left": config["rois"]["nm"]}
    (bundle / "configs" / "inference.json").write_text(json.dumps(config))
    network = build_network(bundle, {"precision": "fp32"}).eval()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    common = {
        "net_id": "network_def",
        "ckpt_file": str(tmp_path / "model.pt"),
        "config_file": str(bundle / "configs" / "inference.json"),
        "bundle_root": str(bundle),
    }
    ckpt_export(filepath=str(tmp_path / "model.ts"), **common)
    shape = [1, 1, 4, 28, 28]
    onnx_export(filepath=str(tmp_path / "model.onnx"), input_shape=shape, **common)
    image, other = torch.rand(shape), torch.rand(shape)
    with torch.no_grad():
        expected = network(image)
        script = torch.jit.load(tmp_path / "model.ts")
        torch.testing.assert_close(script(image), expected, atol=1e-5, rtol=1e-4)
        both = script(image, left=other)
        torch.testing.assert_close(both, network(image, left=other), atol=1e-5, rtol=1e-4)
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    (got,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), expected, atol=1e-5, rtol=1e-4)


def test_monai_load_finds_network_and_weights(bundle, monkeypatch):
    monkeypatch.chdir(bundle)
    network = load(bundle.name, bundle_dir="..", workflow_type="inference", device="cpu")
    weights = torch.load("models/model.pt", weights_only=True)
    assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())


def test_monai_load_of_the_training_finds_them_too(bundle, monkeypatch):
    monkeypatch.chdir(bundle)
    network = load(
        bundle.name,
        bundle_dir="..",
        workflow_type="train",
        device="cpu",
        net_override=None if bundle.name != "mrn" else {"res#encoder#weights": "none"},
    )
    state = network.state_dict()
    for key, value in torch.load("models/model.pt", weights_only=True).items():
        assert torch.equal(state[key], value)


def parts_of(bundle):
    """A bundle's inference as clients read it, and its network with the weights."""
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser.read_meta(str(bundle / "configs" / "metadata.json"))
    parser.update({"bundle_root": str(bundle), "precision": "fp32"})
    network = parser.get_parsed_content("network").eval()
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    return parser, network


def own_mask(bundle, path):
    """The mask that ``mrn predict`` makes, which knows the package in the zip."""
    return NucleiSegmenter(str(bundle), "qsm", device="cpu", precision="fp32")(read_volume(path))


@torch.no_grad()
def test_monai_label_gets_the_masks_of_the_segmenter(bundle, cohort):
    """As its ``BundleInferTask``: transforms one after another, without ``SaveImaged``."""
    if bundle.name != "segmentation":
        pytest.skip("MONAI Label draws masks")
    parser, network = parts_of(bundle)
    path = next(cohort.glob("*/QSM.nii.gz"))
    data = {"image": str(path), "image_path": str(path), "device": "cpu"}
    for transform in parser.get_parsed_content("preprocessing").transforms:
        data = transform(data)
    masks = parser.get_parsed_content("inferer")(data["image"][None], network)
    data["pred"] = decollate_batch(masks)[0]
    for transform in parser.get_parsed_content("postprocessing").transforms:
        if not isinstance(transform, SaveImaged):
            data = transform(data)
    want = own_mask(bundle, path)
    assert data["pred"].shape == (1, *want.shape)
    assert want.any()
    assert (data["pred"][0].numpy() == want).all()


@torch.no_grad()
def test_monai_deploy_gets_the_masks_of_the_segmenter(bundle, cohort):
    """As its ``MonaiBundleInferenceOperator``, which loads images itself, without a channel."""
    if bundle.name != "segmentation":
        pytest.skip("it has one image")
    parser, network = parts_of(bundle)
    path = next(cohort.glob("*/QSM.nii.gz"))
    loaded = LoadImage()(str(path))
    meta = {**loaded.meta, "original_channel_dim": "no_channel"}
    data = {"image": MetaTensor(loaded.as_tensor(), meta=meta)}
    preprocessing, postprocessing = map(
        parser.get_parsed_content, ("preprocessing", "postprocessing")
    )
    for compose in (preprocessing, postprocessing):
        steps = compose.transforms
        compose.transforms = [t for t in steps if not isinstance(t, LoadImaged | SaveImaged)]
    data = preprocessing(data)
    inferer = parser.get_parsed_content("inferer")
    data["pred"] = inferer(inputs=data["image"][None], network=network)[0]
    assert (postprocessing(data)["pred"][0].numpy() == own_mask(bundle, path)).all()


@torch.no_grad()
def test_monai_deploy_hands_over_tensors_by_the_names_of_the_metadata(bundle):
    parser, network = parts_of(bundle)
    inputs = parser["_meta_"]["network_data_format"]["inputs"]
    tensors = {name: torch.rand(1, x["num_channels"], 8, 32, 32) for name, x in inputs.items()}
    first, *others = tensors
    further = {name: tensors[name] for name in others}
    got = parser.get_parsed_content("inferer")(inputs=tensors[first], network=network, **further)
    if bundle.name == "segmentation":
        assert got.shape == tensors[first].shape  # label ids
    else:
        assert torch.equal(got, network(tensors[first], **further))


@pytest.mark.parametrize("kind", ["train", "inference"])
def test_properties_are_complete(bundle, kind, cohort, tmp_path, monkeypatch):
    monkeypatch.chdir(bundle)
    workflow = create_workflow(
        config_file=f"configs/{kind}.json",
        workflow_type=kind,
        logging_file=False,
        dataset_dir=str(cohort),
        output_dir=str(tmp_path),
        encoder_weights="none",
    )
    assert workflow.check_properties() == []


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_federated_client_trains(name, script, cohort, tmp_path):
    bundle = make_tiny(name, tmp_path / name)
    shutil.copyfile(
        ROOT / "bundles" / name / "configs" / "metadata.json", bundle / "configs" / "metadata.json"
    )
    common = {
        "dataset_dir": str(cohort),
        "output_dir": str(tmp_path / "out"),
        "cache_dir": None,
        "encoder_weights": "none",
        "image_size": 56,  # of 28, SERes10 has no batch of one
        "batch_size": 2,
        "num_workers": 0,
        "num_folds": 2,
        "pretrain_epochs": 0,
    }
    client = MonaiAlgo(
        bundle_root=str(bundle),
        local_epochs=1,
        config_train_filename="configs/train.json",
        config_evaluate_filename="configs/train.json",
        config_filters_filename=None,
        send_weight_diff=False,
        train_kwargs=dict(common),
        eval_kwargs=dict(common),
    )
    client.initialize(extra={"CLIENT_NAME": "site-1", "APP_ROOT": ""})
    before = {key: value.clone() for key, value in client.trainer.network.state_dict().items()}
    client.train(ExchangeObject(weights=before, weight_type=WeightType.WEIGHTS), extra={})
    after = client.get_weights(extra={"MODEL_TYPE": "model"}).weights
    assert any(not torch.equal(torch.as_tensor(after[key]), before[key]) for key in before)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_packer_proves_its_zip_without_the_package(name, tmp_path):
    run = make_tiny(name, tmp_path / "run")
    output = tmp_path / f"{name}.zip"
    command = [sys.executable, str(SCRIPT), name, "--run", str(run), "--random_weights"]
    done = subprocess.run(
        [*command, "--output", str(output)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Proved: unpacked elsewhere, without mrn-components" in done.stdout
    assert not done.stderr
    assert not re.search(r"%\||Warning:|Logging file", done.stdout)
    assert output.is_file()


def test_missing_weights_say_what_to_type(script, tmp_path):
    run = make_tiny("seres10", tmp_path / "run")
    with pytest.raises(FileNotFoundError, match=r"model.pt is not there; .*--random_weights"):
        script.main(["seres10", "--run", str(run), "--output", str(tmp_path / "x.zip")])


def test_weights_of_another_network_are_refused(script, tmp_path):
    run = make_tiny("seres10", tmp_path / "run")
    (run / "models").mkdir()
    torch.save({"other": torch.zeros(1)}, run / "models" / "model.pt")
    with pytest.raises(ValueError, match=r"does not fit the bundle's network.*--run"):
        script.main(["seres10", "--run", str(run), "--output", str(tmp_path / "x.zip")])


def test_a_folder_that_is_no_run_is_named(script, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no configs/inference.yaml .*training run"):
        script.main(["mrn", "--run", str(tmp_path), "--output", str(tmp_path / "x.zip")])


@pytest.fixture
def configs(tmp_path):
    """The configs of a bundle whose run is to be packed."""
    return shutil.copytree(ROOT / "bundles" / "segmentation" / "configs", tmp_path / "configs")


def test_configs_of_a_run_may_be_yaml(configs, tmp_path):
    run = make_tiny("segmentation", tmp_path / "run")
    config = json.loads((run / "configs" / "inference.json").read_text())
    (run / "configs" / "inference.json").unlink()
    (run / "configs" / "inference.yaml").write_text(yaml.safe_dump(config))
    take_configs(run, configs)
    assert yaml.safe_load((configs / "inference.yaml").read_text()) == config


def test_folders_of_this_machine_are_not_packed(configs, tmp_path):
    run = make_tiny("segmentation", tmp_path / "run")
    config = json.loads((run / "configs" / "train.json").read_text())
    config |= {"dataset_dir": "/data/patients", "epochs": 3}
    (run / "configs" / "train.json").write_text(json.dumps(config))
    take_configs(run, configs)
    packed = yaml.safe_load((configs / "train.yaml").read_text())
    assert packed["dataset_dir"] == "data/phantom"
    assert packed["epochs"] == 3


def test_configs_of_a_zip_take_no_weights_of_another(configs):
    text = (configs / "train.yaml").read_text()
    write_marks(configs)
    write_twins(configs)
    roots = [
        json.loads((configs / f"{kind}.json").read_text())["bundle_root"]
        for kind in ("train", "inference")
    ]
    assert roots[0] == roots[1]
    assert (roots[0]["name"], roots[0]["made_in"]) == ("segmentation", None)
    assert len(roots[0]["run"]) == 32
    lines = zip((configs / "train.yaml").read_text().splitlines(), text.splitlines(), strict=True)
    assert [old for new, old in lines if new != old] == [
        "bundle_root: {_target_: mrn_components.locate_bundle, name: segmentation}"
    ]


def test_a_bundle_that_fails_elsewhere_is_not_kept(script, tmp_path, monkeypatch):
    run = make_tiny("seres10", tmp_path / "run")
    monkeypatch.setattr(
        "mrn_components.app.packing.metadata.requirements", lambda _content: ["PyYAML"]
    )
    with pytest.raises(RuntimeError, match="the packed bundle fails in `python -m"):
        script.main(
            ["seres10", "--run", str(run), "--random_weights", "--output", str(tmp_path / "x.zip")]
        )
    assert not (tmp_path / "x.zip").exists()
