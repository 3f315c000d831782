"""The loop over a cohort: what is done stays, what fails is told at the end."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from monai.bundle import ConfigWorkflow

import mrn_components
from mrn_components.app.align import BRIDGE
from mrn_components.app.calibration import find_calibration
from mrn_components.app.mask_makers import mask_maker
from mrn_components.app.masking import Masking
from mrn_components.app.predict.bids_output import bids_names, clear_derivatives, write_derivatives
from mrn_components.app.predict.classifier import Classifier
from mrn_components.app.predict.dicom_output import (
    FOLDER,
    check_sources,
    clear_study,
    write_studies,
)
from mrn_components.app.predict.manifest import (
    hash_content,
    hash_files,
    made_with,
    write_manifest,
)
from mrn_components.app.predict.pipeline import Options, Pipeline, Prepared
from mrn_components.app.records import (
    Record,
    clear_subject,
    empty_record,
    flags_of,
    mask_file,
    read_record,
    subject_folder,
    write_record,
    write_tables,
)
from mrn_components.app.report.reports import complete_reports, needs_explanation
from mrn_components.app.report.subject import write_pages
from mrn_components.data import Subject
from mrn_components.data.layouts import Found
from mrn_components.data.ledger import read_ledgers
from mrn_components.data.tables import files_of
from mrn_components.images.image import factor_of
from mrn_components.system.errors import FailedSubjectsError, line_of
from mrn_components.system.files import without_folders
from mrn_components.system.hashes import file_hash
from mrn_components.system.logs import bar
from mrn_components.system.workers import in_order

# Keys of a config that have an argument of their own, or that belong to an evaluation.
OWN_KEYS = ("bundle_root", "dataset_dir", "output_dir", "labels", "require_labels")
# Keys that change no number: where things are, and how many workers read.
_PLACES = {*OWN_KEYS, "_meta_", "cache_dir", "ckpt_path", "device", "num_workers"}

_SUBJECTS_A_WORKER = 2


class Cohort:
    """The prediction of some subjects with one set of weights and settings."""

    def __init__(
        self,
        workflow: ConfigWorkflow,
        found: Found,
        output_dir: Path,
        options: Options,
        bridges: Mapping[str, str],
    ) -> None:
        self.found, self.output_dir, self.options = found, output_dir, options
        if options.format == "bids":
            bids_names(found.subjects)  # which refuses some, before anything is predicted
        if options.dicom:
            check_sources(found.sources, found.layout)
        self.bridges = bridges  # files of T1 by subject
        self.classifier = classifier = Classifier(workflow)
        if options.states is not None:
            classifier.check_states(options.states)
        images, device = classifier.masked_images, classifier.device
        segmentation, trust = options.segmentation, options.trust_bundle
        maker = mask_maker(options.atlas, segmentation, images, device, trust)
        self.masking = Masking(
            maker=maker,
            images=classifier.images,
            masked=images,
            bridges=bridges,
            align=options.align,
            root=found.root,
            output_dir=output_dir,
        )
        makes = self.masking.check(found.subjects)
        calibration = find_calibration(classifier.weights, classifier.target, options.set_level)
        ledgers = read_ledgers(classifier.weights)
        self.pipeline = Pipeline(
            classifier=classifier,
            masking=self.masking,
            ledgers=ledgers if calibration is None else [*ledgers, calibration.ledger],
            calibration=calibration,
            output_dir=output_dir,
            options=options,
        )
        bundle = Path(options.bundle)
        config = workflow.parser.get()
        self.description = {
            "weights": hash_files(classifier.weights, bundle),
            "images": {name: asdict(image) for name, image in classifier.images.items()},
            "config": hash_content({key: config[key] for key in config.keys() - _PLACES}),
            "segmentation": hash_files(maker.files, maker.folder) if makes else None,
            "settings": {
                "bundle": bundle.resolve().name,
                "segmentation": maker.folder.resolve().name,
                "abstain": options.abstain,
                "align": options.align,
                "overrides": without_folders(options.overrides),
            },
        }
        if calibration is not None:
            self.description["calibration"] = calibration.summary()
        numbers = self.description["weights"], self.description["config"]
        same = [mrn_components.__version__, options.abstain, options.align, *numbers]
        same += [self.description["calibration"]] if calibration is not None else []
        self._identity = hash_content(same)
        self._identity_with_masks = hash_content([*same, self.description["segmentation"]])

    def predict(self, subjects: Sequence[Subject]) -> None:
        """Predict subjects, and write the records of those that files can be named after."""
        subjects = [subject for subject in subjects if self._is_named(subject)]
        if self.options.resume:
            subjects = self._left(subjects)
        for subject in subjects:
            clear_subject(self.output_dir, subject, self.classifier.masked_images)
            clear_derivatives(self.output_dir, subject, self.classifier.masked_images)
            clear_study(self.output_dir, subject["subject"])
        predicted = self._predicted(subjects)
        first = idist.get_rank() == 0
        for done in bar(predicted, "Subjects", len(subjects), shown=first):
            done.record["run"] = self._identity_of(done.record)
            told = self.found.covariates.get(done.record["subject"], {})
            done.record["person"] = {key: told[key] for key in ("age", "sex") if key in told}
            write_record(self.output_dir, done.record)
            if self.options.report:
                folder = subject_folder(self.output_dir, done.record["subject"])
                made, target = self._made_with(), self.classifier.target
                dated = self.options.scan_date
                write_pages(folder, done.record, done.drawn, made, target, scan_date=dated)

    def _predicted(self, subjects: Sequence[Subject]) -> Iterator[Prepared]:
        """Prepare the subjects in workers, and predict them there too if these have all cores.

        Else this process asks the networks, on the cores that are left or on a GPU.
        """
        workers = min(self.classifier.num_workers, len(subjects) // _SUBJECTS_A_WORKER)
        on_cpu = self.classifier.device.type == "cpu"
        shared = on_cpu and workers >= max(2, torch.get_num_threads())
        ready = in_order(
            self.pipeline if shared else self.pipeline.prepare,
            [(subject, self.found.of(subject["subject"])) for subject in subjects],
            workers=workers,
            lost=self.pipeline.lost,
        )
        return ready if shared else map(self.pipeline.predict, ready)

    def _made_with(self) -> dict[str, Any]:
        packages = [self.masking.maker.package] if self.description["segmentation"] else []
        return made_with(self.description, self.classifier.device, packages)

    def _is_named(self, subject: Subject) -> bool:
        return all(finding.id != "subject-id" for finding in self.found.of(subject["subject"]))

    def _left(self, subjects: Sequence[Subject]) -> list[Subject]:
        """Return the subjects that are not done yet."""
        reasons = [self._why_again(subject) for subject in subjects]
        counts = Counter(reason for reason in reasons if reason is not None)
        again = ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "none"
        print(f"resume: {reasons.count(None)} subjects are done; left: {again}", flush=True)
        return [subject for subject, reason in zip(subjects, reasons, strict=True) if reason]

    def finish(self) -> Path:
        """Write the tables and the manifest, say how it ended, and return ``predictions.csv``.

        Raises:
            FailedSubjectsError: if subjects failed.
        """
        subjects = self.found.subjects
        records = [self._read(subject) for subject in subjects]
        target, images = self.classifier.target, self.classifier.images
        table = write_tables(self.output_dir, records, target, images)
        write_manifest(self.output_dir, self._made_with(), records)
        if self.options.further is not None:
            self.options.further(records, self.found, self.classifier)
        if self.options.format == "bids":
            write_derivatives(self.output_dir, records, subjects, images=images, target=target)
        without = self._write_studies(records)
        if self.options.report:
            dated = self.options.scan_date
            index = complete_reports(self.output_dir, self.found.root, scan_date=dated)
            print(f"report: {index}", flush=True)
        counts = Counter(record["status"] for record in records)
        flagged = sum(bool(flags_of(record)) for record in records)
        ended = f"{counts['ok']} predicted, {counts['abstained']} abstained"
        ended += f", {counts['failed']} failed; {flagged} have flags (research use only)"
        print(ended, flush=True)
        for record in records:
            if record["status"] == "abstained":
                print(f"  {record['subject']}: {'; '.join(record['flags'])}")
        failed = [record for record in records if record["status"] == "failed"]
        if failed:
            lines = "\n".join(line_of(record["subject"], record["error"]) for record in failed)
            raise FailedSubjectsError(
                f"{len(failed)} of {len(records)} subjects failed; mend them and add --resume True "
                f"to predict only these. The others are in {table}.\n{lines}"
            )
        if without:
            lines = "\n".join(f"  {text}" for text in without)
            raise FailedSubjectsError(
                f"{len(without)} of {len(records)} subjects are in {table} and not in "
                f"{self.output_dir / FOLDER}.\n{lines}"
            )
        return table

    def _write_studies(self, records: Sequence[Record]) -> list[str]:
        """Write objects into DICOM studies, if asked to; print and return why some are not."""
        if not self.options.dicom:
            return []
        subjects, images = self.found.subjects, self.classifier.images
        sources = self.found.sources
        problems = write_studies(self.output_dir, records, subjects, sources, images)
        for text in problems:
            print(text, flush=True)
        return problems

    def _read(self, subject: Subject) -> Record:
        name, target = subject["subject"], self.classifier.target
        if not self._is_named(subject):
            error = self.masking.shown(self.found.problems[name], subject)
            return empty_record(name, target) | {"error": error}
        record = read_record(self.output_dir, name, target)
        if record is None or record["run"] != self._identity_of(record):
            error = "not predicted: its process ended early; add --resume True to go on."
            return empty_record(name, target) | {"error": error}
        return record

    def _why_again(self, subject: Subject) -> str | None:
        """Why a subject is predicted (again); None if it is done."""
        record = read_record(self.output_dir, subject["subject"], self.classifier.target)
        if record is None:
            return "new"
        if record["status"] == "failed":
            return "failed before"
        if record["run"] != self._identity_of(record):
            return "with other weights or settings"
        if lacking := self._lacking(record):
            return f"without {lacking}"
        known = {k: (f["sha256"], f.get("factor", 1.0)) for k, f in record["inputs"].items()}
        paths = files_of(subject)
        if BRIDGE.name in known and subject["subject"] in self.bridges:
            paths[BRIDGE.name] = Path(self.bridges[subject["subject"]])
        files = {
            key: (file_hash(path), factor_of(subject, key))
            for key, path in paths.items()
            if path.is_file()
        }
        return None if files == known else "with other files"

    def _lacking(self, record: Record) -> str | None:
        """What a record is without that is asked for; None if nothing."""
        folder = subject_folder(self.output_dir, record["subject"])
        for name, source in record["mask_source"].items():
            image = self.classifier.images[name]
            mask = mask_file(self.output_dir, record["subject"], image)
            if source != "given" and not mask.is_file():
                return "their masks"
        occlusion = self.options.occlusion
        if self.options.report and needs_explanation(record, folder, occlusion=occlusion):
            return "what --report shows"
        asked, known = self.options.states, record.get("states", {})
        whole = known.get("mask_mode") == asked and {*self.classifier.target.columns} <= {*known}
        return "these states" if asked and not whole and record["status"] == "ok" else None

    def _identity_of(self, record: Record) -> str:
        """Hash of all but the files that the record depends on."""
        given = all(source == "given" for source in record["mask_source"].values())
        return self._identity if given else self._identity_with_masks
