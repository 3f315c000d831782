"""Intensities as nnU-Net normalises them."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type

from mrn_components.segmentation.plan import read_plan


class NormalizeByPland(MapTransform):
    """Normalise an image with the scheme that nnU-Net planned, by nnU-Net's own code.

    Comes after the crop to the nonzero box (``CropForegroundd``), as in nnU-Net.

    Args:
        keys: images (1, D, H, W).
        plan: JSON file of the plan, or the plan.

    Raises:
        ValueError: for a file that is no plan.
    """

    def __init__(self, keys: KeysCollection, *, plan: str | Path | Mapping[str, Any]) -> None:
        super().__init__(keys)
        self.normalization = read_plan(plan)["normalization"]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Normalise the images."""
        from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask
        from nnunetv2.preprocessing.normalization import default_normalization_schemes as schemes

        d = dict(data)
        use_mask = self.normalization["use_mask"]
        scheme = getattr(schemes, self.normalization["scheme"])(
            use_mask_for_norm=use_mask, intensityproperties=self.normalization["intensity"]
        )
        for key in self.key_iterator(d):
            voxels = d[key].numpy()[0].copy()
            # nnU-Net marks the inside by 0 and the outside by -1.
            inside = create_nonzero_mask(voxels[None]).astype("int8") - 1 if use_mask else None
            normalized = torch.from_numpy(scheme.run(voxels, inside))
            d[key] = convert_to_dst_type(normalized[None], d[key])[0]  # keeps the geometry
        return d
