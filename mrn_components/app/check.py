"""``mrn check``: every fault of a data set, before anything is trained or predicted with it."""

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from mrn_components.checks import Examination, examine_subject
from mrn_components.checks.cohort import (
    Confounds,
    class_findings,
    confound_baseline,
    confound_findings,
    duplicate_findings,
    geometry_baseline,
)
from mrn_components.checks.masks import REGIONS
from mrn_components.data.layouts import Found, Need, filters_of, find_subjects
from mrn_components.data.nuclei import drawn_by
from mrn_components.data.subjects import needed_images
from mrn_components.data.tables import person_of
from mrn_components.data.target import HC_PD, Classes, Target
from mrn_components.images.finding import Finding, finding
from mrn_components.images.image import CHALLENGE_IMAGES, Image
from mrn_components.regions.roi import ROI
from mrn_components.system.files import write_text
from mrn_components.system.logs import bar
from mrn_components.system.texts import fill_template
from mrn_components.system.workers import in_order

_MAX_PLACES = 10  # printed of one kind of fault; the JSON has them all
_SUBJECTS_A_PROCESS = 4  # fewer do not repay its start


class Report(NamedTuple):
    """What a check found."""

    data: str
    subjects: list[dict[str, Any]]
    findings: list[Finding]  # errors first
    confounds: Confounds | None  # what headers and tables tell of the labels; None without labels
    geometry: Confounds | None  # what outlines of the crops tell of them; None without masks too
    target: Target  # what the labels are

    @property
    def exit_code(self) -> int:
        """0 if there is no error, else 1."""
        return int(any(finding.severity == "error" for finding in self.findings))

    @property
    def counts(self) -> dict[str, int]:
        """Subjects of each class, and those with errors."""
        labels = [subject.get("label") for subject in self.subjects]
        faulty = {finding.subject for finding in self.findings if finding.severity == "error"}
        return {
            "subjects": len(labels),
            **{name: labels.count(number) for number, name in enumerate(self.classes)},
            "unlabelled": labels.count(None),
            "with_errors": sum(subject["subject"] in faulty for subject in self.subjects),
        }

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes; none of a score."""
        return self.target.names if isinstance(self.target, Classes) else ()

    def to_json(self) -> str:
        """The whole report for machines."""
        content = {
            "data": self.data,
            "exit_code": self.exit_code,
            "counts": self.counts,
            "findings": [asdict(finding) for finding in self.findings],
            "confounds": None if self.confounds is None else asdict(self.confounds),
            "geometry": None if self.geometry is None else asdict(self.geometry),
            "research_use_only": True,
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    def __str__(self) -> str:
        """The report for people: faults of one kind together, errors first."""
        groups: dict[tuple[str, ...], list[Finding]] = defaultdict(list)
        for one in self.findings:
            groups[one.severity, one.id, one.expected, one.fix].append(one)
        template = Path(__file__).with_suffix(".txt.j2")
        return fill_template(template, report=self, groups=groups, most=_MAX_PLACES).rstrip()


def check(
    data: str | Path,
    *,
    labels: str | Path | None = None,
    masks: str | Path | None = None,
    bundle: str | None = None,
    nuclei: str | Path | None = None,
    nm_filter: str | None = None,
    qsm_filter: str | None = None,
    nm_series: str | None = None,
    qsm_series: str | None = None,
    json: str | Path | None = None,
    workers: int | None = None,
) -> Report:
    """List every fault of a data set, each with what was found, what was expected, and the fix.

    Ends with 0 if there is no error, 1 if there are some, 2 if there is nothing to check.

    Args:
        data: challenge folder, one subject's folder, a JSON datalist, or a BIDS directory; masks
            and labels are optional.
        labels: csv or JSON datalist of the diagnoses, as typed or relative to ``data``.
        masks: folder of the masks, where they do not lie beside the images.
        bundle: check this bundle's images and labels instead of the challenge's.
        nuclei: csv of the ids in the masks, ``image,nucleus,right,left``, if they are not usual.
        nm_filter: glob of the NM images' names in BIDS, e.g. "*acq-NM*"; with a slash, of paths.
        qsm_filter: the same of QSM, e.g. "derivatives/qsmxt*/*_Chimap*".
        nm_series: the NM series of DICOM studies, by number or glob of the description.
        qsm_series: the same of QSM.
        json: file for the report, for machines.
        workers: processes; None for one a CPU where there are enough subjects.

    Raises:
        FileNotFoundError: if there is no such data set or table, or the data set has no subject.
        ValueError: for a faulty table of nuclei.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be >= 1 or None for one a CPU, got {workers}.")
    need = Need(masks="alike", labels="given")
    images, rois, target = parts_of(bundle)
    images, rois = drawn_by(nuclei, images, rois)
    found = find_subjects(
        data,
        images,
        need=need,
        labels=labels,
        masks=masks,
        target=target,
        filters=filters_of(images, nm_filter, qsm_filter),
        series=filters_of(images, nm_series, qsm_series),
    )
    examinations = _examine(found.subjects, images, rois, workers)
    labelled = [subject for subject in found.subjects if "label" in subject]
    people = {subject["subject"]: person_of(subject) for subject in found.subjects}
    findings = [
        *found.findings,
        *(finding for examination in examinations for finding in examination.findings),
        *duplicate_findings(examinations, people),
    ]
    confounds = geometry = None
    if labelled:
        fields = _fields(found, examinations, target)
        # Of a score, two classes: its lower and its higher half.
        names, groups = target.groups([subject["label"] for subject in labelled], 2)
        persons = (people[subject["subject"]] for subject in labelled)
        findings += class_findings(zip(persons, groups.tolist(), strict=True), names)
        confounds = confound_baseline([fields[s["subject"]] for s in labelled], groups.tolist())
        findings += confound_findings(confounds, groups.tolist())
        boxes = {examination.subject: examination.boxes for examination in examinations}
        geometry = geometry_baseline([boxes[s["subject"]] for s in labelled], groups.tolist())
    findings.sort(key=lambda finding: (finding.severity, finding.id))  # stable; "error" first
    report = Report(str(data), found.subjects, findings, confounds, geometry, target)
    if json is not None:
        write_text(Path(json), report.to_json())
    return report


def parts_of(
    bundle: str | None, **overrides: Any
) -> tuple[Mapping[str, Image], Mapping[str, ROI], Target]:
    """Return the images, the regions and the target of a bundle; None for the challenge's.

    ``overrides`` are keys of the bundle's config and their values.

    Raises:
        FileNotFoundError: if ``bundle`` is none.
        UntrustedBundleError: if more than the bundle's data differ from the installed one.
    """
    if bundle is None:
        return CHALLENGE_IMAGES, REGIONS, HC_PD
    from mrn_components.app.predict.workflow import inference_workflow, target_of  # wait for torch

    parser = inference_workflow(".", ".", bundle=bundle, **overrides).parser
    rois = dict(parser.get_parsed_content("rois"))
    return needed_images(rois), rois, target_of(parser)


def _examine(
    subjects: Sequence[Mapping[str, Any]],
    images: Mapping[str, Image],
    rois: Mapping[str, ROI],
    workers: int | None,
) -> list[Examination]:
    processes = min(workers or os.cpu_count() or 1, len(subjects) // _SUBJECTS_A_PROCESS)
    workers = processes if processes > 1 else 0
    examine = partial(_examine_one, images=images, rois=rois)
    examined = in_order(examine, subjects, workers=workers, lost=_lost)
    return list(bar(examined, "Check", len(subjects)))


def _lost(subject: Mapping[str, Any]) -> Examination:
    """Return what is said of a subject whose files end the process that reads them."""
    name = subject["subject"]
    died = "the process that read its files died, perhaps for lack of memory"
    return Examination(subject=name, findings=[finding("no-memory", "", died, name)])


def _examine_one(
    subject: Mapping[str, Any], images: Mapping[str, Image], rois: Mapping[str, ROI]
) -> Examination:
    """Examine a subject, and leave its volumes behind: they are large."""
    return replace(examine_subject(subject, images, rois, deep=True), volumes={})


def _fields(
    found: Found, examinations: Sequence[Examination], target: Target
) -> dict[str, dict[str, float | str]]:
    """What the confound baseline sees of each subject: headers, covariates, its place by id."""
    labels = {
        subject["subject"]: subject["label"] for subject in found.subjects if "label" in subject
    }
    columns = {column for own in found.covariates.values() for column in own}
    seen = {column for column in columns if not _is_label(column, found, labels, target)}
    fields: dict[str, dict[str, float | str]] = {}
    for place, one in enumerate(sorted(examinations, key=attrgetter("subject"))):
        own = found.covariates.get(one.subject, {})
        known = one.fields | {column: own[column] for column in own if column in seen}
        fields[one.subject] = known | {"order of the ids": float(place)}
    return fields


def _is_label(column: str, found: Found, labels: Mapping[str, float], target: Target) -> bool:
    """Whether a column of the covariates is the label once more."""
    told = {name: own[column] for name, own in found.covariates.items() if column in own}
    try:
        return all(target.parse(told[name]) == labels[name] for name in told.keys() & labels.keys())
    except ValueError:
        return False
