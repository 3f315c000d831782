"""Masks for subjects that come without."""

from pathlib import Path

import torch

from mrn_components.app.segment import NucleiSegmenter
from mrn_components.labels import ImageName


class Segmenters:
    """The networks that segment the nuclei, each built when it is first needed.

    Args:
        bundle: folder of the segmentation bundle.
        device: where they compute.
    """

    def __init__(self, bundle: str, device: torch.device) -> None:
        self.bundle = bundle
        self.device = device
        self._networks: dict[ImageName, NucleiSegmenter] = {}
        self._problems: dict[ImageName, str] = {}

    @property
    def files(self) -> list[Path]:
        """The files that decide what the masks look like: weights and configs."""
        weights = [network.weights for network in self._networks.values()]
        return sorted([*weights, *(Path(self.bundle) / "configs").glob("*")])

    def load(self, image: ImageName) -> NucleiSegmenter:
        """The network that segments an image.

        Raises:
            ValueError: if there is none, with what to do.
        """
        if image not in self._networks and image not in self._problems:
            try:
                self._networks[image] = NucleiSegmenter(self.bundle, image, device=self.device)
            except (OSError, ValueError, RuntimeError) as error:
                self._problems[image] = str(error)
        if image in self._problems:
            raise ValueError(f"there is no {image.upper()} mask, and {self._problems[image]}")
        return self._networks[image]
