import json

import pytest
import torch
from monai.networks.utils import convert_to_onnx
from tiny_segmentation import make_plan

from mrn_components import NucleiUNet


def test_a_class_for_background_and_each_label():
    assert NucleiUNet(plan=make_plan("nm"))(torch.rand(1, 1, 4, 8, 8)).shape == (1, 3, 4, 8, 8)
    assert NucleiUNet(plan=make_plan("qsm"))(torch.rand(2, 1, 4, 8, 8)).shape == (2, 17, 4, 8, 8)


def test_folds_are_averaged():
    torch.manual_seed(0)
    both = NucleiUNet(plan=make_plan(folds=2)).eval()
    image = torch.rand(1, 1, 4, 8, 8)
    alone = []
    for number in range(2):
        one = NucleiUNet(plan=make_plan()).eval()
        one.folds[0].load_state_dict(both.folds[number].state_dict())
        alone.append(one(image))
    assert not torch.allclose(*alone)
    torch.testing.assert_close(both(image), (alone[0] + alone[1]) / 2)


def test_the_names_are_those_of_nnunet():
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    plan = make_plan()
    theirs = get_network_from_plans(
        plan["architecture"]["network_class_name"],
        plan["architecture"]["arch_kwargs"],
        plan["architecture"]["_kw_requires_import"],
        1,
        17,
        deep_supervision=True,  # as in training
    )
    NucleiUNet(plan=plan).folds[0].load_state_dict(theirs.state_dict(), strict=True)


def test_a_missing_or_wrong_plan_says_what_to_do(tmp_path):
    path = tmp_path / "plan_qsm.json"
    with pytest.raises(FileNotFoundError, match=r"Train first .* --plan FILE"):
        NucleiUNet(plan=path)
    path.write_text(json.dumps({"image": "qsm"}))
    with pytest.raises(ValueError, match="is no plan of a nuclei network: it lacks"):
        NucleiUNet(plan=path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"no plan of a nuclei network: it cannot be read \(JSON"):
        NucleiUNet(plan=path)


@pytest.mark.slow
@torch.no_grad()
def test_onnx_agrees_at_three_sizes_whatever_the_precision():
    runtime = pytest.importorskip("onnxruntime")
    network = NucleiUNet(plan=make_plan(folds=2), precision="bf16").eval()
    onnx = convert_to_onnx(
        network,
        [torch.rand(1, 1, 8, 16, 16)],
        input_names=["image"],
        use_trace=False,
        dynamic_axes={"image": {2: "slices", 3: "rows", 4: "columns"}},
    )
    session = runtime.InferenceSession(onnx.SerializeToString())
    network.precision = "fp32"
    for size in ((4, 8, 8), (8, 16, 16), (12, 16, 32)):
        image = torch.rand(1, 1, *size)
        (got,) = session.run(None, {"image": image.numpy()})
        torch.testing.assert_close(torch.from_numpy(got), network(image), atol=1e-4, rtol=1e-4)
