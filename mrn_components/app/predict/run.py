"""The loop over a cohort: what is done stays, what fails is told at the end."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from monai.bundle import ConfigWorkflow
from tqdm import tqdm

import mrn_components
from mrn_components.app.predict.manifest import (
    hash_content,
    hash_files,
    without_folders,
    write_manifest,
)
from mrn_components.app.predict.pipeline import Pipeline
from mrn_components.app.predict.processes import joined_processes, with_own_device
from mrn_components.app.predict.records import (
    Record,
    clear_subject,
    empty_record,
    mask_file,
    read_record,
    subject_folder,
    write_record,
    write_tables,
)
from mrn_components.app.predict.segmentation import Segmenters
from mrn_components.app.predict.workflow import Classifier, inference_workflow
from mrn_components.app.report.reports import needs_explanation, write_reports
from mrn_components.data import Subject
from mrn_components.data.layouts import Found, Need, find_subjects
from mrn_components.data.ledger import read_ledgers
from mrn_components.data.subjects import needed_images
from mrn_components.data.tables import files_of
from mrn_components.images.image import Image
from mrn_components.system.errors import FailedSubjectsError
from mrn_components.system.files import locked
from mrn_components.system.hashes import file_hash

_NUMBERS = ("weights", "config")  # what decides the numbers of a subject with masks
# Keys of a config that have an argument of their own, or that belong to an evaluation.
_OWN_KEYS = ("bundle_root", "dataset_dir", "output_dir", "labels", "require_labels")


def predict(
    input: str | Path,  # noqa: A002  `mrn predict INPUT OUTPUT` reads as users write it
    output: str | Path,
    *,
    bundle: str = "bundles/mrn",
    segmentation: str = "bundles/segmentation",
    nm_filter: str | None = None,
    masks: str | Path | None = None,
    abstain: bool = True,
    resume: bool = False,
    report: bool = False,
    trust_bundle: bool = False,
    **overrides: Any,
) -> Path:
    """Write P(PD), masks and flags of every subject to OUTPUT (research use only).

    Masks are used where they are given, else the segmentation bundle makes them. ``output`` gets
    ``predictions.csv``, ``biomarkers.csv``, ``manifest.json`` and ``subjects/ID`` with
    ``prediction.json`` and the masks that were made; each file appears whole or not at all. Under
    ``torchrun`` every process takes its share of the subjects, and the first one writes the tables.

    Args:
        input: a folder of subjects; one subject's folder of {NM,QSM[,NM_mask,QSM_mask]}, .nii.gz or
            .nii; a JSON datalist; or a BIDS directory (NM by nm_filter).
        output: folder of the results.
        bundle: folder of a bundle with weights, or of a training run.
        segmentation: folder of the bundle that makes the masks of subjects without.
        nm_filter: glob of the NM images' names in BIDS, e.g. "*acq-NM*".
        masks: folder of the masks, where they do not lie beside the images: ID/NM_mask.nii.gz,
            ID/NM_pred.nii.gz, an output of mrn predict, or BIDS.
        abstain: give no probability where the NM ROI or more than one ROI is missing.
        resume: keep the subjects whose files, weights and settings are those of an earlier call.
        report: write ``index.html`` and a page a subject too, which asks the network 28 times more.
        trust_bundle: run the bundles in spite of what ``mrn inspect`` finds in them.
        overrides: config keys and their values, e.g. --ckpt_path FILE, --precision fp32.

    Returns:
        The path of ``predictions.csv``.

    Raises:
        FileNotFoundError: if a path is missing or ``bundle`` is no bundle.
        ValueError: for an override that the config does not know, a faulty datalist, an
            ``output`` that holds the images, or if every subject lacks masks and they cannot be
            made.
        UntrustedBundleError: if a bundle could run code of its own, or was changed.
        RuntimeError: if another process uses ``output``.
        FailedSubjectsError: at the end, if subjects failed; names them and the reasons.
    """
    if own := sorted(set(_OWN_KEYS) & set(overrides)):
        raise ValueError(
            f"--{own[0]}: `mrn predict INPUT OUTPUT` has no such option; `mrn evaluate` scores "
            "predictions by labels."
        )
    with joined_processes() as (rank, world):
        workflow = inference_workflow(
            str(input),
            str(output),
            bundle=bundle,
            trust_bundle=trust_bundle,
            **with_own_device(overrides),
        )
        found = _find(workflow, input, nm_filter, masks)
        found.refuse_output(output)
        run = _Run(
            workflow,
            found,
            Path(output),
            bundle=bundle,
            segmentation=segmentation,
            abstain=abstain,
            resume=resume,
            report=report,
            trust_bundle=trust_bundle,
            overrides=overrides,
        )
        if rank > 0:
            idist.barrier()  # until the first process has the folder
            run.predict(found.subjects[rank::world])
            idist.barrier()
            return Path(output) / "predictions.csv"
        print(f"{len(found.subjects)} subjects: {found.layout}", flush=True)
        with locked(Path(output)):
            idist.barrier()
            run.predict(found.subjects[::world])
            idist.barrier()  # until every process has written its records
            return run.finish()


def _find(
    workflow: ConfigWorkflow,
    input_dir: str | Path,
    nm_filter: str | None,
    masks: str | Path | None,
) -> Found:
    """Find the subjects, with the images that the bundle's regions are taken from."""
    images = needed_images(workflow.parser.get_parsed_content("rois"))
    of_nm = [image.name for image in images.values() if image.quantity == "neuromelanin"]
    return find_subjects(
        input_dir,
        images,
        need=Need(images="some", masks="given", labels="none"),
        masks=masks,
        filters={} if nm_filter is None else dict.fromkeys(of_nm, nm_filter),
    )


class _Run:
    """The prediction of some subjects with one set of weights and settings.

    Args:
        workflow: of the bundle.
        found: the subjects.
        output_dir: folder of the results.
        bundle, segmentation, abstain, resume, report, trust_bundle, overrides: as of ``predict``.
    """

    def __init__(
        self,
        workflow: ConfigWorkflow,
        found: Found,
        output_dir: Path,
        *,
        bundle: str,
        segmentation: str,
        abstain: bool,
        resume: bool,
        report: bool,
        trust_bundle: bool,
        overrides: Mapping[str, Any],
    ) -> None:
        self.found = found
        self.output_dir = output_dir
        self.resume = resume
        self.report = report
        classifier = Classifier(workflow)
        segmenters = Segmenters(segmentation, classifier.device, trust_bundle)
        segments = self._load_segmenters(classifier.masked_images, segmenters)
        self.pipeline = Pipeline(
            classifier=classifier,
            segmenters=segmenters,
            ledgers=read_ledgers(classifier.weights),
            root=found.root,
            output_dir=output_dir,
            abstain=abstain,
            cache_dir=overrides.get("cache_dir"),
            explain=report,
        )
        self.description = {
            "weights": hash_files(classifier.weights, Path(bundle)),
            "config": hash_content(_settled(workflow.parser.get())),
            "segmentation": hash_files(segmenters.files, Path(segmentation)) if segments else None,
            "settings": {
                "bundle": Path(bundle).resolve().name,
                "segmentation": Path(segmentation).resolve().name,
                "abstain": abstain,
                "overrides": without_folders(overrides),
            },
        }
        same = [mrn_components.__version__, abstain, *(self.description[k] for k in _NUMBERS)]
        self._identity = hash_content(same)
        self._identity_with_masks = hash_content([*same, self.description["segmentation"]])

    def _load_segmenters(self, images: Sequence[Image], segmenters: Segmenters) -> bool:
        """Build the segmenters that are needed; whether any is.

        Raises:
            ValueError: if one cannot be built though every subject needs one.
        """
        without = [
            {i.name for i in images if i.name in subject and i.mask_name not in subject}
            for subject in self.found.subjects
        ]
        try:
            for image in images:
                if any(image.name in names for names in without):
                    segmenters.load(image)
        except ValueError:
            if all(without):
                raise  # else it is the error of those subjects
        return any(without)

    def predict(self, subjects: Sequence[Subject]) -> None:
        """Predict subjects, and write the records of those that files can be named after."""
        subjects = [subject for subject in subjects if self._is_named(subject)]
        if self.resume:
            subjects = self._left(subjects)
        for subject in subjects:
            images = self.pipeline.classifier.masked_images
            clear_subject(self.output_dir, subject["subject"], images)
        bar = tqdm(subjects, desc="Subjects", unit="subject", disable=idist.get_rank() > 0)
        for subject in bar:
            start = time.perf_counter()
            record = self.pipeline.predict(subject, self.found.of(subject["subject"]))
            record["run"] = self._identity_of(record)
            record["timings_s"]["total"] = round(time.perf_counter() - start, 4)
            write_record(self.output_dir, record)

    def _is_named(self, subject: Subject) -> bool:
        return all(finding.id != "subject-id" for finding in self.found.of(subject["subject"]))

    def _left(self, subjects: Sequence[Subject]) -> list[Subject]:
        """The subjects that are not done yet."""
        reasons = [self._why_again(subject) for subject in subjects]
        counts = Counter(reason for reason in reasons if reason is not None)
        again = ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "none"
        print(f"resume: {reasons.count(None)} subjects are done; left: {again}", flush=True)
        return [subject for subject, reason in zip(subjects, reasons, strict=True) if reason]

    def finish(self) -> Path:
        """Write the tables and the manifest, and say how it ended.

        Returns:
            The path of ``predictions.csv``.

        Raises:
            FailedSubjectsError: if subjects failed.
        """
        records = [self._read(subject) for subject in self.found.subjects]
        table = write_tables(self.output_dir, records, self.pipeline.classifier.target)
        write_manifest(self.output_dir, self.description, records, self.pipeline.classifier.device)
        if self.report:
            print(f"report: {write_reports(self.output_dir, self.found.root)}", flush=True)
        counts = Counter(record["status"] for record in records)
        flagged = sum(bool(record["flags"]) for record in records)
        ended = (
            f"{counts['ok']} predicted, {counts['abstained']} abstained, {counts['failed']} failed"
        )
        print(f"{ended}; {flagged} have flags (research use only)", flush=True)
        for record in records:
            if record["status"] == "abstained":
                print(f"  {record['subject']}: {'; '.join(record['flags'])}")
        failed = [record for record in records if record["status"] == "failed"]
        if failed:
            lines = "\n".join(f"  {record['subject']}: {record['error']}" for record in failed)
            raise FailedSubjectsError(
                f"{len(failed)} of {len(records)} subjects failed; mend them and add --resume True "
                f"to predict only these. The others are in {table}.\n{lines}"
            )
        return table

    def _read(self, subject: Subject) -> Record:
        name = subject["subject"]
        if not self._is_named(subject):
            error = self.pipeline.shown(self.found.problems[name], subject)
            return empty_record(name) | {"error": error}
        record = read_record(self.output_dir, name)
        if record is None or record["run"] != self._identity_of(record):
            error = "not predicted: its process ended early; add --resume True to go on."
            return empty_record(name, self.pipeline.classifier.target) | {"error": error}
        return record

    def _why_again(self, subject: Subject) -> str | None:
        """Why a subject is predicted (again); None if it is done."""
        record = read_record(self.output_dir, subject["subject"])
        if record is None:
            return "new"
        if record["status"] == "failed":
            return "failed before"
        if record["run"] != self._identity_of(record):
            return "with other weights or settings"
        classifier = self.pipeline.classifier
        for name, source in record["mask_source"].items():
            mask = mask_file(self.output_dir, subject["subject"], classifier.images[name])
            if source == "segmented" and not mask.is_file():
                return "without their masks"
        folder = subject_folder(self.output_dir, subject["subject"])
        if self.report and needs_explanation(record, folder):
            return "without what --report shows"
        known = {key: file["sha256"] for key, file in record["inputs"].items()}
        files = {k: file_hash(path) for k, path in files_of(subject).items() if path.is_file()}
        return None if files == known else "with other files"

    def _identity_of(self, record: Record) -> str:
        """Hash of all but the files that the record depends on."""
        segmented = "segmented" in record["mask_source"].values()
        return self._identity_with_masks if segmented else self._identity


def _settled(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without what changes no number: where things are, and how many workers read."""
    places = {*_OWN_KEYS, "_meta_", "cache_dir", "ckpt_path", "device", "num_workers"}
    return {key: value for key, value in config.items() if key not in places}
