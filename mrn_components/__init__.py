"""Components of the MRN bundles: every name here may stand in a config's ``_target_``.

Names are imported when first used, so that ``import mrn_components`` costs nothing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# The register: module -> the names a config may write as mrn_components.NAME.
_REGISTER = {
    "batch": ["PrepareROIBatch"],
    "bundle": ["check_run", "existing_file", "locate_bundle", "save_run"],
    "data": ["identify_subjects", "load_subjects", "select_fold", "split_folds"],
    "data.dataset": ["ROIDataset", "collate_subjects"],
    "handlers": [
        "EpochSummaryHandler",
        "FaultReportHandler",
        "FiniteLossHandler",
        "FoldCheckpointLoader",
        "InterruptHandler",
        "PhaseValidationHandler",
        "PretrainPhaseHandler",
        "RunCheckpointHandler",
        "SeedHandler",
        "WarmupCosineHandler",
    ],
    "inferers": ["TTAInferer"],
    "ledger": ["TrainingLedger", "check_training_subjects"],
    "losses": ["MRNLoss", "NucleiLoss", "PatientContrastiveLoss"],
    "msupmoco": ["CategoryBank", "MSupMoCoHandler", "ProjectionHead"],
    "networks": [
        "DPTHead",
        "FFA",
        "FoldEnsemble",
        "MRN",
        "NucleiUNet",
        "PatientClassifier",
        "RES",
        "SERes10",
        "SFA",
        "SliceEncoder",
        "VolumeViT",
        "fast_fp32_matmul",
        "keep_freed_memory",
    ],
    "optim": ["param_groups"],
    "predictions": ["PredictionsHandler"],
    "rois": ["ROI"],
    "segmentation": ["NNUNetTraining", "NormalizeByPland", "NucleiRegionInferer"],
    "transforms": [
        "CheckVolumesd",
        "DiagnosisOutputd",
        "MergeSidesd",
        "ROICropd",
        "ROIMaskChannelsd",
    ],
}
_MODULE_OF = {name: module for module, names in _REGISTER.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    """Import the component ``name`` from its module."""
    if name in _MODULE_OF:
        return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    raise AttributeError(
        f"mrn_components has no component {name!r}; `mrn components` lists those it has."
    )


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
