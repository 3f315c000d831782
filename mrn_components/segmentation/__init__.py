"""Segmentation of the nuclei with nnU-Net v2 (section 4.1.2)."""

from mrn_components.segmentation.inferer import NucleiRegionInferer
from mrn_components.segmentation.normalization import NormalizeByPland
from mrn_components.segmentation.training import NNUNetTraining

__all__ = ["NNUNetTraining", "NormalizeByPland", "NucleiRegionInferer"]
