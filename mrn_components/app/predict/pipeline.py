"""One subject, from its files to its record."""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrn_components.app.predict.records import (
    Record,
    empty_record,
    mask_file,
    subject_folder,
    unpredicted,
)
from mrn_components.app.predict.segmentation import Segmenters
from mrn_components.app.predict.workflow import Classifier
from mrn_components.app.report.explanation import UNEXPLAINED
from mrn_components.app.report.reports import EXPLANATION
from mrn_components.app.segment import save_mask
from mrn_components.biomarkers import measure_nuclei
from mrn_components.checks import Finding, examine_subject
from mrn_components.data import Subject
from mrn_components.data.ledger import Ledger, find_trained_on
from mrn_components.data.tables import files_of
from mrn_components.images.image import Image
from mrn_components.images.volume import read_volume
from mrn_components.system.errors import user_message
from mrn_components.system.files import write_text

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """What turns the files of a subject into its record.

    Args:
        classifier: the network and what is around it.
        segmenters: make the masks that a subject lacks.
        ledgers: of the classifier's weights.
        root: folder that paths are told relative to, in records as in messages.
        output_dir: folder of the results; segmented masks go to ``subjects/ID``.
        abstain: give no probability where an ROI of neuromelanin, without which the paper's
            network loses most (Table 4), or more than one ROI is missing.
        cache_dir: folder that remembers the hashes of images.
        explain: write ``explanation.json`` for the report too.
    """

    classifier: Classifier
    segmenters: Segmenters
    ledgers: Sequence[Ledger]
    root: Path
    output_dir: Path
    abstain: bool = True
    cache_dir: str | None = None
    explain: bool = False

    def predict(self, subject: Subject, findings: Sequence[Finding] = ()) -> Record:
        """Predict a subject; what goes wrong with it stands in its record.

        Args:
            subject: what ``find_subjects`` returns of one.
            findings: what was found wrong with it there.
        """
        record = empty_record(subject["subject"], self.classifier.target)
        with _quiet():
            try:
                self._fill(record, dict(subject), findings)
            except Exception as error:  # whatever it is, the other subjects go on
                record |= {"status": "failed", **unpredicted(self.classifier.target)}
                record["error"] = self.shown(_message(error), subject)
                if user_message(error) is None:
                    _logger.exception("subject %s failed", subject["subject"])
        record["flags"] = [self.shown(text, subject) for text in record["flags"]]
        return record

    def _fill(self, record: Record, subject: Subject, findings: Sequence[Finding]) -> None:
        timer = record["timings_s"]
        _note(record, findings)
        files = files_of(subject)
        with _timed(timer, "read"):
            self._check_files(record, subject)
        masks = self._segment(record, files)
        with _timed(timer, "read"):
            ledgers = [*self.ledgers, *self._ledgers_of_segmenters(record)]
            trained_on = find_trained_on([subject], ledgers, self.cache_dir)
            record["trained_on"] = int(bool(trained_on))
        subject |= masks
        with _timed(timer, "crop"):
            crops = self.classifier.crop(subject)
        for key in ("boxes", "estimated", "missing_rois"):
            record[key] = crops.get(key, record[key])
        record["flags"] += crops.get("flags", [])
        with _timed(timer, "measure"):
            self._measure(record, subject)
        record["status"] = "ok"
        if self.abstain and (reason := self._abstention(record)):
            record["flags"].append(reason)
            record["status"] = "abstained"
            return
        with _timed(timer, "classify"):
            record |= self.classifier.classify(crops)
        if self.explain:
            with _timed(timer, "explain"):
                self._explain(record, crops)

    def _check_files(self, record: Record, subject: Subject) -> None:
        examination = examine_subject(subject, deep=False)
        volumes = examination.volumes
        record["inputs"] = {
            key: {
                "path": self.shown(str(path), subject),
                "sha256": volumes[key].sha256 if key in volumes else None,  # None: unreadable
            }
            for key, path in files_of(subject).items()
        }
        _note(record, examination.findings)

    def _segment(self, record: Record, files: dict[str, Path]) -> dict[str, str]:
        """Segment the images without a mask; {"mask_nm": path, ...} of the new masks."""
        made: dict[str, str] = {}
        images = [image for image in self.classifier.masked_images if image.name in files]
        masks = {i.name: files[i.mask_name] for i in images if i.mask_name in files}
        for image in images:
            record["mask_source"][image.name] = "given" if image.name in masks else "segmented"
            if image.name not in masks:
                path = mask_file(self.output_dir, record["subject"], image)
                with _timed(record["timings_s"], f"segment_{image.name}"):
                    segment = self.segmenters.load(image)
                    segmentation = segment(files[image.name], find_near(image, images, masks))
                with _timed(record["timings_s"], "write"):
                    save_mask(path, segmentation.mask, like=files[image.name])
                masks[image.name] = path
                made[image.mask_name] = str(path)
        record["mask_source"] = dict(sorted(record["mask_source"].items()))
        return made

    def _ledgers_of_segmenters(self, record: Record) -> Iterator[Ledger]:
        """Of those whose masks the subject has: a network knows the nuclei that it learned from."""
        for image, source in record["mask_source"].items():
            if source == "segmented":
                yield from self.segmenters.load(self.classifier.images[image]).ledgers

    @staticmethod
    def _measure(record: Record, subject: Subject) -> None:
        """Measure the nuclei; that they cannot be measured is no reason against a prediction."""
        try:
            files = files_of(subject)
            record["biomarkers"] = measure_nuclei({key: read_volume(files[key]) for key in files})
        except (OSError, ValueError) as error:
            record["flags"].append(f"no biomarkers: {error}")

    def _explain(self, record: Record, crops: Mapping[str, Any]) -> None:
        try:
            explanation = self.classifier.explain(crops)
        except ValueError as error:
            record["flags"].append(f"{UNEXPLAINED}: {error}")
        else:
            path = subject_folder(self.output_dir, record["subject"]) / EXPLANATION
            write_text(path, json.dumps(explanation) + "\n")

    def _abstention(self, record: Record) -> str | None:
        """Why no probability is given; None if one is."""
        missing = record["missing_rois"]
        images = [self.classifier.rois[name].image for name in missing]
        vital = [image.title for image in images if image.quantity == "neuromelanin"]
        if not vital and len(missing) < min(2, len(self.classifier.rois)):
            return None
        what = f"the {vital[0]} region is" if vital else f"{len(missing)} regions are"
        return (
            f"no probability, because {what} missing ({', '.join(missing)}); add what is missing, "
            "or force one by --abstain False"
        )

    def shown(self, text: str, subject: Subject) -> str:
        """A text about a subject without the folders of this machine."""
        folders = [path.parent for path in files_of(subject).values()]
        for folder in (self.output_dir, self.root, *folders):
            for name in (str(folder.absolute()), str(folder)):
                if name not in (".", "/"):
                    text = text.replace(f"{name}/", "")
        return text


def find_near(
    image: Image, others: Sequence[Image], masks: Mapping[str, Path]
) -> tuple[Path, list[int]] | None:
    """Find a mask that holds all nuclei of an image, and their ids in it: there they are in both.

    The SN of QSM tells where to look in NM.
    """
    for other in others:
        if other.name in masks and image.nuclei.keys() <= other.nuclei.keys():
            return masks[other.name], [i for name in image.nuclei for i in other.nuclei[name]]
    return None


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


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        spent = timings.get(stage, 0.0) + time.perf_counter() - start
        timings[stage] = round(spent, 4)


def _message(error: BaseException) -> str:
    message = user_message(error)
    if message is None:
        while error.__cause__ is not None:
            error = error.__cause__
        message = f"{type(error).__name__}: {error}"
    return message
