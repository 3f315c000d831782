import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import CropForegroundd
from tiny_segmentation import make_plan

from mrn_components import NormalizeByPland


@pytest.mark.parametrize("scheme", ["ZScoreNormalization", "CTNormalization"])
@pytest.mark.parametrize("use_mask", [False, True])
def test_it_is_what_nnunet_does(scheme, use_mask):
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    if scheme == "CTNormalization" and use_mask:
        pytest.skip("nnU-Net never plans this")
    plan = make_plan("qsm")
    plan["normalization"] |= {"scheme": scheme, "use_mask": use_mask}
    volume = np.zeros((10, 20, 20), np.float32)  # a head with nothing around it, and a hole
    volume[2:9, 3:18, 4:15] = np.random.default_rng(0).normal(50, 30, (7, 15, 11))
    volume[4:6, 8:10, 8:10] = 0
    plans = {
        "dataset_name": "d",
        "plans_name": "p",
        "transpose_forward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": {"0": plan["normalization"]["intensity"]},
        "configurations": {
            "3d_fullres": {
                "spacing": plan["spacing_mm"],
                "architecture": plan["architecture"],
                "normalization_schemes": [scheme],
                "use_mask_for_norm": [use_mask],
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": {},
                "resampling_fn_seg": "resample_data_or_seg_to_shape",
                "resampling_fn_seg_kwargs": {},
            }
        },
    }
    manager = PlansManager(plans)
    theirs, _, _ = DefaultPreprocessor(verbose=False).run_case_npy(
        volume[None],
        None,
        {"spacing": plan["spacing_mm"]},
        manager,
        manager.get_configuration("3d_fullres"),
        {},
    )
    data = {"image": MetaTensor(torch.from_numpy(volume)[None])}
    crop = CropForegroundd(keys="image", source_key="image", select_fn=torch.Tensor.bool)
    ours = NormalizeByPland("image", plan=plan)(crop(data))["image"]
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)
    assert isinstance(ours, MetaTensor)
    assert ours.applied_operations  # the crop can still be undone
