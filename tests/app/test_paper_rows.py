"""Every row of the paper's tables is built from its config and takes a small training step."""

import math
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from monai.engines import SupervisedTrainer

from mrn_components.app.paper import METRICS, TABLES, load_table
from mrn_components.app.reproduce.plan import Planner
from mrn_components.bundle import RunArguments
from mrn_components.networks.inferers import masked_states

BUNDLES = Path(__file__).parents[2] / "bundles"
TRAINED = [
    (number, row)
    for number in TABLES
    for row in load_table(number).rows
    if row.ours and row.regression is None
]
TINY = {"image_size": 28, "encoder_weights": "none"}
TINY_OF = {
    "mrn": {"network_def#res#encoder#depth": 2},
    "seres10": {},
}


def planner(scale, **overrides):
    folder = Path("nowhere")
    return Planner(
        bundles=BUNDLES, folder=folder, cache_dir=folder, scale=scale, overrides=overrides
    )


def config_of(row, scale, **overrides):
    return ConfigParser(planner(scale, **overrides).arguments(row).merged())


def batch_for(config):
    """Two subjects with crops of unequal sizes."""
    network = config.get_parsed_content("network")
    channels = getattr(network, "in_channels", dict.fromkeys(network.rois, 1))
    classes = {name: roi.num_classes for name, roi in config.get_parsed_content("rois").items()}
    shapes = [(6, 28, 28), (7, 28, 20)]
    images = {roi: [torch.rand(channels[roi], *s) for s in shapes] for roi in network.rois}
    masks = {roi: [torch.randint(classes[roi], s) for s in shapes] for roi in network.rois}
    return images, {"label": torch.tensor([0, 1]), "masks": masks}


@pytest.fixture(scope="module", autouse=True)
def _configs_are_read_once():
    """Reading YAML would be most of the time."""
    read = cache(ConfigParser.load_config_file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConfigParser, "load_config_file", lambda path: deepcopy(read(path)))
        yield


@pytest.fixture(scope="module")
def stepped():
    """Runs that several rows share take their step once."""
    return {}


@pytest.mark.parametrize(
    ("number", "row"),
    [item for item in TRAINED if item[1].scale != "paper"],
    ids=lambda value: getattr(value, "name", f"table {value}"),
)
def test_a_row_takes_a_training_step(number, row, stepped):
    config = config_of(row, "small", **TINY)
    key = str((row.bundle, row.configs, row.overrides, row.small))
    if key in stepped:
        return
    torch.manual_seed(0)
    network, batch = config.get_parsed_content("network"), batch_for(config)
    loss = config.get_parsed_content("loss")
    trained = [(name, value) for name, value in network.named_parameters() if value.requires_grad]
    before = {name: value.clone() for name, value in trained}
    contrasts = not config["handlers#msupmoco"].get("_disabled_", False)
    handlers = [config.get_parsed_content("handlers#msupmoco")] if contrasts else []
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[batch],
        network=network,
        optimizer=config.get_parsed_content("optimizer"),
        loss_function=loss,
        prepare_batch=lambda batch, *_args, **_kwargs: batch,
        train_handlers=handlers,
        decollate=False,
    )
    trainer.run()
    assert math.isfinite(trainer.state.output["loss"].item())
    still = [name for name, value in trained if value.equal(before[name])]
    assert still == []
    assert ("contrastive" in trainer.state.output) == contrasts
    stepped[key] = number


@pytest.mark.parametrize(
    ("number", "row"), TRAINED, ids=lambda value: getattr(value, "name", f"table {value}")
)
def test_a_row_at_the_papers_scale_is_the_papers_configuration(number, row):
    """But for what the row and its overlays state."""
    arguments = planner("paper").arguments(row)
    config = ConfigParser(arguments.merged())
    if not {"light.yaml", "frozen.yaml"} & {*row.configs}:
        assert config["image_size"] == 224
        assert config["batch_size"] == 4
        assert config["epochs"] == 600
    for key, value in row.overrides.items():
        if not key.endswith("_disabled_"):
            assert config[key] == value
    assert "small.yaml" not in str(arguments.config_files)


@pytest.mark.parametrize(
    ("number", "rows"), [(1, 5), (2, 10), (3, 7), (4, 16), (5, 5), (6, 4), (7, 3), (8, 3), (9, 5)]
)
def test_a_table_has_the_papers_rows(number, rows):
    table = load_table(number)
    ours = [row for row in table.rows if row.cohort == "true"]
    assert len(ours) == rows
    assert table.reference in [row.name for row in ours]
    for row in ours:
        assert len(row.paper) == len(METRICS)
        assert all(value is None or 30 < value < 100 for value in row.paper)


def test_table_2_has_the_negative_controls():
    assert {row.cohort for row in load_table(2).rows} == {"true", "shuffled", "null"}


def test_table_4_masks_every_subset_in_the_papers_order():
    masked = [tuple(row.masked_rois) for row in load_table(4).rows]
    assert masked == masked_states(["nm", "qsm1", "qsm2", "qsm3"])


def test_rows_that_stand_in_several_tables_have_the_same_numbers():
    numbers = {}
    for _, row in (item for item in TRAINED if item[0] != "losses"):
        key = str((row.bundle, row.configs, sorted(row.overrides.items()), row.masked_rois))
        if row.cohort == "true" and not row.ensemble and row.masked_rois is None:
            known = numbers.setdefault(key, row.paper)
            assert list(row.paper) == list(known), row.name


def test_another_number_is_no_table():
    with pytest.raises(ValueError, match="table must be 1 to 9 or losses, peers, future, got 10"):
        load_table(10)


def test_the_table_of_losses_has_what_is_to_be_run_first_on_real_data():
    table = load_table("losses")
    names = {"segmentation 0.2", "segmentation 1", "contrast 0.02", "contrast 0.1", "contrast 1"}
    assert {*names, "mean over voxels", "Dice", table.reference} <= {row.name for row in table.rows}
    assert all(value is None for row in table.rows for value in row.paper)


def test_the_table_of_peers_has_what_a_network_must_beat_and_what_is_to_reach():
    table = load_table("peers")
    kinds = [tuple(row.regression.values()) for row in table.rows if row.regression is not None]
    assert kinds == [
        ("means", "logistic"),
        ("biomarkers", "logistic"),
        ("biomarkers", "xgboost"),
        ("geometry", "logistic"),
        ("latent", "logistic"),
    ]
    assert {row.cohort for row in table.rows} == {"true", "shuffled", "null"}
    overlays = {config for row in table.rows for config in row.configs}
    assert overlays == {"strong.yaml", "light.yaml", "frozen.yaml", "m3d_clip.yaml"}


def test_the_table_of_future_work_says_the_licence_of_dinov3():
    rows = load_table("future").rows
    names = [str(row.overrides.get("network_def#res#encoder#name")) for row in rows]
    assert [bool(row.note) for row in rows] == ["dinov3" in name for name in names]
    assert sum("dinov3" in name for name in names) == 3


def test_a_number_may_be_typed():
    assert load_table("8") == load_table(8)


def test_an_unknown_row_names_those_there_are():
    with pytest.raises(ValueError, match=r"table 8 has no rows \['x'\]; it has \['SERes10-mSup"):
        load_table(8).selected(["x"])


def test_selected_rows_bring_the_reference_along():
    names = [row.name for row in load_table(8).selected(["MRN-DPT-Global"])]
    assert names == ["MRN-DPT-Global", "MRN-DPT-Local (ours)"]


def test_a_misspelt_override_names_the_row():
    (row,) = load_table(1).selected(["MRN (ours)"])
    with pytest.raises(ValueError, match=r"row 'MRN \(ours\)': epoch: the config has no 'epoch'"):
        planner("small", epoch=3).arguments(row)


def test_run_arguments_keep_the_order_of_overlays():
    row = next(row for row in load_table(9).rows if row.name.startswith("M3D"))
    names = [path.name for path in planner("small").arguments(row).config_files]
    assert names == ["train.yaml", "small.yaml", "m3d_clip.yaml"]
    assert isinstance(planner("small").arguments(row), RunArguments)
