"""The cached data set and its batches: a subject's regions of interest, ready for the network."""

import logging
import mmap
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from monai.data import PersistentDataset, get_track_meta, set_track_meta
from monai.data.utils import pickle_hashing
from monai.transforms import Compose
from torch.utils.data import get_worker_info

from mrn_components.data.tables import Subject, files_of
from mrn_components.system.files import damaged_member, file_hash, remembered_hash

_logger = logging.getLogger(__name__)
_MAX_WORKERS = 256


class ROIDataset(PersistentDataset):
    """MONAI's ``PersistentDataset``, keyed by what the files hold.

    An entry belongs to the bytes of the subject's files, its other fields, and the state and source
    of the deterministic transforms: a replaced file or a changed margin is never served stale, and
    a moved data set stays cached. A damaged entry is rebuilt. Errors name the subject. The random
    transforms run on plain tensors: tracking their metadata would cost time and serve nobody.

    Args:
        data: subject dicts.
        transform: transforms; those before the first random one are cached.
        cache_dir: folder of the cache, shared by folds and runs; None caches nothing.
    """

    def __init__(
        self,
        *,
        data: Sequence[Subject],
        transform: Sequence[Callable] | Callable,
        cache_dir: str | Path | None = None,
    ) -> None:
        super().__init__(
            data=data,
            # Flat, because PersistentDataset takes a nested Compose for a random transform.
            transform=Compose(transform).flatten(),
            cache_dir=cache_dir,
            hash_func=self._hash_subject,
            hash_transform=None if cache_dir is None else _hash_transforms,
        )
        # Process and subject of every worker, in memory that forked processes share.
        self._reading = torch.frombuffer(mmap.mmap(-1, 16 * _MAX_WORKERS), dtype=torch.int64)

    def reading(self, pid: int) -> str | None:
        """The subject that a worker of a data loader reads, or read last; None if unknown."""
        rows = self._reading.view(-1, 2).tolist()
        return next((self.data[index]["subject"] for of, index in rows if of == pid), None)

    def note_reading(self, index: int) -> None:
        """Note which subject this worker of a data loader reads."""
        worker = get_worker_info()
        if worker is not None:
            row = worker.id % _MAX_WORKERS
            self._reading.view(-1, 2)[row] = torch.tensor([os.getpid(), index])

    def _transform(self, index: int) -> Subject:
        self.note_reading(index)
        return super()._transform(index)

    def set_data(self, data: Sequence[Subject]) -> None:
        """Replace the subjects; the cache stays, for it cannot be stale."""
        self.data = data

    def _hash_subject(self, subject: Subject) -> bytes:
        assert self.cache_dir is not None
        memo_dir = self.cache_dir / "digests"
        files = files_of(subject).items()
        hashes = {key: remembered_hash(path, memo_dir, file_hash, "") for key, path in files}
        return pickle_hashing({**subject, **hashes})

    def _cachecheck(self, item_transformed: Subject) -> Subject:
        if self.cache_dir is not None:
            key = self.hash_func(item_transformed).decode() + self.transform_hash
            entry = self.cache_dir / f"{key}.pt"
            if entry.is_file() and damaged_member(entry) is not None:
                _logger.warning("Cache entry %s is damaged; rebuilding it.", entry)
                entry.unlink(missing_ok=True)
        return super()._cachecheck(item_transformed)

    def _pre_transform(self, item_transformed: Subject) -> Subject:
        with naming(item_transformed):
            return super()._pre_transform(item_transformed)

    def _post_transform(self, item_transformed: Subject) -> Subject:
        tracked = get_track_meta()
        set_track_meta(False)
        try:
            with naming(item_transformed):
                return super()._post_transform(item_transformed)
        finally:
            set_track_meta(tracked)


def collate_subjects(batch: Sequence[Subject]) -> dict[str, Any]:
    """Collate B subjects whose crops differ in shape.

    Returns:
        The labels as a tensor (B,), int64 of classes and float32 of scores; every other key as the
        list of the subjects' values.
    """
    collated: dict[str, Any] = {key: [subject[key] for subject in batch] for key in batch[0]}
    if "label" in collated:
        collated["label"] = torch.tensor(collated["label"])
    return collated


@contextmanager
def naming(subject: Subject) -> Iterator[None]:
    """Put the subject before errors of MONAI, which name the transform only."""
    try:
        yield
    except RuntimeError as error:
        cause = error.__cause__ or error
        raise RuntimeError(f"subject {subject['subject']}: {cause}") from cause


def sources_of(transforms: Sequence[Any]) -> list[bytes]:
    """Return the source files of the transforms' classes and of what these use."""
    modules = _with_imports({type(transform).__module__ for transform in transforms})
    files = sorted(file for name in modules if (file := getattr(sys.modules[name], "__file__", "")))
    return [Path(file).read_bytes() for file in files]


def _hash_transforms(transforms: Sequence[Any]) -> bytes:
    """Hash the transforms' state and the source files of their classes and of what these use."""
    return pickle_hashing([list(transforms), *sources_of(transforms)])


def _with_imports(modules: set[str]) -> set[str]:
    """Some modules, and those of this package whose classes and functions they import."""
    package = f"{__name__.partition('.')[0]}."
    found: set[str] = set()
    while new := modules - found:
        found |= new
        modules = {
            str(getattr(value, "__module__", None))
            for name in new
            if name.startswith(package)
            for value in vars(sys.modules[name]).values()
        }
        modules = {name for name in modules if name.startswith(package)}
    return found
