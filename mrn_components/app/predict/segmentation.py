"""Masks for subjects that come without."""

from pathlib import Path

import torch

from mrn_components.app.segment import NucleiSegmenter
from mrn_components.images.image import Image
from mrn_components.system.errors import UntrustedBundleError


class Segmenters:
    """The networks that segment the nuclei, each built when it is first needed.

    Args:
        bundle: folder of the segmentation bundle.
        device: where they compute.
        trust_bundle: use the bundle in spite of what ``mrn inspect`` finds in it.
    """

    def __init__(self, bundle: str, device: torch.device, trust_bundle: bool = False) -> None:
        self.bundle = bundle
        self.device = device
        self.trust_bundle = trust_bundle
        self._networks: dict[str, NucleiSegmenter] = {}
        self._problems: dict[str, str] = {}

    @property
    def files(self) -> list[Path]:
        """The files that decide what the masks look like: weights and configs."""
        weights = [network.weights for network in self._networks.values()]
        configs = [path for path in (Path(self.bundle) / "configs").glob("*") if path.is_file()]
        return sorted([*weights, *configs])

    def load(self, image: Image) -> NucleiSegmenter:
        """The network that segments an image.

        Raises:
            ValueError: if there is none, with what to do.
            UntrustedBundleError: if the bundle could run code of its own, or was changed.
        """
        name = image.name
        if name not in self._networks and name not in self._problems:
            try:
                self._networks[name] = NucleiSegmenter(
                    self.bundle, name, device=self.device, trust_bundle=self.trust_bundle
                )
            except UntrustedBundleError:
                raise
            except (OSError, ValueError, RuntimeError) as error:
                self._problems[name] = str(error)
        if name in self._problems:
            raise ValueError(f"there is no {image.title} mask, and {self._problems[name]}")
        return self._networks[name]
