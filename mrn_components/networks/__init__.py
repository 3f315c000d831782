"""The paper's network (Figures 1-3) and its baselines, one component a file."""

from mrn_components.networks.dpt import DPTHead
from mrn_components.networks.ensemble import FoldEnsemble
from mrn_components.networks.ffa import FFA
from mrn_components.networks.memory import keep_freed_memory
from mrn_components.networks.mrn import MRN
from mrn_components.networks.nuclei_unet import NucleiUNet
from mrn_components.networks.patient import PatientClassifier
from mrn_components.networks.precision import fast_fp32_matmul
from mrn_components.networks.res import RES
from mrn_components.networks.seres10 import SERes10
from mrn_components.networks.sfa import SFA
from mrn_components.networks.slice_encoder import SliceEncoder
from mrn_components.networks.volume_vit import VolumeViT

__all__ = [
    "FFA",
    "MRN",
    "RES",
    "SFA",
    "DPTHead",
    "FoldEnsemble",
    "NucleiUNet",
    "PatientClassifier",
    "SERes10",
    "SliceEncoder",
    "VolumeViT",
    "fast_fp32_matmul",
    "keep_freed_memory",
]
