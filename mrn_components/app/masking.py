"""What predicting and segmenting do alike: read a subject, align its images, make its masks."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mrn_components.app.align import BRIDGE, Mode, align_images, moved_volumes, told
from mrn_components.app.mask_makers import MaskMaker, save_mask
from mrn_components.app.records import Record, mask_file
from mrn_components.checks import examine_subject
from mrn_components.data import Subject
from mrn_components.data.tables import files_of
from mrn_components.images.finding import Finding
from mrn_components.images.image import FACTOR, Image, factor_of
from mrn_components.images.volume import Volume, read_volume
from mrn_components.regions.roi import ROI
from mrn_components.system.errors import user_message

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Masking:
    """What gives subjects the masks that they lack, and their images one world."""

    maker: MaskMaker
    images: Mapping[str, Image]  # what a subject has
    masked: Sequence[Image]  # those that have masks or get them, with most nuclei first
    bridges: Mapping[str, str]  # files of T1 by subject
    align: Mode
    root: Path  # folder that paths are told relative to, in records as in messages
    output_dir: Path

    def lacking(self, subject: Subject) -> list[Image]:
        """Return the images of a subject that are to get masks, those with most nuclei first."""
        return [i for i in self.masked if i.name in subject and i.mask_name not in subject]

    def check(self, subjects: Sequence[Subject]) -> bool:
        """Return whether any of some subjects lacks a mask.

        A mask that cannot be made is the error of those that need it, or a ValueError if all do.
        """
        lacking = [self.lacking(subject) for subject in subjects]
        try:
            for image in self.masked:
                if any(image in images for images in lacking):
                    self.maker.check(image)
        except ValueError:
            if all(lacking):
                raise
        return any(lacking)

    def read(self, record: Record, subject: Subject, rois: Mapping[str, ROI]) -> None:
        """Read the files of a subject and check them; a ValueError tells the errors."""
        examination = examine_subject(subject, self.images, rois, deep=False)
        volumes = examination.volumes
        subject |= volumes
        record["inputs"] = {
            key: {
                "path": self.shown(str(path), subject),
                "sha256": volumes[key].sha256 if key in volumes else None,  # it cannot be read
                **({"factor": factor_of(subject, key)} if FACTOR + key in subject else {}),
            }
            for key, path in files_of(subject).items()
        }
        note(record, examination.findings)
        lacking = self.lacking(subject)
        record["mask_source"] = {
            image.name: self.maker.source if image in lacking else "given"
            for image in sorted(self.masked, key=lambda image: image.name)
            if image.name in subject
        }

    def align_images(self, record: Record, subject: Subject) -> None:
        """Find the images that belong elsewhere than their files say."""
        bridge = partial(self._bridge, record)
        with timed(record, "align"):
            found = align_images(volumes_of(subject), self.masked, self.align, bridge)
        record["alignment"] = found
        record["flags"] += filter(None, (told(name, one) for name, one in found.items()))

    def make_masks(self, record: Record, subject: Subject) -> None:
        """Make and write the masks that a subject lacks."""
        images = [image for image in self.masked if image.name in subject]
        bridge = partial(self._bridge, record)
        for image in self.lacking(subject):
            path = mask_file(self.output_dir, record["subject"], image)
            volumes = self._together(record, subject)
            with timed(record, f"segment_{image.name}"):
                mask = self.maker.make(image, volumes, images, bridge)
            with timed(record, "write"):
                save_mask(path, mask, like=subject[image.name])
            subject[image.mask_name] = subject[image.name].with_voxels(mask, path)

    @contextmanager
    def guard(self, record: Record, subject: Subject, failed: Mapping[str, Any]) -> Iterator[None]:
        """Write what goes wrong with a subject into its record: the others go on.

        Args:
            record: what is known of the subject.
            subject: its files.
            failed: what a record holds of a subject that failed.
        """
        with _quiet(), timed(record, "total"):
            try:
                yield
            except Exception as error:  # whatever it is
                record |= failed
                record["error"] = self.shown(_message(error), subject)
                if user_message(error) is None:
                    _logger.exception("subject %s failed", record["subject"])
        record["flags"] = [self.shown(text, subject) for text in record["flags"]]

    def shown(self, text: str, subject: Subject) -> str:
        """Return a text about a subject without the folders of this machine."""
        folders = [path.parent for path in files_of(subject).values()]
        for folder in (self.output_dir, self.root, *folders):
            for name in (str(folder.absolute()), str(folder)):
                if name not in (".", "/"):
                    text = text.replace(f"{name}/", "")
        return text

    def _together(self, record: Record, subject: Subject) -> dict[str, Volume]:
        """Return the volumes of a subject, in one world if a mask is made of several."""
        if self.maker.needs_one_world and not record["alignment"]:
            self.align_images(record, subject)
        volumes = volumes_of(subject)
        return volumes | moved_volumes(volumes, record["alignment"])

    def _bridge(self, record: Record) -> Volume | None:
        """Read a subject's T1 image, if it has one."""
        if (path := self.bridges.get(record["subject"])) is None:
            return None
        volume = read_volume(path)
        shown = self.shown(path, {"subject": record["subject"], BRIDGE.name: path})
        record["inputs"][BRIDGE.name] = {"path": shown, "sha256": volume.sha256}
        return volume


def volumes_of(subject: Subject) -> dict[str, Volume]:
    """Return what was read of a subject."""
    return {key: value for key, value in subject.items() if isinstance(value, Volume)}


@contextmanager
def timed(record: Record, stage: str) -> Iterator[None]:
    """Add the seconds that a block takes to those of a stage."""
    start, timings = time.perf_counter(), record["timings_s"]
    try:
        yield
    finally:
        timings[stage] = round(timings.pop(stage, 0.0) + time.perf_counter() - start, 4)


def note(record: Record, findings: Sequence[Finding]) -> None:
    """Refuse a subject with errors; warnings are its flags."""
    errors = [str(finding) for finding in findings if finding.severity == "error"]
    if errors:
        raise ValueError(" ".join(errors))
    record["flags"] += map(str, findings)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the components' warnings off the screen: a subject's flags say the same."""
    package = logging.getLogger("mrn_components")
    level = package.level
    package.setLevel(logging.ERROR)
    try:
        yield
    finally:
        package.setLevel(level)


def _message(error: BaseException) -> str:
    message = user_message(error)
    if message is None:
        while error.__cause__ is not None:
            error = error.__cause__
        message = f"{type(error).__name__}: {error}"
    return message
