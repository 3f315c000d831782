import warnings

import pytest
import torch
from ignite.engine import Events
from ignite.metrics import Accuracy, Fbeta
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import ROCAUC, from_engine
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from torch.nn.functional import interpolate

from mrn_components.data.dataset import collate_subjects
from mrn_components.regions.batch import PrepareROIBatch
from mrn_components.regions.roi import ROI
from mrn_components.regions.transforms import ROIMaskChannelsd
from mrn_components.training.outputs import DiagnosisOutputd

ROIS = {
    "nm": ROI(image="nm", nuclei=["SN"], size=32),
    "qsm3": ROI(image="qsm", nuclei=["DN"], size=24),
}


def make_subject(number, label=None):
    """A subject whose crops have a shape of their own."""
    generator = torch.Generator().manual_seed(number)
    subject = {"subject": f"S{number}"} | ({} if label is None else {"label": label})
    for name in ROIS:
        shape = (1, 3 + number % 3, 10 + number, 20 - number % 2)
        subject[name] = torch.rand(shape, generator=generator)
        subject[f"mask_{name}"] = torch.randint(0, 2, shape, generator=generator).to(torch.uint8)
    return subject


@pytest.fixture
def batch():
    return collate_subjects([make_subject(number, number % 2) for number in range(3)])


def test_collated_labels_are_a_tensor_and_the_rest_lists(batch):
    assert torch.equal(batch["label"], torch.tensor([0, 1, 0]))
    assert batch["label"].dtype == torch.int64
    assert batch["subject"] == ["S0", "S1", "S2"]
    assert [tuple(crop.shape) for crop in batch["nm"]] == [
        (1, 3, 10, 20),
        (1, 4, 11, 19),
        (1, 5, 12, 20),
    ]


def test_the_longest_side_becomes_the_rois_size_and_aspect_and_slices_stay(batch):
    images, targets = PrepareROIBatch(rois=ROIS)(batch)
    assert [tuple(image.shape) for image in images["nm"]] == [
        (1, 3, 16, 32),
        (1, 4, 19, 32),
        (1, 5, 19, 32),
    ]
    assert [tuple(image.shape) for image in images["qsm3"]] == [
        (1, 3, 12, 24),
        (1, 4, 14, 24),
        (1, 5, 14, 24),
    ]
    assert torch.equal(targets["label"], batch["label"])
    for name in ROIS:
        for image, mask in zip(images[name], targets["masks"][name], strict=True):
            assert mask.shape == image.shape[1:]
            assert mask.dtype == torch.int64
            assert image.dtype == torch.float32


def test_a_batch_equals_its_subjects_alone(batch):
    prepare = PrepareROIBatch(rois=ROIS)
    images, targets = prepare(batch)
    for number in range(3):
        alone, target = prepare(collate_subjects([make_subject(number)]))
        assert "label" not in target
        for name in ROIS:
            assert torch.equal(alone[name][0], images[name][number])
            assert torch.equal(target["masks"][name][0], targets["masks"][name][number])


def test_a_crop_of_the_rois_size_stays_as_it_is():
    roi = ROI(image="nm", nuclei=["SN"], size=20)
    subject = make_subject(0)
    images, targets = PrepareROIBatch(rois={"nm": roi})(collate_subjects([subject]))
    assert torch.equal(images["nm"][0], subject["nm"])
    assert torch.equal(targets["masks"]["nm"][0], subject["mask_nm"][0].long())


@pytest.mark.parametrize(("size", "antialias"), [(32, False), (8, True)])
def test_images_are_smoothed_only_when_they_shrink(size, antialias):
    subject = make_subject(0)
    prepare = PrepareROIBatch(rois={"nm": ROI(image="nm", nuclei=["SN"], size=size)})
    (image,) = prepare(collate_subjects([subject]))[0]["nm"]
    expected = interpolate(
        subject["nm"][0][:, None], (size // 2, size), mode="bilinear", antialias=antialias
    )
    assert torch.equal(image[0], expected[:, 0])


@pytest.mark.parametrize("size", [32, 8])  # larger, smaller
def test_mask_channels_are_resized_like_the_image_and_still_sum_to_1(size):
    subject = make_subject(0)
    roi = ROI(image="nm", nuclei=["SN"], size=size)
    (plain,) = PrepareROIBatch(rois={"nm": roi})(collate_subjects([subject]))[0]["nm"]
    (image,) = PrepareROIBatch(rois={"nm": roi})(
        collate_subjects([ROIMaskChannelsd(rois={"nm": roi})(subject)])
    )[0]["nm"]
    assert image.shape == (3, 3, size // 2, size)
    assert torch.equal(image[:1], plain)
    assert 0 <= image[1:].min() < image[1:].max() <= 1
    torch.testing.assert_close(image[1:].sum(0), torch.ones(image.shape[1:]))


def test_masks_keep_their_centre_under_the_image():
    """A block of class 1 that is white in the image stays over the white pixels."""
    block = torch.zeros(1, 2, 10, 20)
    block[..., 2:5, 4:10] = 1
    batch = collate_subjects([{"nm": block, "mask_nm": block.to(torch.uint8)}])
    roi = ROI(image="nm", nuclei=["SN"], size=40)
    images, targets = PrepareROIBatch(rois={"nm": roi})(batch)
    assert torch.equal(targets["masks"]["nm"][0], (images["nm"][0][0] > 0.5).long())


def test_intensities_that_noise_took_beyond_are_clipped_and_metadata_dropped():
    crop = MetaTensor(torch.full((1, 2, 10, 20), 1.5))
    (image,) = PrepareROIBatch(rois={"nm": ROIS["nm"]})({"nm": [crop]})[0]["nm"]
    assert type(image) is torch.Tensor
    assert torch.equal(image, torch.ones_like(image))


def test_the_callers_batch_is_left_alone(batch):
    batch["nm"][0] *= 2  # beyond [0, 1], so that clipping in place would show
    before = batch["nm"][0].clone()
    PrepareROIBatch(rois={"nm": ROI(image="nm", nuclei=["SN"], size=20)})(batch)
    assert torch.equal(batch["nm"][0], before)


class MeanNetwork(torch.nn.Module):
    """Stands in for the MRN: same inputs and outputs, the brightness decides."""

    def forward(self, images):
        score = torch.stack([4 * image.mean() - 2 for image in images["nm"]])
        return {"logits": torch.stack([-score, score], dim=1), "patient": score[:, None]}


def evaluate(labels):
    """Run MONAI's evaluator on ragged subjects; metrics, probabilities and the ids it saw."""
    subjects = [make_subject(number, label) for number, label in enumerate(labels)]
    for subject, brightness in zip(subjects, torch.linspace(0.3, 1.2, len(labels)), strict=True):
        subject["nm"] = subject["nm"] * brightness
    seen: dict[str, float] = {}
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(subjects), batch_size=4, collate_fn=collate_subjects),
        network=MeanNetwork(),
        prepare_batch=PrepareROIBatch(rois=ROIS),
        postprocessing=DiagnosisOutputd(),
        key_val_metric={"roc_auc": ROCAUC(output_transform=from_engine(["prob_pd", "label"]))},
        additional_metrics={
            "accuracy": Accuracy(output_transform=from_engine(["pred", "label"])),
            "f1_macro": Fbeta(beta=1, output_transform=from_engine(["pred", "label"])),
        },
        decollate=False,  # decollating would cut ragged crops along their slices
    )

    @evaluator.on(Events.ITERATION_COMPLETED)
    def note(engine):
        output = engine.state.output["prob_pd"].tolist()
        seen.update(zip(engine.state.batch["subject"], output, strict=True))

    evaluator.run()
    return evaluator.state.metrics, seen


def test_stock_metrics_on_ragged_subjects_are_scikit_learns():
    labels = [0, 1, 0, 0, 1, 0, 1, 1, 0, 1]
    metrics, seen = evaluate(labels)
    assert list(seen) == [f"S{number}" for number in range(10)]
    prob = list(seen.values())
    decision = [p > 0.5 for p in prob]
    assert metrics["roc_auc"] == pytest.approx(roc_auc_score(labels, prob))
    assert metrics["accuracy"] == pytest.approx(accuracy_score(labels, decision))
    assert metrics["f1_macro"] == pytest.approx(f1_score(labels, decision, average="macro"))
    assert 0 < metrics["accuracy"] < 1


def test_one_class_alone_has_an_accuracy_but_no_auc():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI warns that the AUC is not defined
        metrics, seen = evaluate([1, 1, 1])
    assert metrics["roc_auc"] != metrics["roc_auc"]
    assert metrics["accuracy"] == pytest.approx(sum(p > 0.5 for p in seen.values()) / 3)
