"""Components of the MRN bundles: every name here may stand in a config's ``_target_``.

Names are imported when first used, so that ``import mrn_components`` costs nothing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# The register: what a config may write as mrn_components.NAME, and the module that has it.
_REGISTER = {
    "AttentionPool": "networks.attention_pool",
    "BalancedSampler": "data.sampler",
    "CacheHandler": "training.handlers.cache",
    "CategoryBank": "training.msupmoco",
    "CheckVolumesd": "regions.reading",
    "Classes": "data.target",
    "DPTHead": "networks.dpt",
    "DiagnosisOutputd": "training.outputs",
    "EpochSummaryHandler": "training.handlers.summary",
    "FFA": "networks.ffa",
    "FaultReportHandler": "training.handlers.faults",
    "FiniteLossHandler": "training.handlers.faults",
    "FoldCheckpointLoader": "training.handlers.checkpoint",
    "FoldEnsemble": "networks.ensemble",
    "Image": "images.image",
    "InterruptHandler": "training.handlers.faults",
    "LoRA": "networks.lora",
    "LoadVolumed": "regions.reading",
    "MRN": "networks.mrn",
    "MRNLoss": "training.losses",
    "MSupMoCoHandler": "training.msupmoco",
    "MergeSidesd": "regions.transforms",
    "NNUNetTraining": "segmentation.training",
    "NormalizeByPland": "segmentation.normalization",
    "NucleiLoss": "training.losses",
    "NucleiRegionInferer": "segmentation.inferer",
    "NucleiUNet": "segmentation.nuclei_unet",
    "NucleusPool": "networks.nucleus_pool",
    "PatientContrastiveLoss": "training.losses",
    "PhaseValidationHandler": "training.handlers.schedule",
    "PredictionsHandler": "training.handlers.predictions",
    "PrepareROIBatch": "regions.batch",
    "PrepareTokenBatch": "data.tokens",
    "PretrainPhaseHandler": "training.handlers.schedule",
    "KeptWeights": "training.handlers.kept_weights",
    "ProjectionHead": "training.msupmoco",
    "RES": "networks.res",
    "RepresentationHandler": "training.handlers.representation",
    "ROI": "regions.roi",
    "ROICropd": "regions.transforms",
    "ROIDataset": "data.dataset",
    "ROIMaskChannelsd": "regions.transforms",
    "ReadVolumesd": "regions.reading",
    "RunCheckpointHandler": "training.handlers.checkpoint",
    "SERes10": "networks.seres10",
    "SFA": "networks.sfa",
    "ScaleImagesd": "regions.scaling",
    "Score": "data.target",
    "SeedHandler": "training.handlers.schedule",
    "SliceEncoder": "networks.slice_encoder",
    "TTAInferer": "networks.inferers",
    "TokenCacheHandler": "training.handlers.tokens",
    "TokenDataset": "data.tokens",
    "TrackingHandler": "training.handlers.summary",
    "TrainingLedger": "data.ledger",
    "VolumeViT": "networks.volume_vit",
    "WarmupCosineHandler": "training.handlers.schedule",
    "additional_metrics": "training.outputs",
    "add_masks": "data.subjects",
    "augment_rois": "training.augmentation",
    "check_crop_sizes": "data.crop_sizes",
    "check_run": "bundle",
    "check_training_subjects": "data.ledger",
    "choose_device": "networks.precision",
    "collate_subjects": "data.dataset",
    "crop_keys": "regions.roi",
    "existing_file": "system.files",
    "fast_fp32_matmul": "networks.precision",
    "identify_subjects": "data.identities",
    "join_batch_norms": "networks.joint_norm",
    "keep_freed_memory": "system.memory",
    "key_metric": "training.outputs",
    "load_subjects": "data.subjects",
    "locate_bundle": "bundle",
    "param_groups": "training.optim",
    "save_run": "bundle",
    "select_fold": "data.folds",
    "select_image": "images.image",
    "select_volume": "data.subjects",
    "split_folds": "data.folds",
    "start_run": "bundle",
    "tell_run": "bundle",
}

__all__ = sorted(_REGISTER)


def __getattr__(name: str) -> Any:
    """Import the component ``name`` from its module."""
    if name in _REGISTER:
        return getattr(import_module(f"{__name__}.{_REGISTER[name]}"), name)
    raise AttributeError(
        f"mrn_components has no component {name!r}; `mrn components` lists those it has."
    )


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
