"""The spread of the training subjects, measured at the end of a run, in its weights."""

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from stand_in import StandIn, collate, make_dataset, make_optimizer, make_trainer, prepare_batch

from mrn_components.data.target import HC_PD, Score
from mrn_components.data.weight_records import REFERENCES, REPRESENTATION, read_record
from mrn_components.metrics.spread import Spread
from mrn_components.system.files import check_digest
from mrn_components.training.handlers.checkpoint import RunCheckpointHandler
from mrn_components.training.handlers.representation import RepresentationHandler


class Data(Dataset):
    def set_data(self, data):
        self.data = data


def run(folder, *, groups=None, held_out=6, network=None, resume=False, **options):
    torch.manual_seed(0)
    network = network or StandIn(dropout=0.3)
    subjects = [dict(item) for item in make_dataset(subjects=24, augment=False).data]
    training, others = subjects[: 24 - held_out], subjects[24 - held_out :]
    loader = DataLoader(Data(others), batch_size=1, collate_fn=collate)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"), val_data_loader=loader, network=network,
        prepare_batch=prepare_batch, decollate=False,
    )  # fmt: skip
    known = subjects if groups is None else [s | {"group": groups(s)} for s in subjects]
    again = training[0] | {"nm": 5 - training[0]["nm"]}  # the same subject by other masks
    options |= {"training": [*training, again], "subjects": known}
    handler = RepresentationHandler(directory=folder, evaluator=evaluator, **options)
    saver = RunCheckpointHandler(directory=folder, training_only=["dpt"], resume=resume)
    dataset = Data(training)
    trainer = make_trainer(network, make_optimizer(network), [handler, saver], dataset=dataset)
    trainer.run()
    return network, training, others


def represented(network, subjects):
    network.eval()
    vectors = [network(prepare_batch(collate([s]))[0])["patient"][0] for s in subjects]
    return torch.stack(vectors).detach().double().numpy()


@pytest.mark.parametrize("held_out", [6, 2])
def test_the_kept_weights_hold_the_spread_of_the_training_seen_without_dropout(tmp_path, held_out):
    network, training, others = run(tmp_path, held_out=held_out)
    expected = Spread.fit(represented(network, training), represented(network, others))
    found = Spread.from_record(read_record(tmp_path / "model.pt", REPRESENTATION))
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-4, atol=1e-5)
    assert found.level == pytest.approx(expected.level, abs=1e-3)
    assert found.count == (6 if held_out == 6 else 22)
    check_digest(tmp_path / "model.pt")
    assert "groups" not in read_record(tmp_path / "model.pt", REPRESENTATION)
    assert read_record(tmp_path / "model_last.pt", REPRESENTATION) is None
    assert not any(name.startswith("dpt") for name in torch.load(tmp_path / "model.pt"))


def test_a_finished_run_that_is_resumed_keeps_it(tmp_path):
    run(tmp_path)
    before = read_record(tmp_path / "model.pt", REPRESENTATION)
    run(tmp_path, resume=True)
    assert read_record(tmp_path / "model.pt", REPRESENTATION) == before
    check_digest(tmp_path / "model.pt")


def test_a_site_that_the_network_sees_is_told_and_its_spread_needs_no_other_site(tmp_path):
    run(tmp_path, groups=lambda subject: "AB"[subject["nm"].shape[1] % 2])
    record = read_record(tmp_path / "model.pt", REPRESENTATION)
    assert record["count"] == 18  # of the training itself
    assert "balanced accuracy" in record["groups"]


def test_a_network_without_representation_leaves_no_record(tmp_path):
    class Plain(StandIn):
        def forward(self, images):
            output = super().forward(images)
            return output if self.training else {"logits": output["logits"]}

    run(tmp_path / "plain", network=Plain())
    assert read_record(tmp_path / "plain" / "model.pt", REPRESENTATION) is None
    assert read_record(tmp_path / "plain" / "model.pt", REFERENCES) is None


@pytest.mark.parametrize("target", [HC_PD, Score(range=[0, 1])])
def test_a_few_training_subjects_lend_their_representation_and_nothing_else(tmp_path, target):
    network, training, _ = run(tmp_path, target=target, num_references=5)
    record = read_record(tmp_path / "model.pt", REFERENCES)
    assert list(record) == ["rois", "subjects"]
    seen = represented(network, training)
    labels = np.array([subject["label"] for subject in training])
    classes = {"HC": seen[labels == 0], "PD": seen[labels == 1]}
    expected = classes if target == HC_PD else {"all": seen}
    assert list(record["subjects"]) == list(expected)
    for name, vectors in record["subjects"].items():
        distance = np.abs(np.array(vectors)[:, None] - expected[name]).max(2)
        assert (distance.min(1) < 1e-5).all()  # of its class
        assert len(set(distance.argmin(1))) == 5  # of five subjects, not in their order
        assert list(distance.argmin(1)) != sorted(distance.argmin(1))
    check_digest(tmp_path / "model.pt")


def test_no_reference_is_kept_where_none_is_wanted(tmp_path):
    run(tmp_path, num_references=0)
    assert read_record(tmp_path / "model.pt", REFERENCES) is None
    assert read_record(tmp_path / "model.pt", REPRESENTATION) is not None
