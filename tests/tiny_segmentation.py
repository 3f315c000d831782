"""A nuclei network of a few channels, and a segmentation bundle with random weights."""

import json
import shutil
from pathlib import Path

import torch

from mrn_components import NucleiUNet
from mrn_components.images.image import CHALLENGE_IMAGES

CONFIGS = Path(__file__).parent.parent / "bundles" / "segmentation" / "configs"


def make_plan(image: str = "qsm", folds: int = 1, **changes) -> dict:
    """A plan for the tests' cohort, of two stages."""
    scheme = "CTNormalization" if image == "qsm" else "ZScoreNormalization"
    intensity = {"mean": 40.0, "std": 50.0, "percentile_00_5": -35.0, "percentile_99_5": 190.0}
    return {
        "image": image,
        "labels": len(CHALLENGE_IMAGES[image].ids),
        "folds": folds,
        "spacing_mm": [2.0, 0.6667, 0.6667],
        "patch_voxels": [8, 16, 16],
        "normalization": {"scheme": scheme, "use_mask": False, "intensity": intensity},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": 2,
                "features_per_stage": [4, 8],
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[1, 3, 3], [3, 3, 3]],
                "strides": [[1, 1, 1], [1, 2, 2]],
                "n_conv_per_stage": [1, 1],
                "n_conv_per_stage_decoder": [1],
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    } | changes


def make_segmentation_bundle(folder: Path) -> Path:
    """Write a bundle for both images, as a training leaves it, with random weights."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    shutil.copyfile(CONFIGS / "inference.yaml", folder / "configs" / "inference.yaml")
    for image, weights in (("qsm", "model.pt"), ("nm", "model_nm.pt")):
        plan = make_plan(image)
        (folder / "configs" / f"plan_{image}.json").write_text(json.dumps(plan))
        torch.manual_seed(1)
        torch.save(NucleiUNet(plan=plan).state_dict(), folder / "models" / weights)
    return folder
