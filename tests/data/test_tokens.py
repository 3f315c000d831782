"""Training on the tokens of a frozen encoder, which are computed once."""

from copy import deepcopy

import pytest
import torch
from monai.data import DataLoader
from monai.data.utils import set_rnd
from monai.engines import SupervisedTrainer
from monai.transforms import LoadImaged, ScaleIntensityRanged

from mrn_components import (
    FFA,
    MRN,
    RES,
    ROI,
    SFA,
    DPTHead,
    MergeSidesd,
    MRNLoss,
    NucleusPool,
    PrepareROIBatch,
    PrepareTokenBatch,
    ROICropd,
    ROIDataset,
    ROIMaskChannelsd,
    SERes10,
    SliceEncoder,
    TokenCacheHandler,
    TokenDataset,
    augment_rois,
    load_subjects,
)
from mrn_components.data.dataset import collate_subjects

ROIS = {
    "nm": ROI(image="nm", nuclei=["SN"], size=28),
    "mid": ROI(image="qsm", nuclei=["STN", "RN"], size=28),
}
MASKS = [ROIMaskChannelsd(rois=ROIS)]


def crop():
    """The deterministic transforms, made anew, as each run makes them."""
    return [
        LoadImaged(
            ["nm", "qsm", "mask_nm", "mask_qsm"], image_only=True, ensure_channel_first=True
        ),
        ScaleIntensityRanged("nm", 800.0, 2000.0, 0.0, 1.0, clip=True),
        ScaleIntensityRanged("qsm", -50.0, 150.0, 0.0, 1.0, clip=True),
        ROICropd(rois=ROIS),
        MergeSidesd(rois=ROIS),
    ]


def augmented():
    mirror, noise = {"prob": 0.5}, {"prob": 1.0, "std": 0.05}
    return [*crop(), augment_rois(rois=ROIS, mirror=mirror, noise=noise), *MASKS]


def make_network(seed=0, *, frozen=True, pool="beside", dpt=None, **args):
    torch.manual_seed(seed)
    res = RES(
        encoder=SliceEncoder(
            name="vit_small_patch14_reg4_dinov2.lvd142m",
            frozen=frozen,
            drop_path_rate=0.0,
            depth=1,
            embed_dim=16,
            num_heads=2,
            init_values=1.0,
        ),
        ffa=FFA(num_layers=1, layer_scale=1.0),
        sfa=SFA(num_layers=1, layer_scale=1.0),
        nuclei_pool=NucleusPool(mode=pool) if pool else None,
        dpt=dpt,
    )
    return MRN(rois=ROIS, res=res, dropout=0.0, **args)


@pytest.fixture
def make(cohort, tmp_path):
    """A factory of token data sets of three subjects."""
    subjects = load_subjects(cohort)[:3]

    def dataset(network=make_network, **args):
        options = {"data": subjects, "transform": augmented(), "cache_dir": tmp_path, "rois": ROIS}
        network = network if isinstance(network, MRN) else network()
        return TokenDataset(network=network, **options | args)

    return dataset


def entries(dataset):
    return {path.name for path in (dataset.cache_dir / "tokens").glob("*.pt")}


def same(one, other):
    return all(torch.equal(one[roi].tokens, other[roi].tokens) for roi in ROIS)


def train(network, dataset, prepare):
    trained = [p for p in network.parameters() if p.requires_grad]
    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=3,
        train_data_loader=DataLoader(dataset, batch_size=2, collate_fn=collate_subjects),
        network=network,
        optimizer=torch.optim.AdamW(trained, lr=1e-2),
        loss_function=MRNLoss(),
        prepare_batch=prepare,
        decollate=False,
    ).run()
    return network.eval()


@pytest.mark.parametrize("pool", ["beside", None])
def test_training_on_tokens_is_training_on_crops_with_a_frozen_encoder(pool, make, tmp_path):
    first = make_network(pool=pool)
    chain = [*crop(), *(MASKS if pool else [])]
    tokens = make(first, transform=chain, num_views=1, stored="float32")
    crops = ROIDataset(data=tokens.data, transform=chain, cache_dir=tmp_path)
    by_crops = train(deepcopy(first), crops, PrepareROIBatch(rois=ROIS))
    by_tokens = train(deepcopy(first), tokens, PrepareTokenBatch(rois=ROIS))
    moved = dict(first.named_parameters())
    for (name, one), other in zip(by_crops.named_parameters(), by_tokens.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0, msg=name)
        assert torch.equal(one, moved[name]) == name.startswith("res.encoder"), name
    images, _ = PrepareROIBatch(rois=ROIS)(collate_subjects(list(crops)))
    with torch.no_grad():  # it predicts from crops, as ever
        got, expected = by_tokens(images)["logits"], by_crops(images)["logits"]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_float16_moves_the_logits_less_than_computing_in_bfloat16_does(make):
    network = make_network().eval()
    dataset = make(network, transform=[*crop(), *MASKS], num_views=1)
    crops = ROIDataset(data=dataset.data, transform=[*crop(), *MASKS])
    images, _ = PrepareROIBatch(rois=ROIS)(collate_subjects(list(crops)))
    exact = network(images)["logits"]
    tokens, _ = PrepareTokenBatch(rois=ROIS)(collate_subjects(list(dataset)))
    stored = (network(tokens)["logits"] - exact).abs().max()
    network.precision = "bf16"
    computed = (network(images)["logits"] - exact).abs().max()
    assert 0 < stored < computed / 3


def test_the_first_view_is_not_augmented_and_the_others_follow_from_the_seed(make, tmp_path):
    dataset, plain = make(num_views=3), make(num_views=1)
    dataset.encode()
    assert len(entries(dataset)) == 9
    without = ROIDataset(data=dataset.data, transform=[*crop(), *MASKS], cache_dir=tmp_path)
    images, _ = PrepareROIBatch(rois=ROIS)(collate_subjects([without[0]]))
    with torch.no_grad():
        (volume,) = dataset.network.res.eval().encode([images["nm"][0]])
    assert torch.equal(plain[0]["nm"].tokens, volume.tokens.half())
    assert torch.equal(plain[0]["nm"].shares, volume.shares)
    views = [torch.load(dataset._entry(dataset.data[0], i), weights_only=True) for i in range(3)]
    a, b, c = (view["rois"]["mid"][0] for view in views)
    assert not torch.equal(a, b)
    assert not torch.equal(b, c)
    again = make(num_views=3, cache_dir=tmp_path / "other")
    again.encode(slice(None, None, -1))  # in another order
    assert entries(again) == entries(dataset)
    file = again._entry(again.data[0], 2)
    assert torch.equal(torch.load(file, weights_only=True)["rois"]["mid"][0], c)


def test_what_is_there_is_read(make, monkeypatch):
    make(num_views=2).encode()
    dataset = make(num_views=2)
    monkeypatch.setattr(RES, "encode", None)
    dataset.encode()
    subject = dataset[1]
    assert (subject["subject"], subject["label"]) == ("SUBJ_001", 1)
    assert subject["nm"].tokens.dtype == torch.float16


@pytest.mark.parametrize(
    ("change", "new"),
    [
        ({"seed": 2}, 3),  # the first view is the same
        ({"network": lambda: make_network(seed=1)}, 6),
        ({"network": lambda: make_network(precision="bf16")}, 6),
        ({"stored": "float32"}, 6),
        ({"transform": [*augmented()[:-1]]}, 6),  # without the mask
    ],
    ids=["seed", "weights", "precision", "type", "transforms"],
)
def test_an_entry_belongs_to_what_it_was_made_of(change, new, make):
    dataset = make(num_views=2)
    dataset.encode()
    before = entries(dataset)
    changed = make(num_views=2, **change)
    changed.encode()
    assert len(entries(changed) - before) == new


def test_other_labels_find_the_same_tokens(make):
    dataset = make(num_views=2)
    dataset.encode()
    before = entries(dataset)
    make(num_views=2, data=[{**s, "label": 1 - s["label"]} for s in dataset.data]).encode()
    assert entries(dataset) == before


def test_an_epoch_draws_a_view_of_each_subject_by_the_runs_seed(make):
    dataset = make(num_views=3)
    dataset.encode()

    def epoch(number):
        set_rnd(dataset, number)
        return [dataset[0] for _ in range(8)]

    one, again, other = epoch(1), epoch(1), epoch(2)
    assert all(map(same, one, again))
    assert not all(map(same, one, other))
    assert len({float(subject["mid"].tokens.sum()) for subject in one + other}) == 3


def test_a_damaged_entry_is_made_anew(make, caplog):
    dataset = make(num_views=1)
    expected = dataset[0]
    (name,) = entries(dataset)
    file = dataset.cache_dir / "tokens" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    assert same(dataset[0], expected)
    assert "is damaged; rebuilding it" in caplog.text


def test_a_worker_of_a_loader_encodes_nothing(make, monkeypatch):
    dataset = make(num_views=1)
    monkeypatch.setattr("mrn_components.data.tokens.get_worker_info", lambda: dataset)
    with pytest.raises(RuntimeError, match=r"SUBJ_000: view 0 is not encoded.*num_workers 0"):
        dataset._entry(dataset.data[0], 0)


def test_the_handler_encodes_before_the_first_epoch_alone(make):
    dataset = make(num_views=2)
    handler = TokenCacheHandler(datasets=[dataset])
    handler.encode(None)
    assert len(entries(dataset)) == 6
    dataset.encode = None
    handler.encode(None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": lambda: make_network(frozen=False)}, "freeze it by.*encoder#frozen True"),
        (
            {"network": lambda: MRN(rois=ROIS, encoder=SERes10(widths=[16] * 4))},
            "RES has a frozen encoder",
        ),
        (
            {"network": lambda: make_network(masked_rois=["nm"])},
            r"masks \['nm'\].*leave masked_rois",
        ),
        (
            {"network": lambda: make_network(dpt=DPTHead(fusion_channels=8))},
            "switch it off by.*dpt",
        ),
        ({"cache_dir": None}, "need a cache_dir"),
        ({"num_views": 0}, "num_views of at least 1.*0"),
        ({"stored": "int8"}, "'float16' or 'float32', got .*'int8'"),
    ],
)
def test_what_cannot_be_trained_on_tokens_is_refused(change, message, make):
    with pytest.raises(ValueError, match=message):
        make(**change)


def test_a_dpt_refuses_what_was_encoded_once(make):
    volume = make(num_views=1)[0]["nm"]
    network = make_network(dpt=DPTHead(fusion_channels=8))
    with pytest.raises(ValueError, match=r"no pixels for DPT.*dpt#_disabled_ True"):
        network({"nm": [volume], "mid": [volume]})
