"""Masks for subjects that come without."""

from pathlib import Path
from typing import Any

import torch


class Segmenters:
    """The networks that segment the nuclei, each built when it is first needed.

    Args:
        bundle: folder of the segmentation bundle.
        device: where they compute.
    """

    def __init__(self, bundle: str, device: torch.device) -> None:
        self.bundle = bundle
        self.device = device
        self._networks: dict[str, Any] = {}
        self._problems: dict[str, str] = {}

    @property
    def weights(self) -> list[Path]:
        """The bundle's files that decide what a mask looks like, sorted."""
        folders = (Path(self.bundle) / name for name in ("configs", "models"))
        return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())

    def load(self, image: str) -> Any:
        """The segmenter of an image, "nm" or "qsm".

        Raises:
            RuntimeError: if it cannot be built, with what to do.
        """
        if image in self._problems:
            raise RuntimeError(self._problems[image])
        if image not in self._networks:
            from mrn_components.app.segment import NucleiSegmenter

            try:
                self._networks[image] = NucleiSegmenter(self.bundle, image, device=self.device)
            except (OSError, ValueError, RuntimeError) as error:
                self._problems[image] = (
                    f"there is no {image} mask, and the segmentation bundle {self.bundle} gives "
                    f"none: {_first_line(error)} Draw the masks, train the bundle, or name one "
                    "with weights by --segmentation BUNDLE."
                )
                raise RuntimeError(self._problems[image]) from error
        return self._networks[image]

    def segment(self, image: str, path: Path, near: Path | None) -> Any:
        """Segment an image; what ``NucleiSegmenter`` returns.

        Args:
            image: "nm" or "qsm".
            path: the image.
            near: mask of the other image, about whose nuclei to look.
        """
        return self.load(image)(path, near=near)


def _first_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".") + "."
