import math

import pytest
import torch
from pytorch_metric_learning.losses import NTXentLoss, SupConLoss
from stand_in import ROIS
from torch.nn import functional

from mrn_components import MRNLoss, NucleiLoss, PatientContrastiveLoss

ORACLES = {"negatives": NTXentLoss, "supcon": SupConLoss}


def unit(*shape, seed=0, dtype=torch.float32):
    rng = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(*shape, generator=rng, dtype=dtype), dim=-1)


def contrast(anchors=4, keys=32, dtype=torch.float32):
    """Queries and labels, and as many keys of each class."""
    queries = unit(anchors, 16, dtype=dtype).requires_grad_()
    labels = torch.arange(anchors) % 2
    return queries, labels, unit(keys, 16, seed=1, dtype=dtype), torch.arange(keys) % 2


# ---- patient contrast (Eq. 8)


@pytest.mark.parametrize("temperature", [0.1, 0.07])
@pytest.mark.parametrize("denominator", ORACLES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_contrast_and_gradient_equal_pytorch_metric_learning(denominator, dtype, temperature):
    raw, labels, keys, key_labels = contrast(dtype=dtype)
    queries = functional.normalize(raw)  # as a projector does; the oracle always does
    ours = PatientContrastiveLoss(temperature=temperature, denominator=denominator)
    oracle = ORACLES[denominator](temperature=temperature)

    value = ours(queries, labels, keys, key_labels)
    expected = oracle(queries, labels, ref_emb=keys, ref_labels=key_labels)
    (gradient,) = torch.autograd.grad(value, raw, retain_graph=True)
    (expected_gradient,) = torch.autograd.grad(expected, raw)

    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-6, atol=1e-6)


def test_one_positive_is_the_cross_entropy_of_moco():
    query, labels, keys, _ = contrast(anchors=1, keys=9)
    key_labels = torch.tensor([0, *[1] * 8])
    logits = query @ keys.T / 0.1  # the positive first
    expected = functional.cross_entropy(logits, torch.tensor([0]))
    for denominator in ORACLES:
        loss = PatientContrastiveLoss(denominator=denominator)(query, labels, keys, key_labels)
        torch.testing.assert_close(loss, expected)


def test_equal_embeddings_have_known_losses():
    keys = torch.ones(2048, 1)
    labels = torch.arange(2048) % 2
    arguments = torch.ones(1, 1), torch.tensor([0]), keys, labels
    negatives = PatientContrastiveLoss()(*arguments)
    supcon = PatientContrastiveLoss(denominator="supcon")(*arguments)
    assert negatives.item() == pytest.approx(math.log(1 + 1024), abs=1e-5)
    assert supcon.item() == pytest.approx(math.log(2048), abs=1e-5)


@pytest.mark.parametrize("denominator", ORACLES)
@pytest.mark.parametrize("bank", ["empty", "own class", "other class"])
def test_anchors_without_both_kinds_of_keys_give_zero_and_a_graph(denominator, bank):
    queries, _, keys, _ = contrast()
    labels = torch.zeros(4, dtype=torch.int64)
    keys = keys[:0] if bank == "empty" else keys
    key_labels = torch.full((len(keys),), int(bank == "other class"))
    loss = PatientContrastiveLoss(denominator=denominator)(queries, labels, keys, key_labels)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(queries.grad, torch.zeros_like(queries))


def test_an_anchor_of_a_class_without_keys_counts_as_zero():
    queries, labels, keys, key_labels = contrast(anchors=2)
    labels[1] = 2
    loss = PatientContrastiveLoss()
    both = loss(queries, labels, keys, key_labels)
    first = loss(queries[:1], labels[:1], keys, key_labels)
    torch.testing.assert_close(both, first / 2)


def test_own_key_is_not_a_positive():
    queries, labels, keys, key_labels = contrast(anchors=1)
    loss = PatientContrastiveLoss()
    excluded = loss(queries, labels, keys, key_labels, own_keys=keys[:1])
    torch.testing.assert_close(excluded, loss(queries, labels, keys[1:], key_labels[1:]))


def test_autocast_does_not_touch_the_contrast():
    arguments = contrast()
    expected = PatientContrastiveLoss()(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(PatientContrastiveLoss()(*arguments), expected)


def test_contrast_refuses_bad_arguments():
    with pytest.raises(ValueError, match=r"temperature must be above 0, got 0"):
        PatientContrastiveLoss(temperature=0)
    with pytest.raises(ValueError, match="denominator must be 'negatives' or 'supcon', got 'all'"):
        PatientContrastiveLoss(denominator="all")


# ---- segmentation (Eq. 10)


def crops(subjects=2, seed=0):
    rng = torch.Generator().manual_seed(seed)
    logits = {
        roi: [
            torch.randn(k, 2 + i, 3, 4, generator=rng, requires_grad=True) for i in range(subjects)
        ]
        for roi, k in ROIS.items()
    }
    masks = {
        roi: [torch.randint(0, ROIS[roi], crop.shape[1:], generator=rng) for crop in logits[roi]]
        for roi in ROIS
    }
    return logits, masks


def test_nuclei_loss_is_cross_entropy_weighted_by_one_minus_share():
    logits, masks = crops()
    expected = 0
    for roi, classes in ROIS.items():
        for crop, mask in zip(logits[roi], masks[roi], strict=True):
            share = functional.one_hot(mask, classes).double().mean((0, 1, 2)).float()
            expected += functional.cross_entropy(crop[None], mask[None], weight=1 - share) / 2
    torch.testing.assert_close(NucleiLoss()(logits, masks), expected)


def test_nuclei_loss_of_the_first_authors_code_is_a_mean_over_voxels_plus_dice():
    """Weighted cross entropy as above; Dice as 1 - 2 |A and B| / (|A| + |B|), mean over classes."""
    logits, masks = crops()
    expected = 0
    for roi, classes in ROIS.items():
        for crop, mask in zip(logits[roi], masks[roi], strict=True):
            truth = functional.one_hot(mask, classes).movedim(-1, 0).float()
            weight = 1 - truth.mean((1, 2, 3))
            entropy = functional.cross_entropy(crop[None], mask[None], weight, reduction="none")
            prob = crop.softmax(0)
            both, either = (truth * prob).sum((1, 2, 3)), (truth + prob).sum((1, 2, 3))
            expected += (entropy.mean() + 0.5 * (1 - 2 * both / either).mean()) / 2
    loss = NucleiLoss(mean_over="voxels", dice_weight=0.5)(logits, masks)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="mean_over must be 'weights' or 'voxels', got 'crops'"):
        NucleiLoss(mean_over="crops")


def test_nuclei_loss_sums_rois_and_averages_subjects():
    logits, masks = crops()
    loss = NucleiLoss()
    singles = [
        loss({roi: [crop]}, {roi: [mask]})
        for roi in ROIS
        for crop, mask in zip(logits[roi], masks[roi], strict=True)
    ]
    torch.testing.assert_close(loss(logits, masks), torch.stack(singles).sum() / 2)


def test_nuclei_loss_of_one_foreground_voxel_is_not_damped():
    logits, masks = crops(subjects=1)
    masks["nm"][0] = torch.zeros_like(masks["nm"][0])
    masks["nm"][0][0, 0, 0] = 1
    share = 1 / masks["nm"][0].numel()
    expected = functional.cross_entropy(
        logits["nm"][0][None], masks["nm"][0][None], weight=torch.tensor([share, 1 - share])
    )
    torch.testing.assert_close(NucleiLoss()({"nm": logits["nm"]}, {"nm": masks["nm"]}), expected)


def test_a_crop_of_background_alone_has_zero_loss_and_gradient():
    logits, masks = crops()
    background = {roi: [torch.zeros_like(mask) for mask in masks[roi]] for roi in masks}
    loss = NucleiLoss()(logits, background)
    loss.backward()
    assert loss.item() == 0
    assert all(not crop.grad.any() for roi in logits for crop in logits[roi])


# ---- the sum (Eq. 11 and 12)


def prediction(with_masks=True):
    logits, masks = crops()
    pred = {"logits": torch.randn(2, 2, requires_grad=True), "patient": torch.randn(2, 3)}
    if with_masks:
        pred["masks"] = logits
    return pred, {"label": torch.tensor([0, 1]), "masks": masks}


def test_mrn_loss_is_the_weighted_sum_of_its_terms():
    pred, target = prediction()
    loss = MRNLoss(cls_weight=0.5, seg_weight=2.0)
    value = loss(pred, target)
    classification = functional.cross_entropy(pred["logits"], target["label"])
    segmentation = NucleiLoss()(pred["masks"], target["masks"])
    torch.testing.assert_close(value, 0.5 * classification + 2.0 * segmentation)
    assert loss.terms == {"classification": classification, "segmentation": segmentation}
    assert not any(term.requires_grad for term in loss.terms.values())


def test_mrn_loss_without_dpt_is_cross_entropy():
    pred, target = prediction(with_masks=False)
    loss = MRNLoss()
    assert torch.equal(
        loss(pred, target), functional.cross_entropy(pred["logits"], target["label"])
    )
    assert list(loss.terms) == ["classification"]


def test_a_weight_of_zero_keeps_the_graph():
    pred, target = prediction()
    MRNLoss(cls_weight=0.0)(pred, target).backward()
    assert torch.equal(pred["logits"].grad, torch.zeros(2, 2))


def test_parts_can_be_replaced():
    pred, target = prediction(with_masks=False)
    loss = MRNLoss(classification=torch.nn.CrossEntropyLoss(label_smoothing=0.1))
    expected = functional.cross_entropy(pred["logits"], target["label"], label_smoothing=0.1)
    assert torch.equal(loss(pred, target), expected)


@pytest.mark.parametrize("key", ["label", "masks"])
def test_mrn_loss_names_what_the_data_lacks(key):
    pred, target = prediction()
    del target[key]
    with pytest.raises(ValueError, match=rf"target must hold \['{key}'\] for training"):
        MRNLoss()(pred, target)
