"""One subject, from its files to its record: read, check, segment, crop, measure, ask, explain."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from mrn_components.app.align import Mode, moved_volumes
from mrn_components.app.calibration import Calibration
from mrn_components.app.masking import Masking, note, timed, volumes_of
from mrn_components.app.predict.classifier import Asked, Classifier
from mrn_components.app.predict.unlike import flag_unlike
from mrn_components.app.records import (
    EXPLANATION,
    UNEXPLAINED,
    Record,
    empty_record,
    subject_folder,
    unpredicted,
)
from mrn_components.app.report.images import Shown, draw_images
from mrn_components.biomarkers import measure_nuclei
from mrn_components.biomarkers.quality import measure_quality
from mrn_components.data import Subject
from mrn_components.data.layouts import Found
from mrn_components.data.ledger import Ledger, find_trained_on, unlike_voxels
from mrn_components.data.tables import files_of
from mrn_components.images.boxes import spacing_mm
from mrn_components.images.finding import Finding
from mrn_components.images.volume import Volume
from mrn_components.networks.masking import StateMode
from mrn_components.regions.reference import take_out_references
from mrn_components.system.files import write_json

_logger = logging.getLogger(__name__)

Format = Literal["tables", "bids"]
Case = tuple[Subject, Sequence[Finding]]  # a subject, and what was found wrong with it


@dataclass(frozen=True, kw_only=True)
class Options:
    """How subjects are predicted: what ``predict`` takes, and what ``contributions`` adds."""

    bundle: str
    segmentation: str
    nm_filter: str | None
    qsm_filter: str | None
    nm_series: str | None
    qsm_series: str | None
    masks: str | Path | None
    nuclei: str | Path | None = None  # table of the ids in given masks
    abstain: bool
    align: Mode = "auto"
    atlas: str | Path | None = None  # makes masks in place of the segmentation
    set_level: float | None = None  # of the sets of classes
    resume: bool
    report: bool
    occlusion: bool = True  # maps of it on pages
    scan_date: bool = False  # on pages
    trust_bundle: bool
    overrides: Mapping[str, Any]
    labels: str | Path | None = None  # table of the labels, which every subject must have then
    require_labels: bool = False
    format: Format = "tables"
    dicom: bool = False  # write objects into the study of the input
    states: StateMode | None = None  # also mask every subset of the ROIs, in this way
    # Writes tables of the records, in their order, beside those of a prediction.
    further: Callable[[Sequence[Record], Found, Classifier], None] | None = None


@dataclass(kw_only=True)
class Prepared:
    """A subject on its way."""

    subject: Subject  # its id, and the files that there are; those that are read stand as volumes
    record: Record  # what is known so far; with an error, the subject has failed
    crops: dict[str, Any] | None = None  # None while masks are lacking, and after the network
    drawn: dict[str, Shown] = field(default_factory=dict)  # for its page, if it is to have one


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """What turns the files of a subject into its record, in any process."""

    classifier: Classifier
    masking: Masking
    ledgers: Sequence[Ledger]  # of the classifier's weights, and of its calibration
    calibration: Calibration | None
    output_dir: Path
    options: Options

    def __call__(self, case: Case) -> Prepared:
        """Prepare and predict a subject."""
        return self.predict(self.prepare(case))

    def prepare(self, case: Case) -> Prepared:
        """Read and check a subject, and crop its ROIs unless masks are lacking."""
        prepared = self._begin(case)
        with self._guard(prepared):
            note(prepared.record, case[1])
            with timed(prepared.record, "read"):
                self._read(prepared)
                self._mark(prepared, self.ledgers)
            if not self.masking.lacking(prepared.subject):
                self._crop(prepared)
        return prepared

    def predict(self, prepared: Prepared) -> Prepared:
        """Segment a subject that lacks masks, and ask the network; errors stand in the record."""
        if prepared.record["error"] is None:
            with self._guard(prepared):
                if prepared.crops is None:
                    self._segment(prepared)
                    self._crop(prepared)
                self._ask(prepared)
        prepared.crops = None
        return prepared

    def lost(self, case: Case) -> Prepared:
        """Return what is known of a subject whose files end the process that reads them."""
        prepared = self._begin(case)
        prepared.record["error"] = (
            "the process that read its files died, perhaps for lack of memory; look at them with "
            "`mrn check`, or try --num_workers 0."
        )
        return prepared

    def _begin(self, case: Case) -> Prepared:
        record = empty_record(case[0]["subject"], self.classifier.target)
        return Prepared(subject=dict(case[0]), record=record)

    @contextmanager
    def _guard(self, prepared: Prepared) -> Iterator[None]:
        """Write what goes wrong with a subject into its record: the others go on."""
        failed = {"status": "failed", **unpredicted(self.classifier.target)}
        with self.masking.guard(prepared.record, prepared.subject, failed):
            try:
                yield
            except Exception:
                self._release(prepared)
                raise

    def _read(self, prepared: Prepared) -> None:
        record, subject, images = prepared.record, prepared.subject, self.classifier.images
        self.masking.read(record, subject, self.classifier.rois)
        volumes = volumes_of(subject)
        spacings = {name: spacing_mm(volumes[name].affine) for name in images if name in volumes}
        record["flags"] += unlike_voxels(spacings, self.ledgers)

    def _mark(self, prepared: Prepared, ledgers: Sequence[Ledger]) -> None:
        """Note whether some weights were trained on a subject."""
        cache_dir = self.options.overrides.get("cache_dir")
        found = find_trained_on([prepared.subject], ledgers, cache_dir)
        known = prepared.record["trained_on"]
        prepared.record["trained_on"] = int(bool(found or known))

    def _segment(self, prepared: Prepared) -> None:
        """Make the masks that a subject lacks."""
        record, masking = prepared.record, self.masking
        masking.make_masks(record, prepared.subject)
        with timed(record, "read"):  # a network knows the nuclei that it learned from
            sources = record["mask_source"].items()
            made = [self.classifier.images[name] for name, by in sources if by != "given"]
            self._mark(prepared, masking.maker.ledgers(made))

    def _crop(self, prepared: Prepared) -> None:
        """Crop the ROIs of a subject with masks, and measure its nuclei."""
        record, subject = prepared.record, prepared.subject
        images = self.classifier.images
        if not record["alignment"]:
            self.masking.align_images(record, subject)
        with timed(record, "crop"):
            volumes = {key: subject[key] for key in files_of(subject)}
            volumes, record["reference_shift"] = take_out_references(volumes, images)
            subject |= volumes
            volumes |= moved_volumes(volumes, record["alignment"])
            crops = self.classifier.crop({**subject, **volumes})
        for key in ("boxes", "estimated", "missing_rois"):
            record[key] = crops.get(key, record[key])
        record["flags"] += crops.get("flags", [])
        with timed(record, "measure"):
            self._measure(record, volumes)
        prepared.crops = crops
        self._release(prepared)

    def _measure(self, record: Record, volumes: Mapping[str, Volume]) -> None:
        """Measure the nuclei and the images; what cannot be measured stops no prediction."""
        images = self.classifier.images
        try:
            record["biomarkers"] = measure_nuclei(volumes, images)
        except (OSError, ValueError) as error:
            record["flags"].append(f"no biomarkers: {error}")
        try:
            record["quality"] = measure_quality(volumes, images)
        except Exception as error:  # whatever it is
            record["flags"].append(f"no quality of the images: {error}")
            _logger.exception("subject %s: no quality of the images", record["subject"])

    def _release(self, prepared: Prepared) -> None:
        """Draw the volumes, then keep their paths alone: they are large, and change processes."""
        files = files_of(prepared.subject)
        if self.options.report and not prepared.drawn:
            draw = partial(draw_images, prepared.record, images=self.classifier.images)
            with timed(prepared.record, "draw"):
                try:
                    prepared.drawn = draw(volumes_of(prepared.subject))
                except Exception:  # a page without pictures is no reason to stop
                    _logger.exception("subject %s cannot be drawn", prepared.record["subject"])
                    prepared.drawn = draw({})
        prepared.subject |= {key: str(path) for key, path in files.items()}

    def _ask(self, prepared: Prepared) -> None:
        record, crops = prepared.record, prepared.crops
        assert crops is not None
        record["status"] = "ok"
        if self.options.abstain and (reason := self._abstention(record)):
            record["flags"].append(reason)
            record["status"] = "abstained"
            return
        with timed(record, "classify"):
            asked = self.classifier.ask(crops, watched=self.options.report)
            record |= self.classifier.classify(asked)
            if self.calibration is not None:
                record |= self.calibration.apply(record)
            record["flags"] += flag_unlike(record)
        if (mode := self.options.states) is not None:
            with timed(record, "states"):
                record["states"] = {"mask_mode": mode, **self.classifier.states(asked, mode)}
        if self.options.report:
            with timed(record, "explain"):
                self._explain(record, asked)

    def _explain(self, record: Record, asked: Asked) -> None:
        try:
            explanation = self.classifier.explain(asked, occlusion=self.options.occlusion)
        except ValueError as error:
            record["flags"].append(f"{UNEXPLAINED}: {error}")
        else:
            folder = subject_folder(self.output_dir, record["subject"])
            write_json(folder / EXPLANATION, explanation, indent=None)

    def _abstention(self, record: Record) -> str | None:
        """Why no probability is given; None if one is.

        The paper's network loses most without the ROI of neuromelanin (Table 4).
        """
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
