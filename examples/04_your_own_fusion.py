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
# # Your own fusion, named in YAML
#
# FFA is one way to let the slices of a region see each other. Any class with the three methods of
# the Protocol `Fusion` may stand in its place: nothing is inherited from us, and nothing of this
# package is edited. Run it from the root of the repository.

# %%
import inspect
import shutil
import sys
from pathlib import Path

import torch
from monai.bundle import ConfigWorkflow

from mrn_components.networks.ffa import Fusion
from mrn_components.networks.packing import VolumeGrid
from mrn_components.phantom import make_cohort

print(inspect.getdoc(Fusion))

# %% [markdown]
# This one adds to every token what a small network makes of the mean of the volume's slice
# tokens. It stands in a file of yours; Python has to find it.

# %%
WORK = Path("build/examples")
WORK.mkdir(parents=True, exist_ok=True)
(WORK / "my_fusion.py").write_text('''
import torch
from torch import nn

from mrn_components.networks.packing import slice_tokens, unpack


class MeanFusion(nn.Module):
    """Tell every token what the slices of its volume are on average."""

    def __init__(self, *, num_layers=1):
        super().__init__()
        self.num_layers = num_layers

    def build(self, channels, num_heads):
        self.layers = nn.ModuleList(nn.Linear(channels, channels) for _ in range(self.num_layers))

    def set_grad_checkpointing(self, enable=True):
        """Nothing to recompute: a layer keeps a vector."""

    def forward(self, tokens, grids, *, slices_only=False):
        levels = []
        for layer in self.layers:
            volumes = unpack(tokens, grids)  # (slices, tokens, channels) each
            told = [volume + layer(volume[:, 0].mean(0)).tanh() for volume in volumes]
            tokens = torch.cat([volume.flatten(0, 1) for volume in told])
            levels.append(tokens)
        return slice_tokens(tokens, grids), levels, levels
''')
(WORK / "my_overlay.yaml").write_text(
    "network_def#res#ffa: {_target_: my_fusion.MeanFusion, num_layers: 2}\n"
)
sys.path.insert(0, str(WORK))

# %% [markdown]
# One law to hold: volumes of a batch must not see each other.

# %%
from my_fusion import MeanFusion

fusion = MeanFusion()
fusion.build(8, 2)
grids = [VolumeGrid(3, 2, 2), VolumeGrid(2, 2, 3)]
tokens = torch.rand(sum(grid.total for grid in grids), 8)
together, _, _ = fusion(tokens, grids)
alone, _, _ = fusion(tokens[: grids[0].total], grids[:1])
assert torch.allclose(together[: grids[0].depth], alone)

# %% [markdown]
# The overlay puts it into the config of MRN. On the command line the same is
# `--network_def#res#ffa "{'_target_': 'my_fusion.MeanFusion', 'num_layers': 2}"`.

# %%
cohort = make_cohort(WORK / "phantoms", subjects=16, seed=1, view="midbrain", workers=2)
shutil.rmtree(WORK / "own", ignore_errors=True)
workflow = ConfigWorkflow(
    [
        "bundles/mrn/configs/train.yaml",
        "bundles/mrn/configs/small.yaml",
        str(WORK / "my_overlay.yaml"),
    ],
    workflow_type="train",
    logging_file=False,
    dataset_dir=str(cohort),
    bundle_root="bundles/mrn",
    output_dir=str(WORK / "own"),
    cache_dir=str(WORK / "cache"),
    image_size=28,
    epochs=2,
    num_workers=0,
)
workflow.initialize()
workflow.run()
trainer = workflow.parser.get_parsed_content("train#trainer")
print(trainer.network.res.ffa, "loss", round(trainer.state.metrics["loss"], 3))
assert type(trainer.network.res.ffa) is MeanFusion

# %% [markdown]
# To predict with such weights add `--trust_bundle True`: a bundle that names code of its own is
# no longer data alone.
