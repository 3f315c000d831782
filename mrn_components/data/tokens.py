"""Tokens of a frozen encoder: computed once for a few views of each subject, then read."""

import hashlib
import io
import logging
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from monai.data.utils import pickle_hashing
from monai.networks.utils import eval_mode
from monai.transforms import Compose, Randomizable
from monai.transforms.traits import RandomizableTrait
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from mrn_components.data.dataset import ROIDataset, collate_subjects, naming, sources_of
from mrn_components.data.tables import Subject
from mrn_components.networks.packing import EncodedVolume, VolumeGrid
from mrn_components.networks.precision import autocast
from mrn_components.regions.batch import PrepareROIBatch
from mrn_components.regions.roi import ROI
from mrn_components.system.files import damaged_member, replacing

Stored = Literal["float16", "float32"]
_logger = logging.getLogger(__name__)


class TokenDataset(ROIDataset, Randomizable):
    """Subjects with the tokens of a frozen encoder in the place of their crops.

    A subject has ``num_views`` views. The first is not augmented; random numbers of the others
    follow from ``seed``, the subject and the view. Each view is encoded once and kept in
    ``cache_dir``, and whoever asks for a subject gets one of its views, drawn at random. An entry
    belongs to the crops (as those of ``ROIDataset``), the further transforms, the view, and the
    weights and the precision of the encoder.

    A view that is not there yet is encoded when it is asked for, in the main process alone.

    Args:
        data: subject dicts.
        transform: a Compose, or transforms to be composed. What comes before the first random one
            is kept in the cache of crops; the first view leaves the random ones out.
        cache_dir: folder of the cache, shared by folds and runs.
        network: an MRN whose RES has a frozen encoder and no DPT, on the device that encodes.
        rois: the regions of interest by name.
        num_views: views of a subject.
        seed: of the views' random numbers.
        stored: type of the tokens in the cache.

    Raises:
        ValueError: for another network, no ``cache_dir``, less than one view, or another type.
    """

    def __init__(
        self,
        *,
        data: Sequence[Subject],
        transform: Sequence[Callable] | Callable,
        cache_dir: str | Path | None,
        network: nn.Module,
        rois: Mapping[str, ROI],
        num_views: int = 8,
        seed: int = 1,
        stored: Stored = "float16",
    ) -> None:
        self.network: Any = getattr(network, "module", network)  # of a distributed run
        _check(self.network, cache_dir, num_views, stored)
        super().__init__(data=data, transform=transform, cache_dir=cache_dir)
        self.rois, self.prepare = tuple(rois), PrepareROIBatch(rois=rois)
        self.num_views, self.seed, self.stored = num_views, seed, stored
        further = self._after_cache()
        self._plain = Compose([t for t in further if not isinstance(t, RandomizableTrait)])
        self._hashes = [_hash_settings(each) for each in (self._plain.transforms, further)]
        self._encoder_hash = ""

    def encode(self, part: slice = slice(None)) -> None:
        """Encode all views, of a part of the subjects, that the cache lacks."""
        self._encoder_hash = self._hash_encoder()  # a resumed run may have read other weights
        for subject in self.data[part]:
            for view in range(self.num_views):
                self._entry(subject, view)

    def _transform(self, index: int) -> Subject:
        self.note_reading(index)
        subject = self.data[index]
        entry = self._entry(subject, self.R.randint(self.num_views))
        encoded = torch.load(entry, weights_only=True)
        volumes = {
            roi: EncodedVolume(tokens, VolumeGrid(*grid), shares)
            for roi, (tokens, grid, shares) in encoded["rois"].items()
        }
        return subject | volumes | {"missing_rois": encoded["missing_rois"]}

    def _entry(self, subject: Subject, view: int) -> Path:
        """Return the file of a view; one that is not there, or is damaged, is made."""
        assert self.cache_dir is not None
        self._encoder_hash = self._encoder_hash or self._hash_encoder()
        crops = self.hash_func({key: x for key, x in subject.items() if key != "label"}).decode()
        seeds = (self._hashes[1], self.seed, view) if view else (self._hashes[0],)
        key = pickle_hashing((crops, self.transform_hash, self._encoder_hash, self.stored, *seeds))
        entry = self.cache_dir / "tokens" / f"{key.decode()}.pt"
        damaged = entry.is_file() and damaged_member(entry) is not None
        if damaged:
            _logger.warning("Cache entry %s is damaged; rebuilding it.", entry)
        if damaged or not entry.is_file():
            if get_worker_info() is not None:
                raise RuntimeError(
                    f"subject {subject['subject']}: view {view} is not encoded, and a worker of a "
                    "data loader does not encode; add mrn_components.TokenCacheHandler to the "
                    "trainer's handlers, or type --num_workers 0."
                )
            with replacing(entry) as unfinished:
                torch.save(self._encode(self._view(subject, view)), unfinished)
        return entry

    def _view(self, subject: Subject, view: int) -> Subject:
        """The crops of a view."""
        crops = self._cachecheck(subject)
        if view == 0:
            with naming(subject):
                return self._plain(crops)
        digest = hashlib.sha256(subject["subject"].encode()).digest()
        entropy = (self.seed, view, int.from_bytes(digest[:4], "big"))
        self.transform.set_random_state(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        return self._post_transform(crops)

    @torch.no_grad()
    def _encode(self, crops: Subject) -> dict[str, Any]:
        """What is stored of a view: tokens, layout and shares of each ROI; which are missing."""
        device = next(self.network.parameters()).device
        images, _ = self.prepare(collate_subjects([crops]), device)
        with eval_mode(self.network), autocast(device, self.network.precision):
            volumes = self.network.res.encode([images[roi][0] for roi in self.rois])
        kind = getattr(torch, self.stored)
        encoded = {
            roi: (tokens.to("cpu", kind, copy=True), list(grid), shares.to("cpu", copy=True))
            for roi, (tokens, grid, shares) in zip(self.rois, volumes, strict=True)
        }
        return {"rois": encoded, "missing_rois": list(crops.get("missing_rois", ()))}

    def _hash_encoder(self) -> str:
        """Hash the encoder's structure and weights, and the precision that it computes in."""
        encoder = self.network.res.encoder
        device = next(encoder.parameters()).device
        with autocast(device, self.network.precision):
            precision = torch.is_autocast_enabled(device.type)
        settings = {key: x for key, x in vars(encoder).items() if isinstance(x, str | int)}
        settings.pop("training")
        digest = hashlib.sha256(f"{encoder} {settings} {precision}".encode())
        for name, value in sorted(encoder.state_dict().items()):  # the weights, or their hash
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            values = value.cpu().contiguous().flatten()
            digest.update(values.view(torch.uint8).numpy())
        return digest.hexdigest()

    def _after_cache(self) -> list[Callable]:
        """The transforms from the first random one on."""
        first = self.transform.get_index_of_first(lambda t: isinstance(t, RandomizableTrait))
        return [] if first is None else list(self.transform.transforms[first:])


class PrepareTokenBatch:
    """MONAI ``prepare_batch`` for ``TokenDataset``: moves the tokens to the device, as float32.

    Args:
        rois: the regions of interest by name.
    """

    def __init__(self, *, rois: Mapping[str, ROI]) -> None:
        self.rois = tuple(rois)

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **to_kwargs: Any,
    ) -> tuple[dict[str, list[EncodedVolume]], dict[str, Any]]:
        """Prepare what ``collate_subjects`` returns; the other arguments are ``Tensor.to``'s.

        Returns:
            Images, for each ROI the B volumes as RES takes them in the place of crops; and targets:
            ``label`` (B,) if the data has it.
        """

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking, **to_kwargs)

        images = {
            roi: [
                EncodedVolume(move(tokens).float(), grid, move(shares))
                for tokens, grid, shares in batchdata[roi]
            ]
            for roi in self.rois
        }
        label = {"label": move(batchdata["label"])} if "label" in batchdata else {}
        return images, {"masks": {}, **label}


class _SettingsPickler(pickle.Pickler):
    """Leave out the states of random generators, which differ between equal transforms."""

    def reducer_override(self, obj: Any) -> Any:
        return (str, ()) if isinstance(obj, np.random.RandomState) else NotImplemented


def _hash_settings(transforms: Sequence[Any]) -> str:
    """Hash the transforms' settings and the source files of their classes and of what these use."""
    _SettingsPickler(settings := io.BytesIO(), protocol=4).dump(list(transforms))
    return pickle_hashing([settings.getvalue(), *sources_of(transforms)]).decode()


def _check(network: Any, cache_dir: str | Path | None, num_views: int, stored: str) -> None:
    """Refuse what cannot be trained on tokens."""
    res: Any = getattr(network, "res", None)
    encoder: nn.Module | None = getattr(res, "encoder", None)
    if encoder is None or any(parameter.requires_grad for parameter in encoder.parameters()):
        raise ValueError(
            "tokens are computed once for an MRN whose RES has a frozen encoder; freeze it by "
            "--network_def#res#encoder#frozen True."
        )
    if network.masked_rois:
        raise ValueError(
            f"the network masks {sorted(network.masked_rois)}, which cannot be done to tokens; "
            "leave masked_rois empty."
        )
    if res.dpt is not None:
        raise ValueError(
            "DPT has no pixels to segment where tokens stand in the place of crops; switch it off "
            "by --network_def#res#dpt#_disabled_ True."
        )
    if cache_dir is None or num_views < 1 or stored not in get_args(Stored):
        raise ValueError(
            "tokens need a cache_dir, num_views of at least 1 and stored 'float16' or 'float32', "
            f"got {cache_dir!r}, {num_views} and {stored!r}."
        )
