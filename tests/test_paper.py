"""The numbers of the paper's sections 3.3-4.2 are those of the bundles' train.yaml."""

import re
from pathlib import Path
from pydoc import locate

import pytest
from monai.bundle import ConfigParser

from mrn_components.bundle import check_key

TRAIN = Path(__file__).parent.parent / "bundles" / "mrn" / "configs" / "train.yaml"


@pytest.fixture(scope="module")
def config():
    parser = ConfigParser()
    parser.read_config(str(TRAIN))
    return parser


@pytest.mark.parametrize(
    ("key", "number", "where"),
    [
        ("epochs", 600, "4.1.2: 600 end-to-end training epochs"),
        ("pretrain_epochs", 400, "4.1.2: pretrained for 400 epochs"),
        ("batch_size", 4, "4.1.2: batch size of 4"),
        ("seed", 1, "4.1.1: fixed random seed of 1"),
        ("num_folds", 5, "4.1.1: 5-fold cross-validation"),
        ("fold", 0, "4.1.1: ablations on the first fold"),
        ("image_size", 224, "3.3: longest side resized to 224"),
        ("optimizer#_target_", "torch.optim.AdamW", "4.1.2: AdamW"),
        ("optimizer#betas", [0.9, 0.999], "4.1.2: betas of 0.9 and 0.999"),
        ("optimizer#params#groups#features#lr", 1e-5, "4.1.2: DINOv2, FFA, SFA"),
        ("optimizer#params#groups#features#weight_decay", 1e-1, "4.1.2: DINOv2, FFA, SFA"),
        ("optimizer#params#groups#heads#lr", 1e-4, "4.1.2: DPT, heads"),
        ("optimizer#params#groups#heads#weight_decay", 5e-2, "4.1.2: DPT, heads"),
        (
            "network_def#res#encoder#name",
            "vit_base_patch14_reg4_dinov2.lvd142m",
            "4.1.2: ViT-B with four register tokens",
        ),
        ("network_def#res#encoder#drop_path_rate", 0.2, "4.1.2: drop path rate 0.2"),
        ("network_def#res#ffa#num_layers", 3, "4.1.2: FFA = 3"),
        ("network_def#res#sfa#num_layers", 2, "4.1.2: SFA layers = 2"),
        ("network_def#res#dpt#features", "local", "4.1.2: local manner"),
        ("network_def#dropout", 0.5, "4.1.2: dropout in the classification head 0.5"),
        ("handlers#msupmoco#momentum", 0.999, "3.3.2: empirically set at 0.999"),
        ("handlers#msupmoco#bank_size", 1024, "4.1.2: memory bank of 1,024"),
        ("handlers#msupmoco#temperature", 0.1, "4.1.2: temperature 0.1"),
    ],
)
def test_number(config, key, number, where):
    assert config[key] == number, where


@pytest.mark.parametrize(
    ("roi", "image", "nuclei"),
    [
        ("nm", "nm", ["SN"]),
        ("qsm1", "qsm", ["CN", "PUT", "GP", "TH"]),
        ("qsm2", "qsm", ["STN", "SN", "RN"]),
        ("qsm3", "qsm", ["DN"]),
    ],
)
def test_regions_of_section_3_3(config, roi, image, nuclei):
    assert (config[f"rois#{roi}#image"], config[f"rois#{roi}#nuclei"]) == (
        f"@images#{image}",
        nuclei,
    )


def test_groups_hold_the_modules_of_section_4_1_2(config):
    groups = config["optimizer#params#groups"]
    assert {"res.encoder", "res.ffa", "res.sfa"} <= set(groups["features"]["modules"])
    assert {"res.dpt", "classifier"} <= set(groups["heads"]["modules"])


def test_augmentations_of_section_4_1_2(config):
    """Mirrors, rotations, intensity and contrast shifts, Gaussian noise, histogram shifts."""
    kinds = ["mirror", "rotation", "intensity_shift", "contrast", "noise", "histogram_shift"]
    assert [kind for kind in kinds if not 0 < config["augmentation"][kind]["prob"] < 1] == []


def test_inference_has_the_same_network_without_auxiliary_parts(config):
    """Section 4.1.2: DPT, contrastive head, momentum MRN and bank are discarded."""
    inference = ConfigParser()
    inference.read_config(str(TRAIN.with_name("inference.yaml")))
    res, trained = inference["network_def#res"], config["network_def#res"]
    assert "dpt" not in res
    assert (res["ffa"], res["sfa"]) == (trained["ffa"], trained["sfa"])
    assert res["encoder"]["name"] == trained["encoder"]["name"]
    assert "msupmoco" not in str(inference.get())
    assert config["train#checkpoint#training_only"] == ["res.dpt"]


@pytest.fixture(scope="module")
def baseline():
    parser = ConfigParser()
    parser.read_config(str(TRAIN.parents[2] / "seres10" / "configs" / "train.yaml"))
    return parser


@pytest.mark.parametrize(
    ("key", "number", "where"),
    [
        ("network_def#encoder#_target_", "mrn_components.SERes10", "4.2: SERes10"),
        ("network_def#encoder#widths", [64, 128, 256, 512], "4.2: 512-dimensional features"),
        ("network_def#dropout", 0.5, "4.2: the same classification head"),
        ("mask_channels#_target_", "mrn_components.ROIMaskChannelsd", "4.2: mask-enhanced input"),
        ("encoder_weights", "none", "Table 9: trained from scratch"),
        ("handlers#msupmoco#bank_size", 1024, "4.1.2: memory bank of 1,024"),
        ("handlers#msupmoco#temperature", 0.1, "Tables 6 and 7: SERes10-mSupMoCo"),
        ("epochs", 600, "4.1.2: 600 end-to-end training epochs"),
        ("batch_size", 4, "4.1.2: batch size of 4"),
    ],
)
def test_number_of_the_baseline(baseline, key, number, where):
    assert baseline[key] == number, where


def test_m3d_clip_of_table_9_is_its_vision_encoder_fine_tuned_without_msupmoco(baseline):
    overlay = ConfigParser.load_config_file(
        str(TRAIN.parents[2] / "seres10" / "configs" / "m3d_clip.yaml")
    )
    assert overlay["network_def#encoder"]["_target_"] == "mrn_components.VolumeViT"
    assert overlay["handlers#msupmoco#_disabled_"] is True
    assert overlay["pretrain_epochs"] == 0


def test_inference_of_the_baseline_has_the_same_network(baseline):
    inference = ConfigParser()
    inference.read_config(str(TRAIN.parents[2] / "seres10" / "configs" / "inference.yaml"))
    assert inference["network_def#encoder"] == baseline["network_def#encoder"]
    assert inference["mask_channels"] == baseline["mask_channels"]
    assert "msupmoco" not in str(inference.get())


MAP = (TRAIN.parents[3] / "docs" / "paper_map.md").read_text()


@pytest.mark.parametrize(
    "symbol", sorted(set(re.findall(r"`((?:[a-z_]+\.)+[A-Za-z_]+|[A-Z]+[a-z]\w*)`", MAP)))
)
def test_the_map_names_symbols_that_exist(symbol):
    if not symbol.endswith(".yaml"):
        assert locate(f"mrn_components.{symbol}") is not None


@pytest.mark.parametrize("test", sorted(set(re.findall(r"tests/[\w/]+\.py::\w+", MAP))))
def test_the_map_names_tests_that_exist(test):
    file, name = test.split("::")
    assert f"def {name}(" in (TRAIN.parents[3] / file).read_text()


@pytest.mark.parametrize(
    "key", sorted(set(re.findall(r"\| `([a-z_]+(?:#\w+)*)`(?:, `[^`]+`)? \|", MAP)))
)
def test_the_map_names_keys_that_exist(config, key):
    check_key(key, config.get(), source="docs/paper_map.md: ")


def test_the_map_covers_every_equation():
    covered = set()
    for first, last in re.findall(r"Eq\. (\d+)(?:-(\d+))?", MAP):
        covered |= set(range(int(first), int(last or first) + 1))
    assert covered == set(range(1, 13))
