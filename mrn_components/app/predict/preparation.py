"""Everything before the network is asked: a subject is read, checked, cropped and measured."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mrn_components.app.predict.classifier import Classifier
from mrn_components.app.predict.records import Record, empty_record, unpredicted
from mrn_components.app.report.images import Shown, draw_images
from mrn_components.biomarkers import measure_nuclei
from mrn_components.checks import examine_subject
from mrn_components.data import Subject
from mrn_components.data.ledger import Ledger, find_trained_on
from mrn_components.data.tables import files_of
from mrn_components.images.finding import Finding
from mrn_components.images.image import Image
from mrn_components.images.volume import Volume
from mrn_components.system.errors import user_message

_logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Prepared:
    """A subject before the network is asked.

    Args:
        subject: its id, and the files that there are; those that are read stand as volumes.
        record: what is known so far; with an error, the subject has failed.
        crops: of its ROIs; None while masks are lacking.
        drawn: what its page shows of its images, if it is to have one.
    """

    subject: Subject
    record: Record
    crops: dict[str, Any] | None = None
    drawn: dict[str, Shown] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What turns the files of a subject into crops, in any process.

    Args:
        classifier: knows the ROIs.
        ledgers: of the classifier's weights.
        root: folder that paths are told relative to, in records as in messages.
        output_dir: folder of the results.
        cache_dir: folder that remembers the hashes of images.
        draws: draw what pages show, while the volumes are in memory.
    """

    classifier: Classifier
    ledgers: Sequence[Ledger]
    root: Path
    output_dir: Path
    cache_dir: str | None = None
    draws: bool = False

    def __call__(self, case: tuple[Subject, Sequence[Finding]]) -> Prepared:
        """Read and check a subject, and crop its ROIs unless masks are lacking.

        Args:
            case: what ``find_subjects`` returns of a subject, and what was found wrong with it.
        """
        subject, findings = case
        prepared = self._begin(subject)
        with self.guard(prepared):
            _note(prepared.record, findings)
            with timed(prepared.record, "read"):
                self._read(prepared)
                self.mark(prepared, self.ledgers)
            if not self.lacking(prepared):
                self.crop(prepared)
        return prepared

    def lost(self, case: tuple[Subject, Sequence[Finding]]) -> Prepared:
        """Return what is known of a subject whose files end the process that reads them."""
        prepared = self._begin(case[0])
        prepared.record["error"] = (
            "the process that read its files died, perhaps for lack of memory; look at them with "
            "`mrn check`, or try --num_workers 0."
        )
        return prepared

    @contextmanager
    def guard(self, prepared: Prepared) -> Iterator[None]:
        """Write what goes wrong with a subject into its record: the others go on."""
        record = prepared.record
        with _quiet(), timed(record, "total"):
            try:
                yield
            except Exception as error:  # whatever it is
                record |= {"status": "failed", **unpredicted(self.classifier.target)}
                record["error"] = self.shown(_message(error), prepared.subject)
                self._release(prepared)
                if user_message(error) is None:
                    _logger.exception("subject %s failed", record["subject"])
        record["flags"] = [self.shown(text, prepared.subject) for text in record["flags"]]

    def lacking(self, prepared: Prepared) -> list[Image]:
        """Return the images whose masks are lacking, in the order in which they are segmented."""
        there = prepared.subject
        images = self.classifier.masked_images
        return [i for i in images if i.name in there and i.mask_name not in there]

    def crop(self, prepared: Prepared) -> None:
        """Crop the ROIs of a subject with masks, and measure its nuclei."""
        record = prepared.record
        with timed(record, "crop"):
            crops = self.classifier.crop(prepared.subject)
        for key in ("boxes", "estimated", "missing_rois"):
            record[key] = crops.get(key, record[key])
        record["flags"] += crops.get("flags", [])
        with timed(record, "measure"):
            self._measure(prepared)
        prepared.crops = crops
        self._release(prepared)

    def _release(self, prepared: Prepared) -> None:
        """Draw the volumes, then keep their paths alone: they are large, and change processes."""
        files = files_of(prepared.subject)
        volumes = {key: prepared.subject[key] for key in files}
        volumes = {key: v for key, v in volumes.items() if isinstance(v, Volume)}
        if self.draws and not prepared.drawn:
            draw = partial(draw_images, prepared.record, images=self.classifier.images)
            try:
                prepared.drawn = draw(volumes)
            except Exception:  # a page without pictures is no reason to stop
                _logger.exception("subject %s cannot be drawn", prepared.record["subject"])
                prepared.drawn = draw({})
        prepared.subject |= {key: str(path) for key, path in files.items()}

    def mark(self, prepared: Prepared, ledgers: Sequence[Ledger]) -> None:
        """Note whether some weights were trained on a subject."""
        found = find_trained_on([prepared.subject], ledgers, self.cache_dir)
        prepared.record["trained_on"] |= int(bool(found))

    def shown(self, text: str, subject: Subject) -> str:
        """Return a text about a subject without the folders of this machine."""
        folders = [path.parent for path in files_of(subject).values()]
        for folder in (self.output_dir, self.root, *folders):
            for name in (str(folder.absolute()), str(folder)):
                if name not in (".", "/"):
                    text = text.replace(f"{name}/", "")
        return text

    def _begin(self, subject: Subject) -> Prepared:
        record = empty_record(subject["subject"], self.classifier.target)
        return Prepared(subject=dict(subject), record=record)

    def _read(self, prepared: Prepared) -> None:
        record, subject = prepared.record, prepared.subject
        examination = examine_subject(
            subject, self.classifier.images, self.classifier.rois, deep=False
        )
        volumes = examination.volumes
        subject |= volumes
        record["inputs"] = {
            key: {
                "path": self.shown(str(path), subject),
                "sha256": volumes[key].sha256 if key in volumes else None,  # it cannot be read
            }
            for key, path in files_of(subject).items()
        }
        _note(record, examination.findings)
        masked = sorted(image.name for image in self.classifier.masked_images)
        record["mask_source"] = {
            name: "given" if self.classifier.images[name].mask_name in subject else "segmented"
            for name in masked
            if name in subject
        }

    def _measure(self, prepared: Prepared) -> None:
        """Measure the nuclei; that they cannot be measured is no reason against a prediction."""
        subject, record = prepared.subject, prepared.record
        try:
            volumes = {key: subject[key] for key in files_of(subject)}
            record["biomarkers"] = measure_nuclei(volumes, self.classifier.images)
        except (OSError, ValueError) as error:
            record["flags"].append(f"no biomarkers: {error}")


@contextmanager
def timed(record: Record, stage: str) -> Iterator[None]:
    """Add the seconds that a block takes to those of a stage."""
    start, timings = time.perf_counter(), record["timings_s"]
    try:
        yield
    finally:
        timings[stage] = round(timings.pop(stage, 0.0) + time.perf_counter() - start, 4)


def _note(record: Record, findings: Sequence[Finding]) -> None:
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
