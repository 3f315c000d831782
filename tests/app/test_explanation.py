"""What moved P(PD): sums, an independent occlusion, and what is refused."""

from copy import deepcopy

import pytest
import torch
from captum.attr import Occlusion
from monai.bundle import ConfigParser
from tiny_run import CONFIGS, TINY

from mrn_components import FoldEnsemble
from mrn_components.app.report.explanation import explain_subject

ROIS = ("nm", "qsm1", "qsm2", "qsm3")


@pytest.fixture(scope="module")
def network():
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / "inference.yaml"))
    parser.update(TINY)
    torch.manual_seed(0)
    network = parser.get_parsed_content("network_def")
    with torch.no_grad():
        network.classifier[-1].weight.mul_(3)
    return network.eval()


@pytest.fixture(scope="module")
def images():
    torch.manual_seed(1)
    return {roi: [torch.rand(1, 2 + i, 20, 28)] for i, roi in enumerate(ROIS)}


def prob_pd(network, images):
    with torch.no_grad():
        return network(images)["logits"].softmax(-1)[:, 1]


def test_values_add_up_and_maps_are_those_of_captum(network, images):
    explanation = explain_subject(network, images, num_cells=4)
    assert explanation["prob_pd"] == pytest.approx(float(prob_pd(network, images)), abs=1e-5)
    total = explanation["prob_pd"] - explanation["baseline"]
    assert sum(explanation["shapley"].values()) == pytest.approx(total, abs=1e-6)
    for roi in ("nm", "qsm3"):
        crop = images[roi][0]

        def ask(crops, roi=roi):
            return torch.cat([prob_pd(network, images | {roi: [one]}) for one in crops])

        oracle = Occlusion(ask).attribute(
            crop[None],
            sliding_window_shapes=(1, crop.shape[1], 7, 7),
            strides=(1, crop.shape[1], 7, 7),
            baselines=float(crop.mean()),
        )
        # 20 rows make 3 cells of 7, 6 and 7; captum's windows begin at 0 and 7 as ours.
        ours = torch.tensor(explanation["occlusion"][roi])
        assert ours.shape == (3, 4)
        torch.testing.assert_close(ours[0], oracle[0, 0, 0, 0, ::7].float(), atol=1e-5, rtol=0)
        assert ours.abs().max() > 1e-4


def test_an_ensemble_is_the_mean_of_its_folds(network, images):
    ensemble = FoldEnsemble(network=network, num_folds=2)
    with torch.no_grad():
        ensemble.folds[1].classifier[-1].weight.mul_(-2)
    both = explain_subject(ensemble, images, num_cells=2)
    each = [explain_subject(fold, images, num_cells=2) for fold in ensemble.folds]
    assert each[0]["prob_pd"] != pytest.approx(each[1]["prob_pd"], abs=1e-3)
    for key in ("prob_pd", "baseline"):
        assert both[key] == pytest.approx((each[0][key] + each[1][key]) / 2, abs=1e-5)
    maps = [torch.tensor(one["occlusion"]["qsm2"]) for one in (both, *each)]
    torch.testing.assert_close(maps[0], (maps[1] + maps[2]) / 2, atol=1e-5, rtol=0)


def test_the_attention_comes_with_one_pass_and_occlusion_is_left_out(network, images):
    network, passes = deepcopy(network), []
    with torch.no_grad():
        network.res.encoder.vit.blocks[-1].attn.qkv.weight.mul_(30)  # it looks at something
    hook = network.register_forward_hook(lambda *_: passes.append(1))
    found = explain_subject(network, images, occlusion=False)
    hook.remove()
    assert len(passes) == 2  # with all ROIs visible, and with all of them zeros
    assert found["occlusion"] == {}
    whole = explain_subject(network, images, num_cells=1)
    assert {k: v for k, v in whole.items() if k != "occlusion"} == {
        k: v for k, v in found.items() if k != "occlusion"
    }
    for i, roi in enumerate(ROIS):
        looks = found["attention"][roi]
        assert len(looks["slices"]) == 2 + i
        assert sum(looks["slices"]) == pytest.approx(1, abs=1e-5)
        cells = torch.tensor(looks["cells"])
        assert cells.shape == (11, 16)  # of 20 x 28 pixels
        assert float(cells.mean()) == pytest.approx(1, abs=0.05)
        assert float(cells.std()) > 5e-4


def test_what_is_not_one_subject_is_refused(network, images):
    with pytest.raises(ValueError, match="takes one crop of each ROI and num_cells >= 1"):
        explain_subject(network, {roi: crops * 2 for roi, crops in images.items()})
    with pytest.raises(ValueError, match="num_cells 0"):
        explain_subject(network, images, num_cells=0)
