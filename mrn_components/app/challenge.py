"""``mrn challenge``: the PDCADxFoundation challenge's cases, answered in the organisers' files."""

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from mrn_components.app.mask_makers import save_mask
from mrn_components.app.predict import predict
from mrn_components.app.records import mask_file, read_record
from mrn_components.data import Subject
from mrn_components.data.layouts import Need, filters_of, find_subjects
from mrn_components.data.nuclei import drawn_by
from mrn_components.data.target import Target, read_target
from mrn_components.images.finding import FaultyFileError
from mrn_components.images.image import CHALLENGE_IMAGES, Image
from mrn_components.images.volume import Volume, read_volume
from mrn_components.regions.drawn import read_file
from mrn_components.system.errors import FailedSubjectsError, line_of
from mrn_components.system.files import write_text

Format = Literal["docker", "email", "baseline"]

_UNKNOWN = 0  # the answer to a case that cannot be predicted, as of the organisers' baseline


class _Answer(NamedTuple):
    """What is handed in for a case."""

    subject: Subject
    label: int
    problem: str | None  # why it is no prediction, if it is none


def challenge(
    inputs: str | Path,
    outputs: str | Path,
    *,
    masks: str | Path | None = None,
    nuclei: str | Path | None = None,
    format: Format = "docker",  # noqa: A002  the organisers speak of submission formats
    bundle: str = "bundles/mrn",
    segmentation: str = "bundles/segmentation",
    nm_filter: str | None = None,
    qsm_filter: str | None = None,
    nm_series: str | None = None,
    qsm_series: str | None = None,
    **overrides: Any,
) -> Path:
    """Answer the challenge's cases in the organisers' files, every one (research use only).

    Every folder of ``inputs`` is a case, and every case gets an answer, as the challenge asks:
    one that cannot be predicted is answered 0, with masks of background where its images can be
    read. The same inputs give the same bytes.

    - "docker": ``ID/{NM,QSM}_pred.nii.gz`` and ``ID/PD_pred.txt``, which holds 0 or 1.
    - "email", to be zipped: ``outputs/ID/{NM,QSM}_pred.nii.gz`` and ``label_predict.csv`` with the
      header ``patient_id,prediction``.
    - "baseline": ``ID/{NM,QSM}_mask.nii.gz`` and ``pred.csv``, rows ``ID,0|1`` without header and
      without a newline at the end.

    Args:
        inputs: folder of ``ID/{NM,QSM}.nii.gz``, or what else ``mrn predict`` takes; only read.
        outputs: folder of the answers, and of nothing else.
        masks: folder of the masks, where they do not lie beside the images.
        nuclei: csv of the ids in given masks, ``image,nucleus,right,left``, if they are not usual.
        format: docker (PD_pred.txt), email (label_predict.csv) or baseline (pred.csv).
        bundle: folder of a bundle with weights, or of a training run.
        segmentation: folder of the bundle that makes the masks.
        nm_filter: glob of the NM images' names in BIDS, e.g. "*acq-NM*"; with a slash, of paths.
        qsm_filter: the same of QSM, e.g. "derivatives/qsmxt*/*_Chimap*".
        nm_series: the NM series of DICOM studies, by number or glob of the description.
        qsm_series: the same of QSM.
        overrides: config keys and their values, e.g. --ckpt_path FILE, --tta True.

    Returns:
        The folder of the answers.

    Raises:
        ValueError: for another format, or a bundle that predicts something else.
        FailedSubjectsError: at the end, if cases were answered without a prediction.
    """
    if format not in get_args(Format):
        raise ValueError(f"format must be one of {sorted(get_args(Format))}, got {format!r}.")
    need = Need(images="some", masks="given", labels="none", every_folder=True)
    found = find_subjects(
        inputs,
        need=need,
        masks=masks,
        filters=filters_of(CHALLENGE_IMAGES, nm_filter, qsm_filter),
        series=filters_of(CHALLENGE_IMAGES, nm_series, qsm_series),
    )
    found.refuse_output(outputs)
    outputs = Path(outputs)
    images, _ = drawn_by(nuclei, CHALLENGE_IMAGES, {})
    given: dict[str, Any] = {"bundle": bundle, "segmentation": segmentation}
    given |= {"masks": masks, "nuclei": nuclei, **overrides}
    given |= {"nm_filter": nm_filter, "qsm_filter": qsm_filter}
    given |= {"nm_series": nm_series, "qsm_series": qsm_series}
    with tempfile.TemporaryDirectory() as scratch:
        with suppress(FailedSubjectsError):  # their records say why, and they are told below
            predict(inputs, scratch, abstain=False, **given)
        target = read_target(Path(scratch))
        if not target.is_binary:
            raise ValueError(
                f"the challenge asks for one of two classes, and {bundle} predicts "
                f"{', '.join(target.columns)}; name a bundle of two classes."
            )
        answers = {
            subject["subject"]: _answer(
                Path(scratch), subject, target, found.problems.get(subject["subject"])
            )
            for subject in found.subjects
        }
        _write(format, outputs, Path(scratch), answers, images)
    problems = [line_of(name, a.problem) for name, a in answers.items() if a.problem is not None]
    if problems:
        raise FailedSubjectsError(
            f"{len(problems)} of {len(answers)} cases are answered {_UNKNOWN} because they cannot "
            "be predicted:\n" + "\n".join(problems)
        )
    return outputs


def _answer(scratch: Path, subject: Subject, target: Target, problem: str | None) -> _Answer:
    """Answer a case by its record, unless there was a problem with it before."""
    record = read_record(scratch, subject["subject"], target) if problem is None else None
    if record is None:
        return _Answer(subject, _UNKNOWN, problem or "it was not predicted.")
    if record["class"] is None:
        return _Answer(subject, _UNKNOWN, record["error"])
    return _Answer(subject, record["class"], None)


def _write(
    kind: Format,
    outputs: Path,
    scratch: Path,
    answers: Mapping[str, _Answer],
    images: Mapping[str, Image],
) -> None:
    """Write the organisers' files."""
    folder = outputs / "outputs" if kind == "email" else outputs
    for name, answer in answers.items():
        suffix = "mask" if kind == "baseline" else "pred"
        _write_masks(answer.subject, folder / name, scratch, suffix, images)
        if kind == "docker":
            write_text(folder / name / "PD_pred.txt", str(answer.label))
    rows = [f"{name},{answer.label}" for name, answer in answers.items()]
    if kind == "email":
        write_text(outputs / "label_predict.csv", "\n".join(["patient_id,prediction", *rows, ""]))
    if kind == "baseline":
        write_text(outputs / "pred.csv", "\n".join(rows))


def _write_masks(
    subject: Subject, output: Path, scratch: Path, suffix: str, images: Mapping[str, Image]
) -> None:
    """Write the masks of a case: those that were made or given; background without any."""
    for image in images.values():
        path = output / f"{image.file}_{suffix}.nii.gz"
        made = mask_file(scratch, subject["subject"], image)
        mask = _read(subject, image.mask_name, images)
        mask = read_volume(made) if made.is_file() else mask
        like = _read(subject, image.name, images) or mask
        if like is None or image.name not in subject:
            path.unlink(missing_ok=True)  # of an earlier run
        else:
            voxels = np.zeros(like.shape) if mask is None else np.rint(mask.voxels)
            save_mask(path, voxels.astype(np.uint8), like)


def _read(subject: Subject, key: str, images: Mapping[str, Image]) -> Volume | None:
    """Read a file of a case; None if it is not there or damaged."""
    try:
        return read_file(key, subject[key], images)[0] if key in subject else None
    except FaultyFileError:
        return None
