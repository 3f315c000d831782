"""The paper's network (Figures 1-3), one component a file."""

from mrn_components.networks.dpt import DPTHead
from mrn_components.networks.ensemble import FoldEnsemble
from mrn_components.networks.ffa import FFA
from mrn_components.networks.mrn import MRN
from mrn_components.networks.precision import fast_fp32_matmul
from mrn_components.networks.res import RES
from mrn_components.networks.sfa import SFA
from mrn_components.networks.slice_encoder import SliceEncoder

__all__ = [
    "FFA",
    "MRN",
    "RES",
    "SFA",
    "DPTHead",
    "FoldEnsemble",
    "SliceEncoder",
    "fast_fp32_matmul",
]
