"""``mrn segment``: the masks of every subject, by the segmentation bundle or by an atlas."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch

from mrn_components.app.align import Mode, find_bridges
from mrn_components.app.mask_makers import mask_maker
from mrn_components.app.masking import Masking, note, volumes_of
from mrn_components.app.predict.manifest import hash_files, made_with, write_manifest
from mrn_components.app.records import Record, flags_of, mask_file, subject_folder, sweep
from mrn_components.data import Subject
from mrn_components.data.layouts import WORK, Found, Need, filters_of, find_subjects
from mrn_components.data.ledger import find_trained_on
from mrn_components.data.predictions import PREDICTIONS
from mrn_components.images.finding import Finding
from mrn_components.images.image import CHALLENGE_IMAGES, Image
from mrn_components.networks.precision import choose_device
from mrn_components.regions.plausible import plausible_findings
from mrn_components.regions.reading import Implausible
from mrn_components.regions.reference import take_out_references
from mrn_components.system.errors import FailedSubjectsError, line_of
from mrn_components.system.files import csv_text, lock, write_json, write_text
from mrn_components.system.keys import check_device
from mrn_components.system.logs import bar
from mrn_components.system.workers import in_order

RECORD, TABLE = "segmentation.json", "segmentation.csv"

Case = tuple[Subject, Sequence[Finding]]


def segment(
    input: str | Path,  # noqa: A002  `mrn segment INPUT OUTPUT` reads as users write it
    output: str | Path,
    *,
    segmentation: str = "bundles/segmentation",
    atlas: str | Path | None = None,
    nm_filter: str | None = None,
    qsm_filter: str | None = None,
    nm_series: str | None = None,
    qsm_series: str | None = None,
    align: Mode = "auto",
    implausible: Implausible = "error",
    device: str | None = None,
    workers: int = 1,
    trust_bundle: bool = False,
) -> Path:
    """Make the masks of every subject, by the segmentation bundle or an atlas (research use only).

    ``output`` gets ``subjects/ID/{NM,QSM}_mask.nii.gz`` on the grids of the images, with
    ``segmentation.json`` beside them, ``segmentation.csv``, a row a subject, and ``manifest.json``.
    `mrn predict INPUT OTHER --masks OUTPUT` takes the masks as given, and `mrn evaluate_masks
    OUTPUT INPUT` compares them with drawn ones; masks beside the images are not looked at here.

    Args:
        input: folder of subjects in the challenge's layout, one subject's folder, a JSON datalist,
            a BIDS directory or DICOM studies.
        output: folder of the results.
        segmentation: folder of the bundle that makes the masks.
        atlas: folder of an atlas that makes them instead: templates (QSM, T1, or both), labels, and
            a table of nuclei (docs/atlas.md); takes the extra [atlas].
        nm_filter: glob of the NM images' names in BIDS, e.g. "*acq-NM*"; with a slash, of paths.
        qsm_filter: the same of QSM, e.g. "derivatives/qsmxt*/*_Chimap*".
        nm_series: the NM series of DICOM studies, by number or glob of the description.
        qsm_series: the same of QSM.
        align: by an atlas NM has the nuclei of QSM; auto moves them where NM shows the head
            elsewhere than QSM, always does so for every subject, off for none.
        implausible: flag goes on with a subject whose images show under the masks what no brain
            has, such as another sign; error is the subject's.
        device: where networks compute, e.g. cuda:0; None for a GPU if there is one.
        workers: processes; on a GPU one.
        trust_bundle: run the bundle in spite of what ``mrn inspect`` finds in it.

    Returns:
        ``output``.

    Raises:
        FileNotFoundError: if there are no subjects, or the atlas lacks a file.
        ValueError: for a faulty datalist or atlas, an ``output`` that holds the images or
            predictions, or if no mask can be made.
        UntrustedBundleError: if the bundle could run code of its own, or was changed.
        FailedSubjectsError: at the end, if subjects failed; names them and the reasons.
    """
    output, images = Path(output), CHALLENGE_IMAGES
    check_device({"device": device})
    if workers < 1:
        raise ValueError(f"workers must be >= 1, got {workers}.")
    if implausible not in (options := get_args(Implausible)):
        raise ValueError(f"implausible must be one of {sorted(options)}, got {implausible!r}.")
    found = find_subjects(
        input,
        images,
        need=Need(images="some", masks="none", labels="none"),
        filters=filters_of(images, nm_filter, qsm_filter),
        series=filters_of(images, nm_series, qsm_series),
        work=output / WORK,
    )
    found.refuse_output(output)
    if (output / PREDICTIONS).exists():
        raise ValueError(f"{output} holds predictions; name another folder as OUTPUT.")
    masked = sorted(images.values(), key=lambda image: -len(image.nuclei))
    computes = choose_device(name=device or "auto")
    masking = Masking(
        maker=mask_maker(atlas, segmentation, masked, computes, trust_bundle),
        images=images,
        masked=masked,
        bridges=find_bridges(input, found) if atlas is not None else {},
        align=align,
        root=found.root,
        output_dir=output,
    )
    masking.check(found.subjects)
    steps = _Steps(masking=masking, implausible=implausible)
    with lock(output):
        sweep(output)
        alone = workers == 1 or computes.type != "cpu"  # a GPU is not forked
        records = steps.run(found, 0 if alone else workers)
        return _finish(output, records, masking, computes)


@dataclass(frozen=True, kw_only=True)
class _Steps:
    """What turns the images of a subject into its masks and its record."""

    masking: Masking
    implausible: Implausible

    def run(self, found: Found, workers: int) -> list[Record]:
        """Segment the subjects, and write the records of those that files can be named after."""
        cases = [(subject, found.of(subject["subject"])) for subject in found.subjects]
        records = []
        done = in_order(self, cases, workers=workers, lost=self.lost)
        for record in bar(done, "Subjects", len(cases)):
            records.append(record)
            if record["named"]:
                folder = subject_folder(self.masking.output_dir, record["subject"])
                write_json(folder / RECORD, record)
        return records

    def __call__(self, case: Case) -> Record:
        """Segment a subject; what goes wrong stands in the record."""
        record, masking = self._begin(case), self.masking
        subject = dict(case[0])
        with masking.guard(record, subject, {"status": "failed"}):
            note(record, case[1])
            for image in masking.masked:
                mask_file(masking.output_dir, record["subject"], image).unlink(missing_ok=True)
            masking.read(record, subject, {})
            masking.make_masks(record, subject)
            ledgers = masking.maker.ledgers([i for i in masking.masked if i.name in subject])
            record["trained_on"] = int(bool(find_trained_on([subject], ledgers)))
            volumes, _ = take_out_references(volumes_of(subject), masking.images)
            findings = list(plausible_findings(volumes, masking.images))
            if self.implausible == "flag":
                findings = [replace(found, severity="warning") for found in findings]
            note(record, findings)
            record["status"] = "ok"
        return record

    def lost(self, case: Case) -> Record:
        """Return what is known of a subject whose files end the process that reads them."""
        error = "the process that read its files died, perhaps for lack of memory."
        return self._begin(case) | {"error": error}

    def _begin(self, case: Case) -> Record:
        return {
            "subject": case[0]["subject"],
            "status": "failed",
            "named": all(finding.id != "subject-id" for finding in case[1]),
            "mask_source": {},
            "trained_on": None,
            "flags": [],
            "error": None,
            "alignment": {},
            "timings_s": {},
            "inputs": {},
            "research_use_only": True,
        }


def _finish(
    output: Path, records: Sequence[Record], masking: Masking, device: torch.device
) -> Path:
    """Write the table and the manifest, and say how it ended."""
    rows = [_row(record, masking.masked) for record in records]
    write_text(output / TABLE, csv_text(rows))
    run = {
        "segmentation": hash_files(masking.maker.files, masking.maker.folder),
        "settings": {
            "segmentation": masking.maker.folder.resolve().name,
            "align": masking.align,
        },
    }
    write_manifest(output, made_with(run, device, [masking.maker.package]), records)
    failed = [record for record in records if record["status"] == "failed"]
    flagged = sum(bool(flags_of(record)) for record in records)
    ended = f"{len(records) - len(failed)} segmented, {len(failed)} failed"
    print(f"{ended}; {flagged} have flags (research use only)", flush=True)
    if failed:
        lines = "\n".join(line_of(record["subject"], record["error"]) for record in failed)
        raise FailedSubjectsError(
            f"{len(failed)} of {len(records)} subjects failed; the others are in {output}.\n{lines}"
        )
    return output


def _row(record: Record, images: Sequence[Image]) -> dict[str, Any]:
    return {
        "subject": record["subject"],
        "status": record["status"],
        **{f"mask_{i.name}": record["mask_source"].get(i.name) for i in images},
        "trained_on": record["trained_on"],
        "seconds": record["timings_s"].get("total"),
        "flags": "; ".join(record["flags"]),
        "error": record["error"],
    }
