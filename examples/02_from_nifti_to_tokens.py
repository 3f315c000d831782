# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A subject from NIfTI to tokens, with a picture of each stop
#
# Two images, two masks of nuclei, and what becomes of them before the network classifies:
# volumes, boxes around nuclei, crops, slices, tokens. The subject is a phantom. Run it from the
# root of the repository.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from mrn_components import (
    ROI,
    MergeSidesd,
    PrepareROIBatch,
    ReadVolumesd,
    ROICropd,
    ScaleImagesd,
    SliceEncoder,
)
from mrn_components.data import load_subjects
from mrn_components.data.dataset import collate_subjects
from mrn_components.images.volume import read_volume
from mrn_components.networks.packing import unpack
from mrn_components.phantom import make_cohort

WORK = Path("build/examples")
cohort = make_cohort(WORK / "phantoms", subjects=16, seed=1, view="midbrain", workers=2)
subject = load_subjects(dataset_dir=str(cohort))[1]
print(subject)

# %% [markdown]
# ## Files
#
# A volume is a file that was read and checked once: its voxels in their unit, its place in mm,
# and the ids of a mask.

# %%
volumes = {name: read_volume(subject[name]) for name in ("nm", "qsm", "mask_nm", "mask_qsm")}
for name, volume in volumes.items():
    print(f"{name:8}", volume.shape, "voxels of", np.round(volume.spacing_mm, 2), "mm")
print("boxes of the nuclei in the QSM mask", len(volumes["mask_qsm"].boxes), "ids")

figure, axes = plt.subplots(1, 2, figsize=(8, 4))
for axis, name in zip(axes, ("nm", "qsm"), strict=True):
    image, mask = (volumes[key].canonical for key in (name, f"mask_{name}"))
    middle = int(np.median(np.nonzero(mask.ids)[2]))
    axis.imshow(image.values()[:, :, middle].T, cmap="gray", origin="lower")
    axis.contour(mask.ids[:, :, middle].T > 0, levels=[0.5], colors="orange")
    axis.set(title=f"{name}, slice {middle}", xticks=[], yticks=[])
figure.savefig(WORK / "1_files.png")

# %% [markdown]
# ## Crops
#
# The preprocessing of the configs, step by step: read, scale to 0 to 1, cut the box of the nuclei
# with 4 mm around it, and give left and right one class. A batch is resized when it reaches the
# device: with `ROI(size=56)` the longer side has 56 pixels; the paper has 224.

# %%
rois = {
    "nm": ROI(image="nm", nuclei=["SN"], size=56),
    "qsm2": ROI(image="qsm", nuclei=["STN", "SN", "RN"], size=56),
}
data = dict(subject)
for step in (ReadVolumesd, ScaleImagesd, ROICropd, MergeSidesd):
    data = step(rois=rois)(data)
images, targets = PrepareROIBatch(rois=rois)(collate_subjects([data]), torch.device("cpu"))
for name in rois:
    print(name, "was cut to", tuple(data[name].shape[1:]), "slices, rows, columns, and is now")
    print("    ", tuple(images[name][0].shape[1:]))

figure, axes = plt.subplots(2, 6, figsize=(10, 3), layout="constrained")
for row, name in zip(axes, rois, strict=True):
    crop, mask = images[name][0][0], targets["masks"][name][0]
    inside = np.flatnonzero(mask.flatten(1).any(1))  # slices with a nucleus
    shown = inside[np.linspace(0, len(inside) - 1, 6).astype(int)]
    for axis, number in zip(row, shown, strict=True):
        axis.imshow(crop[number], cmap="gray", vmin=0, vmax=1)
        axis.contour(mask[number], levels=[0.5], colors="orange", linewidths=0.7)
        axis.set(title=f"{name} {number}", xticks=[], yticks=[])
figure.savefig(WORK / "2_crops.png")

# %% [markdown]
# ## Tokens
#
# The encoder makes a token of each patch of 14 x 14 pixels, and one of each slice. The three
# strongest components of the patch tokens, shown as red, green and blue: even random weights tell
# tissue apart a little; DINOv2's (`weights="hub"`) do much better.

# %%
torch.manual_seed(0)
encoder = SliceEncoder(
    name="vit_small_patch14_reg4_dinov2.lvd142m",
    weights="none",
    depth=2,
    embed_dim=64,
    num_heads=2,
).eval()
crop = images["qsm2"][0][0]
with torch.no_grad():
    levels, grids = encoder([crop])
(tokens,) = unpack(levels[-1], grids)  # (slices, slice token and patches, width)
(grid,) = grids
print(grid, "->", tuple(tokens.shape))

patches = tokens[:, grid.prefix :].reshape(-1, tokens.shape[-1])
_, _, axes3 = torch.pca_lowrank(patches, q=3)
colours = (patches - patches.mean(0)) @ axes3
colours = (colours - colours.amin(0)) / (colours.amax(0) - colours.amin(0))
colours = colours.view(grid.depth, grid.height, grid.width, 3)

figure, axes = plt.subplots(1, 2, figsize=(7, 3.5))
middle = grid.depth // 2
axes[0].imshow(crop[middle], cmap="gray", vmin=0, vmax=1)
axes[1].imshow(colours[middle])
for axis, title in zip(axes, ("a slice of qsm2", "its patch tokens"), strict=True):
    axis.set(title=title, xticks=[], yticks=[])
figure.savefig(WORK / "3_tokens.png")

# %% [markdown]
# FFA lets these tokens see each other, SFA makes one token of the slices' tokens, and the tokens
# of all regions are the patient: [An MRN in ten lines](01_ten_lines.py).
