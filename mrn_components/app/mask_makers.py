"""What makes the masks that a subject lacks: the segmentation bundle, or an atlas."""

import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Protocol

import nibabel
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose, SaveImaged
from nibabel.affines import apply_affine, voxel_sizes

from mrn_components.app.align import BRIDGE
from mrn_components.app.inspect import open_bundle
from mrn_components.bundle import RunArguments
from mrn_components.data.ledger import Ledger, read_ledgers
from mrn_components.images.boxes import nonzero_box
from mrn_components.images.image import Image
from mrn_components.images.volume import Volume
from mrn_components.segmentation.atlas import Atlas, carry_nuclei, read_atlas
from mrn_components.system.errors import UntrustedBundleError
from mrn_components.system.files import check_digest, replacing

Volumes = Mapping[str, Volume]
Bridge = Callable[[], Volume | None]

_MARGIN_MM = 15.0  # NM and QSM of a subject lie up to 3 mm apart


class NucleiSegmenter:
    """A segmentation bundle for one image, ready to be called.

    Args:
        bundle: folder of a bundle, or of a training run.
        image: name of one of the bundle's images.
        device: where to compute; None leaves the bundle's choice.
        trust_bundle: use the bundle in spite of what ``mrn inspect`` finds in it.
        overrides: config keys and their values.

    Raises:
        FileNotFoundError: if ``bundle`` is no bundle, or has no weights for the image.
        UntrustedBundleError: if more than its data differ from the installed bundle.
    """

    def __init__(
        self,
        bundle: str,
        image: str,
        *,
        device: str | torch.device | None = None,
        trust_bundle: bool = False,
        **overrides: Any,
    ) -> None:
        config_file, settings = open_bundle(bundle, {"image": image, **overrides}, trust_bundle)
        parser = ConfigParser(RunArguments((config_file,), settings).merged())
        if device is not None:
            parser["device"] = str(device)
        weights = Path(parser.get_parsed_content("ckpt_path"))
        if not weights.is_file():
            raise FileNotFoundError(
                f"the segmentation bundle {bundle} has no weights for {image} ({weights}); train "
                "them (configs/train.yaml), name a trained run with --segmentation DIR, or give "
                f"every subject its mask of {image}."
            )
        self.weights = weights
        self.ledgers = read_ledgers(weights)
        self.device = torch.device(parser.get_parsed_content("device"))
        self.preprocessing = parser.get_parsed_content("preprocessing")
        self.inferer = parser.get_parsed_content("inferer")
        self.network = parser.get_parsed_content("network")
        check_digest(weights)
        state = torch.load(weights, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state)
        self.network.eval()
        postprocessing = parser.get_parsed_content("postprocessing").transforms
        # As other clients of bundles do: what writes files is left to the caller.
        self.postprocessing = Compose([t for t in postprocessing if not isinstance(t, SaveImaged)])

    def __call__(
        self, source: Volume | str | Path, near: tuple[Volume, Sequence[int]] | None = None
    ) -> np.ndarray:
        """Segment an image.

        Args:
            source: the image, or its file.
            near: mask of another image of the subject, and the ids in it that tell where to look:
                a subject's images share a frame.

        Returns:
            The mask (X, Y, Z) on the axes of the image, ids in uint8.
        """
        data = self.preprocessing({"image": source})
        image = data["image"]
        where = {} if near is None else _near(*near, image)
        with torch.no_grad():
            labels = self.inferer(image[None].to(self.device), self.network, **where)
        data["pred"] = labels[0].cpu()
        return self.postprocessing(data)["pred"][0].numpy().astype(np.uint8)


class MaskMaker(Protocol):
    """Makes the masks of subjects."""

    source: str  # what records call its masks
    package: str  # whose version decides what the masks look like
    needs_one_world: bool  # whether a mask is made of more than the image itself

    @property
    def folder(self) -> Path:
        """Where its files are."""

    @property
    def files(self) -> list[Path]:
        """The files that decide what the masks look like."""

    def check(self, image: Image) -> None:
        """Refuse an image whose masks it cannot make; a ValueError says what to do."""

    def ledgers(self, images: Sequence[Image]) -> list[Ledger]:
        """Return the subjects that it learned the masks of some images from."""

    def make(
        self, image: Image, volumes: Volumes, images: Sequence[Image], bridge: Bridge
    ) -> np.ndarray:
        """Make the mask (X, Y, Z) of an image, ids in uint8.

        Args:
            image: whose mask is made.
            volumes: images and masks of the subject that there are, by their keys.
            images: those that have masks, or are to have them.
            bridge: reads the subject's T1 image, if it has one; called where it is needed.
        """


@dataclass(eq=False)
class Segmenters:
    """The networks that segment the nuclei, each built when it is first needed."""

    bundle: str  # folder of the segmentation bundle
    device: torch.device  # where they compute
    trust_bundle: bool = False  # use the bundle in spite of what ``mrn inspect`` finds in it

    source = "segmented"
    package = "nnunetv2"
    needs_one_world = False

    def __post_init__(self) -> None:
        self.folder = Path(self.bundle)
        self._networks: dict[str, NucleiSegmenter] = {}
        self._problems: dict[str, str] = {}

    @property
    def files(self) -> list[Path]:
        """The files that decide what the masks look like: weights and configs."""
        weights = [network.weights for network in self._networks.values()]
        configs = [path for path in (self.folder / "configs").glob("*") if path.is_file()]
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

    def check(self, image: Image) -> None:
        """Refuse an image without a network."""
        self.load(image)

    def ledgers(self, images: Sequence[Image]) -> list[Ledger]:
        """Return the subjects that the networks of some images were trained on."""
        return [ledger for image in images for ledger in self.load(image).ledgers]

    def make(
        self,
        image: Image,
        volumes: Volumes,
        images: Sequence[Image],
        bridge: Bridge,  # noqa: ARG002  MaskMaker's
    ) -> np.ndarray:
        """Segment an image, near where another one's mask has its nuclei."""
        near = find_near(image, images, _masks(volumes, images))
        return self.load(image)(volumes[image.name], near)


@dataclass(frozen=True, kw_only=True)
class AtlasMasks:
    """An atlas that is laid on the image with most nuclei; the others have theirs from there."""

    atlas: Atlas

    source = "atlas"
    package = "antspyx"
    needs_one_world = True

    @property
    def folder(self) -> Path:
        """The atlas's folder."""
        return self.atlas.folder

    @property
    def files(self) -> list[Path]:
        """The atlas's files."""
        return self.atlas.files

    def check(self, image: Image) -> None:
        """Refuse an image that has nuclei of its own."""
        if not image.nuclei.keys() <= self.atlas.image.nuclei.keys():
            raise ValueError(
                f"{image.title} has nuclei that {self.atlas.image.title} lacks, on which the atlas "
                f"is laid; give every subject its mask of {image.name}."
            )

    def ledgers(self, images: Sequence[Image]) -> list[Ledger]:  # noqa: ARG002  MaskMaker's
        """Return none: an atlas is no network."""
        return []

    def make(
        self,
        image: Image,
        volumes: Volumes,
        images: Sequence[Image],  # noqa: ARG002  MaskMaker's
        bridge: Bridge,
    ) -> np.ndarray:
        """Lay the atlas on an image, or take its nuclei from the mask of the one it was laid on."""
        self.check(image)
        if image.name == self.atlas.image.name:
            t1 = bridge() if BRIDGE.file in self.atlas.templates else None
            further = {} if t1 is None else {BRIDGE.file: t1}
            return self.atlas.lay({image.file: volumes[image.name], **further})
        mask = volumes.get(self.atlas.image.mask_name)
        if mask is None:
            raise ValueError(
                f"there is no {image.title} mask, and an atlas makes it of the one of "
                f"{self.atlas.image.title}, whose image the subject lacks."
            )
        return carry_nuclei(mask, self.atlas.image, volumes[image.name], image)


def mask_maker(
    atlas: str | Path | None,
    segmentation: str,
    images: Sequence[Image],
    device: torch.device,
    trust_bundle: bool = False,
) -> MaskMaker:
    """Return what makes the masks of some images: an atlas if there is one, else a bundle."""
    if atlas is not None:
        return AtlasMasks(atlas=read_atlas(atlas, images))
    return Segmenters(segmentation, device, trust_bundle)


def find_near(
    image: Image, others: Sequence[Image], masks: Mapping[str, Volume]
) -> tuple[Volume, list[int]] | None:
    """Find a mask that holds all nuclei of an image, and their ids in it: there they are in both.

    The SN of QSM tells where to look in NM.
    """
    for other in others:
        if other.name in masks and image.nuclei.keys() <= other.nuclei.keys():
            return masks[other.name], [i for name in image.nuclei for i in other.nuclei[name]]
    return None


def save_mask(path: Path, mask: np.ndarray, like: Volume) -> None:
    """Write label ids (X, Y, Z) on the axes of an image, with its geometry alone as a header."""
    volume = nibabel.Nifti1Image(mask, like.affine)
    for kind in ("qform", "sform"):
        affine, code = getattr(like.header, f"get_{kind}")(coded=True)
        getattr(volume, f"set_{kind}")(affine, int(code))
    volume.header["xyzt_units"] = like.header["xyzt_units"]
    with replacing(path) as temporary:
        # Without the time of day, so that the same mask gives the same bytes.
        temporary.write_bytes(gzip.compress(volume.to_bytes(), compresslevel=6, mtime=0))


def _masks(volumes: Volumes, images: Sequence[Image]) -> dict[str, Volume]:
    return {i.name: volumes[i.mask_name] for i in images if i.mask_name in volumes}


def _near(mask: Volume, ids: Sequence[int], image: Any) -> dict[str, Any]:
    """Region about some ids of a mask, in an image of the same frame."""
    box = nonzero_box(np.isin(mask.ids, ids))
    if box[0].start == box[0].stop:
        return {}
    corners_mm = apply_affine(mask.affine, list(product(*((a.start, a.stop) for a in box))))
    affine = image.affine.numpy()
    inside = apply_affine(np.linalg.inv(affine), corners_mm)
    low, high = inside.min(axis=0), inside.max(axis=0)
    region_mm = (high - low) * voxel_sizes(affine) + 2 * _MARGIN_MM
    return {"centre": (low + high) / 2, "region_mm": region_mm}
