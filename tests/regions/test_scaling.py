"""How neuromelanin is scaled, compared on phantoms; ``-s`` prints the table."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import ScaleIntensityRangePercentiles
from sklearn.metrics import roc_auc_score

from mrn_components.phantom import make_subject
from mrn_components.regions.roi import ROI
from mrn_components.regions.transforms import ROICropd

NIGRA = ROI(image="nm", nuclei=["SN"])
PLAIN = replace(NIGRA, image=replace(NIGRA.image, relative_window=None))
AFFINE = np.diag([-2 / 3, 2 / 3, 2.0, 1.0])
SUBJECTS = 24
VIEWS = [(20, 20, 6), (30, 34, 10)]  # voxels cut off at each border of the midbrain view


def crop(phantom, way, cut=(0, 0, 0)):
    """The NM crop of a subject (1, D, H, W) and its mask, scaled in one of three ways."""
    inner = tuple(slice(n, size - n) for n, size in zip(cut, phantom["NM"].shape, strict=True))
    nm, mask = (torch.tensor(phantom[key][inner][None]).float() for key in ("NM", "NM_mask"))
    if way == "percentiles":
        nm = ScaleIntensityRangePercentiles(0.5, 99.5, 0.0, 1.0, clip=True)(nm)
    volumes = {"nm": torch.tensor(np.asarray(nm)), "mask_nm": mask}
    scaled = ROICropd(rois={"nm": NIGRA if way == "relative" else PLAIN})(
        {key: MetaTensor(volume, affine=AFFINE, meta={}) for key, volume in volumes.items()}
    )
    values = scaled["nm"].as_tensor()
    if way == "deviation":  # a crop's mean becomes 0.5 and its deviation DINOv2's
        values = (0.5 + 0.226 * (values - values.mean()) / values.std()).clamp(0, 1)
    return values, scaled["mask_nm"].as_tensor() > 0


@pytest.mark.slow
def test_neuromelanin_is_scaled_by_what_the_network_looks_at():
    """No voxel of the SN is cut, and no field of view matters; the two other ways do either."""
    rows = {}
    phantoms = [make_subject(index, seed=5, view="midbrain") for index in range(SUBJECTS)]
    for way in ("percentiles", "deviation", "relative"):
        cut, spread, moved, levels = [], [], [], []
        for phantom in phantoms:
            values, nuclei = crop(phantom.volumes, way)
            cut.append(float((values[nuclei] >= 1).float().mean()))
            spread.append(float(values.std()))
            levels.append(float(values[nuclei].mean()))
            others = [crop(phantom.volumes, way, at)[0] for at in VIEWS]
            moved.append(max(float((other - values).abs().max()) for other in others))
        labels = [phantom.label for phantom in phantoms]
        auc = max(a := roc_auc_score(labels, levels), 1 - a)
        rows[way] = (np.mean(cut), np.max(cut), np.mean(spread), np.max(moved), auc)
        print(  # noqa: T201
            f"{way:12} SN cut {rows[way][0]:.4f} (most {rows[way][1]:.4f}), deviation "
            f"{rows[way][2]:.3f}, moved by the field of view {rows[way][3]:.4f}, AUC {auc:.2f}"
        )
    assert rows["relative"][1] == 0
    assert rows["relative"][3] < 0.01
    assert rows["relative"][2] > rows["percentiles"][2]
