"""The bundles at a size that trains in seconds."""

from pathlib import Path

import torch

BUNDLES = Path(__file__).parent.parent / "bundles"
SMALL = {
    "encoder_weights": "none",
    "image_size": 28,
    "epochs": 2,
    "pretrain_epochs": 1,
    "batch_size": 3,  # 8 subjects: the last batch is smaller
    "num_workers": 0,
}
TINY = {
    "mrn": {
        **SMALL,
        "network_def#res#encoder": {
            "_target_": "mrn_components.SliceEncoder",
            "name": "vit_small_patch14_reg4_dinov2.lvd142m",
            "depth": 2,
            "embed_dim": 48,
            "num_heads": 2,
        },
        "network_def#res#ffa#num_layers": 1,
        "network_def#res#sfa#num_layers": 1,
        "network_def#res#dpt#fusion_channels": 16,
    },
    "seres10": {
        **SMALL,
        "network_def#encoder#widths": [16, 16, 16, 48],
        "network_def#encoder#stem_stride": [1, 1, 1],
    },
}


def equal(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return torch.equal(one, other) if torch.is_tensor(one) else one == other
