"""The bundles at a size that trains in seconds."""

import json
from pathlib import Path

import torch
from monai.bundle import ConfigWorkflow
from tiny_segmentation import make_plan

from mrn_components.bundle import inference_config

BUNDLES = Path(__file__).parent.parent / "bundles"
SMALL = {
    "encoder_weights": "none",
    "image_size": 28,
    "epochs": 2,
    "pretrain_epochs": 1,
    "batch_size": 3,  # 8 subjects: the last batch is smaller
    "num_workers": 0,
}
ENCODER = {
    "_target_": "mrn_components.SliceEncoder",
    "name": "vit_small_patch14_reg4_dinov2.lvd142m",
    "depth": 2,
    "embed_dim": 48,
    "num_heads": 2,
}
# The light overlay's own lines stay: arguments of its encoder change one by one.
LIGHT = {
    **{key: value for key, value in SMALL.items() if key != "pretrain_epochs"},
    **{f"network_def#res#encoder#{k}": v for k, v in ENCODER.items() if k != "_target_"},
    "network_def#res#encoder#init_values": 1.0,  # what adapters change shows
}
TINY = {
    "mrn": {
        **SMALL,
        "network_def#res#encoder": ENCODER,
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
NETWORKS = {  # to be built and not trained
    "segmentation": {"plan": make_plan()},
    "mrn": {"network_def#res#encoder": ENCODER},
    "seres10": {"network_def#encoder#widths": [16, 16, 16, 16]},
}


def equal(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return torch.equal(one, other) if torch.is_tensor(one) else one == other


def train(cohort, run, bundle="mrn", overlays=(), tiny=None, **overrides):
    """Train in miniature; the trainer, and the run's folder made a bundle."""
    files = [str(BUNDLES / bundle / "configs" / f"{name}.yaml") for name in ("train", *overlays)]
    workflow = ConfigWorkflow(
        files,
        workflow_type="train",
        logging_file=False,
        dataset_dir=str(cohort),
        bundle_root=str(run.parent),
        output_dir=str(run),
        **(tiny or TINY[bundle]) | overrides,
    )
    config = {key: value for key, value in workflow.parser.get().items() if key != "_meta_"}
    workflow.initialize()
    workflow.run()
    (run / "configs").mkdir()  # what save_run writes in a process of its own
    inference = json.dumps(inference_config(config, BUNDLES / bundle))
    (run / "configs" / "inference.json").write_text(inference)
    return workflow.parser.get_parsed_content("train#trainer")
