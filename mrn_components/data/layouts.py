"""The subjects of a data set: one finder for every verb and every layout."""

import atexit
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from os.path import lexists
from pathlib import Path
from typing import Literal

from mrn_components.data.bids import BIDSCase, bids_cases, is_bids, take_masks
from mrn_components.data.case import Case, datalist_cases, existing, file_stems, folder_case
from mrn_components.data.dicom import Sources, dicom_cases
from mrn_components.data.labels import give_labels
from mrn_components.data.series import is_dicom
from mrn_components.data.tables import Subject, files_of, id_fault
from mrn_components.data.target import Classes, Target
from mrn_components.images.finding import Finding, Severity
from mrn_components.images.image import CHALLENGE_IMAGES, FACTOR, Image

ONE_SUBJECT = "one subject"
WORK = ".work"  # folder in the output of a verb, of what is converted for it
Level = Literal["all", "alike", "some", "given", "none"]


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a verb needs of every subject; the finder says what is lacking.

    Of images, as of masks: "all"; "alike", what any subject of the data set has; "some", one at
    least, the others are warned of; "given", what there is; "none", they are left out.
    """

    images: Level = "all"
    masks: Level = "all"
    labels: Literal["all", "given", "none"] = "all"  # "given" by a table or a datalist
    every_folder: bool = False  # take every folder for a subject, whatever it holds


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a data set holds.

    Subjects are dicts with ``subject``, the paths of the files that are there (``nm, qsm, mask_nm,
    ...``), ``label`` and ``person`` where they are known, and ``factor_qsm`` where the voxels of a
    file are to be multiplied for the image's unit. A table or datalist may also tell covariates,
    {subject: {"age": 63, "site": "A"}}.
    """

    root: Path  # folder that paths are told relative to
    layout: str  # which one it is, for the user
    subjects: list[Subject]  # sorted by subject
    findings: list[Finding]  # faults of the subjects, of the tables, and what is lacking
    covariates: dict[str, dict[str, float | str]] = field(default_factory=dict)
    sources: Sources = field(default_factory=dict)  # the DICOM files that images are of

    def of(self, subject: str) -> list[Finding]:
        """List the findings of a subject."""
        return [finding for finding in self.findings if finding.subject == subject]

    @property
    def problems(self) -> dict[str, str]:
        """The errors of each subject that has some, in one line each."""
        problems: dict[str, str] = {}
        for finding in self.findings:
            if finding.severity == "error" and finding.subject:
                known = problems.get(finding.subject)
                problems[finding.subject] = f"{known} {finding}" if known else str(finding)
        return problems

    def require_all(self, further: Iterable[Finding] = ()) -> list[Subject]:
        """Return the subjects; a ValueError lists the errors, and those among ``further`` ones."""
        errors = [f for f in (*self.findings, *further) if f.severity == "error"]
        if errors:
            raise ValueError(
                f"{len(errors)} faults of the data set {str(self.root)!r}; mend them, or take "
                "their subjects out (`mrn check` also looks at voxels):\n"
                + "\n".join(f"  {finding}" for finding in errors)
            )
        return self.subjects

    def require_some(self) -> None:
        """Go on if any subject is without an error; else a ValueError lists every error."""
        if len(self.problems) >= len(self.subjects):
            self.require_all()

    def refuse_output(self, output_dir: str | Path) -> None:
        """Refuse, by a ValueError, results between images: their tables would pass for labels."""
        files = [path for subject in self.subjects for path in files_of(subject).values()]
        files += [path for own in self.sources.values() for of in own.values() for path in of]
        folders = {path.parent.resolve() for path in files}
        if Path(output_dir).resolve() in {self.root.resolve(), *folders}:
            raise ValueError(
                f"{output_dir} holds the images, and results are never written beside them; name "
                "another folder as OUTPUT."
            )


def find_subjects(
    data: str | Path,
    images: Mapping[str, Image] = CHALLENGE_IMAGES,
    *,
    need: Need,
    labels: str | Path | None = None,
    target: Target | None = None,
    masks: str | Path | None = None,
    filters: Mapping[str, str] | None = None,
    series: Mapping[str, str] | None = None,
    work: Path | None = None,
    dicom: bool = True,
) -> Found:
    """Find the subjects of a data set, and all that is wrong with them.

    Five layouts are read, each with or without masks, ``.nii.gz`` or ``.nii``:

    - challenge folders, ``DATA/SUBJECT/{NM,QSM,NM_mask,QSM_mask}.nii.gz``;
    - one subject's folder with such files;
    - a MONAI JSON datalist: a list, or ``{"training": [...]}``, of dicts with ``subject`` and paths
      ``nm, qsm, mask_nm, mask_qsm`` relative to it, perhaps ``label``, ``person``, ``factor_qsm``
      (1000 for a file in ppm) and covariates;
    - BIDS: ``sub-*/[ses-*/]anat`` in DATA and in ``DATA/derivatives/*``, whose files are joined by
      subject, session and run; masks are ``*_dseg`` beside the images. A ``Chimap`` is in ppm, or
      what ``Units`` of its JSON file says;
    - DICOM: one or many studies in any order, a subject each. Series are chosen by words of their
      description, which is printed, and converted by dcm2niix.

    Args:
        data: the folder or datalist.
        images: what a subject has; names of files, keys and masks follow from them.
        need: what the verb needs.
        labels: csv of rows ``case_id,label[,person]`` or with a header, or JSON datalist; as typed,
            or else relative to ``data``. None takes a datalist's own, or the only csv in a folder.
        target: what a label may be; None for 0 (HC) and 1 (PD).
        masks: folder of all masks, where they lie elsewhere: ``MASKS/SUBJECT/NM_mask.nii.gz`` or
            ``NM_pred.nii.gz``, an output of ``mrn predict``, or a BIDS data set of ``*_dseg``.
        filters: {image: glob of its file names in BIDS} for other names than the image's own; one
            with a slash is for paths relative to ``data``.
        series: {image: number or glob of the description of its series in DICOM}.
        work: folder that keeps what is converted; None for one that goes with this process.
        dicom: look for DICOM studies too.

    Raises:
        FileNotFoundError: if there is no such data set, or no subject or no mask in it.
        ValueError: for a file that is no datalist, filters without BIDS, or series without DICOM.
    """
    root = Path(data)
    choices = _Choices(filters=filters or {}, series=series or {}, work=work, dicom=dicom)
    layout, cases, sources = _cases(root, images, need, choices)
    if masks is not None:
        _take_masks_elsewhere(Path(masks), cases, images)
    cases.sort(key=lambda case: case.subject)
    _take_file_units(cases, images)
    _judge_names(cases)
    titles = {image.name: f"{image.title} image" for image in images.values()}
    _judge_files("missing-file", need.images, titles, cases)
    titles = {image.mask_name: f"{image.title} mask" for image in images.values() if image.mask}
    _judge_files("missing-mask", need.masks, titles, cases)
    alone = layout == ONE_SUBJECT
    in_table = give_labels(cases, root, labels, need.labels, target or Classes(), alone=alone)
    return Found(
        root=root if root.is_dir() else root.parent,
        layout=layout,
        subjects=[_subject(case, images) for case in cases],
        findings=[*in_table, *(finding for case in cases for finding in case.findings)],
        covariates={case.subject: case.covariates for case in cases if case.covariates},
        sources=sources,
    )


@dataclass(frozen=True, kw_only=True)
class _Choices:
    """What a user chose of a layout."""

    filters: Mapping[str, str]
    series: Mapping[str, str]
    work: Path | None
    dicom: bool

    def refuse_others(self, root: Path, *, bids: bool = False, dicom: bool = False) -> None:
        """Refuse choices that are of no use in a layout."""
        for chosen, what, fits in (
            (self.filters, "images of a BIDS data set by name", bids),
            (self.series, "series of DICOM studies", dicom),
        ):
            if chosen and not fits:
                raise ValueError(
                    f"{', '.join(chosen.values())!r} chooses {what}, and {str(root)!r} is none; "
                    "leave it out."
                )


def filters_of(images: Mapping[str, Image], nm: str | None, qsm: str | None) -> dict[str, str]:
    """Return ``filters``, or ``series``, by what a user gave for the two quantities."""
    given = {"neuromelanin": nm, "susceptibility": qsm}
    of_images = {name: given.get(image.quantity) for name, image in images.items()}
    return {name: glob for name, glob in of_images.items() if glob is not None}


def _subject(case: Case, images: Mapping[str, Image]) -> Subject:
    files = {key: str(case.files[key]) for key in file_stems(images) if key in case.files}
    told = {key: factor for key, factor in case.factors.items() if factor != 1.0}
    factors = {FACTOR + key: factor for key, factor in told.items() if key in files}
    subject: Subject = {"subject": case.subject, **files, **factors}
    return subject | {key: case.fields[key] for key in ("label", "person") if key in case.fields}


def _cases(
    root: Path, images: Mapping[str, Image], need: Need, choices: _Choices
) -> tuple[str, list[Case], Sources]:
    """Return the layout of a data set, its subjects, and the DICOM files that they are of."""
    if not root.exists():
        raise FileNotFoundError(
            f"{str(root)!r} does not exist; name a folder of subjects, one subject's folder, a "
            "JSON datalist or a BIDS directory. A synthetic cohort is made by `mrn phantom "
            f"{root} --subjects 40`."
        )
    if root.is_file():
        choices.refuse_others(root)
        return "a JSON datalist", datalist_cases(root, images), {}
    detail = ""
    if is_bids(root):
        choices.refuse_others(root, bids=True)
        globs = {
            name: (choices.filters[name],) if name in choices.filters else image.bids_globs
            for name, image in images.items()
        }
        cases, layout = bids_cases(root, images, globs)
        if cases:
            return layout, cases, {}
        detail = f" It is {layout}."
    else:
        layout, cases = _challenge_cases(root, images, need)
        if not cases and choices.dicom and is_dicom(root):
            choices.refuse_others(root, dicom=True)
            work = choices.work or _own_folder()
            layout, cases, sources = dicom_cases(root, images, choices.series, work)
            if cases:
                return layout, cases, sources
            detail = " Of its DICOM files none is of a series and study that can be read."
        choices.refuse_others(root)
    if not cases:
        names = ",".join(image.file for image in images.values())
        raise FileNotFoundError(
            f"{str(root)!r} has no subjects: expected {root}/SUBJECT/{{{names}}}.nii.gz, "
            f"{root}/{{{names}}}.nii.gz of one subject, sub-*/[ses-*/]anat of BIDS, or "
            f"DICOM studies.{detail}"
        )
    return layout, cases, {}


def _challenge_cases(root: Path, images: Mapping[str, Image], need: Need) -> tuple[str, list[Case]]:
    """Return the subjects of folders as the challenge has them, and whether it is one alone."""
    if _is_subject(alone := folder_case(root, images), need):
        return ONE_SUBJECT, [alone]
    folders = [path for path in sorted(root.iterdir()) if path.is_dir()]
    found = [folder_case(path, images) for path in folders if not path.name.startswith(".")]
    subjects = [case for case in found if _is_subject(case, need)]
    layout = "a folder of subjects"
    if need.every_folder and (subjects or not is_dicom(root)):
        return layout, found
    left = [case.source for case in found if case not in subjects] if subjects else []
    if studies := [path.name for path in left if is_dicom(path)]:
        layout += f"; left out: DICOM in {', '.join(studies)}, to be named alone as the data"
    return layout, subjects


@cache
def _own_folder() -> Path:
    """Make a folder for this process, which is removed at its end."""
    folder = tempfile.mkdtemp(prefix="mrn.")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _is_subject(case: Case, need: Need) -> bool:
    """Whether a folder holds what makes it a subject: an image, where images matter."""
    without_images = need.images in ("given", "none")
    found = [key for key in case.files if without_images or not key.startswith("mask_")]
    return bool(found or case.findings)


def _take_masks_elsewhere(root: Path, cases: Sequence[Case], images: Mapping[str, Image]) -> None:
    """Give the cases the masks of a folder, instead of those beside their images."""
    base = root / "subjects" if (root / "subjects").is_dir() else root
    masked = [image for image in images.values() if image.mask]
    in_bids = is_bids(root)
    for case in cases:
        if isinstance(case, BIDSCase) and in_bids:
            take_masks(case, images, root)
            continue
        for image in masked:
            stems, folder = (f"{image.mask}", f"{image.file}_pred"), base / case.subject
            found = existing(folder, stems)
            if len(cases) == 1 and not found:
                found = existing(base, stems)
            case.take(image.mask_name, found, folder / f"{image.mask}.nii.gz")
    if not any(case.files.get(image.mask_name) for case in cases for image in masked):
        names = ",".join(f"{image.mask},{image.file}_pred" for image in masked)
        raise FileNotFoundError(
            f"masks {str(root)!r} lacks the masks of all {len(cases)} subjects; expected "
            f"{root}/SUBJECT/{{{names}}}.nii.gz, the output of `mrn predict`, or "
            "sub-*/[ses-*/]anat/*_dseg.nii.gz of BIDS."
        )


def _take_file_units(cases: Iterable[Case], images: Mapping[str, Image]) -> None:
    """Note what files are multiplied by for their ``file_unit``, unless the layout tells."""
    for name, image in images.items():
        factor = image.factor_from(image.file_unit) if image.file_unit else 1.0
        for case in cases:
            if factor != 1.0 and not isinstance(case, BIDSCase):
                case.factors.setdefault(name, factor)


def _judge_names(cases: Iterable[Case]) -> None:
    """Note ids that files cannot be named after, or that would name the same files."""
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        groups[case.subject.lower()].append(case)
        if found := id_fault(case.subject):
            case.add("subject-id", case.source, found)
    for group in groups.values():
        for case in group if len(group) > 1 else ():
            case.add("duplicate-id", Path(), f"the ids {', '.join(case.subject for case in group)}")


def _judge_files(kind: str, level: Level, titles: Mapping[str, str], cases: Sequence[Case]) -> None:
    """Note the files that lack, images or masks by ``titles``: named and not there, or needed."""
    anywhere = {key for case in cases for key in titles if key in case.files}
    needed = {"all": set(titles), "some": set(titles), "alike": anywhere}.get(level, set())
    for case in cases:
        if level == "none":
            case.files = {key: path for key, path in case.files.items() if key not in titles}
            continue
        absent = [key for key in titles if key in needed & case.places.keys() - case.files.keys()]
        for key in [key for key in titles if key in case.files and not lexists(case.files[key])]:
            case.add(kind, case.files.pop(key), f"no {titles[key]}")
        enough = level == "some" and any(key in case.files for key in titles)
        for key in absent:
            severity: Severity = "warning" if enough else "error"
            words = {"fix": case.advice[key]} if key in case.advice else {}
            case.add(kind, case.places[key], f"no {titles[key]}", severity, **words)
