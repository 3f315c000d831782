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
# # An MRN in ten lines of Python
#
# Every part of the network is a class that a config may name, and that Python may build. This one
# is small and has random weights: `weights="hub"` and the name
# `vit_base_patch14_reg4_dinov2.lvd142m`, without the sizes, are the paper's DINOv2 (a download of
# 350 MB).

# %%
import torch

from mrn_components import FFA, MRN, RES, ROI, SFA, Classes, SliceEncoder

NAME = "vit_small_patch14_reg4_dinov2.lvd142m"
encoder = SliceEncoder(name=NAME, weights="none", depth=2, embed_dim=64, num_heads=2)
res = RES(encoder=encoder, ffa=FFA(num_layers=1), sfa=SFA(num_layers=1))
rois = {
    "nm": ROI(image="nm", nuclei=["SN"], size=56),
    "qsm": ROI(image="qsm", nuclei=["STN", "SN", "RN"], size=56),
}
network = MRN(rois=rois, res=res, target=Classes(names=["HC", "PD"], positive="PD")).eval()

# %% [markdown]
# A subject is one tensor a region: (batch, channels, slices, rows, columns), values from 0 to 1.
# Regions differ in size, and so do subjects. The first region is the first argument.

# %%
crops = {"nm": torch.rand(1, 1, 8, 42, 56), "qsm": torch.rand(1, 1, 10, 56, 49)}
with torch.no_grad():
    logits = network(crops["nm"], qsm=crops["qsm"])
    without_qsm = network(crops["nm"])  # a region that is left out is hidden
print("P(HC), P(PD)", logits.softmax(-1).tolist())
print("from NM alone", without_qsm.softmax(-1).tolist())

# %% [markdown]
# Subjects of a batch keep their own sizes: a list of crops (channels, slices, rows, columns) a
# region. Each gets the numbers that it gets alone.

# %%
batch = {
    "nm": [crops["nm"][0], torch.rand(1, 6, 56, 30)],
    "qsm": [crops["qsm"][0], torch.rand(1, 9, 40, 56)],
}
with torch.no_grad():
    together = network(batch)["logits"]
print("the first of two", together.softmax(-1)[0].tolist())
assert torch.allclose(together[0], logits[0], atol=1e-5)
print(f"{sum(p.numel() for p in network.parameters()):,} parameters")
