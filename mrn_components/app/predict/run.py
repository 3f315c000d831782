"""``mrn predict``, and what else predicts a cohort."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import ignite.distributed as idist
import torch
from monai.bundle import ConfigWorkflow

from mrn_components.app.align import Mode, find_bridges
from mrn_components.app.predict.cohort import OWN_KEYS, Cohort
from mrn_components.app.predict.pipeline import Format, Options
from mrn_components.app.predict.workflow import inference_workflow, target_of
from mrn_components.app.records import sweep
from mrn_components.data.layouts import WORK, Found, Need, filters_of, find_subjects
from mrn_components.data.predictions import PREDICTIONS
from mrn_components.data.subjects import needed_images
from mrn_components.system.files import lock


def predict(
    input: str | Path,  # noqa: A002  `mrn predict INPUT OUTPUT` reads as users write it
    output: str | Path,
    *,
    bundle: str = "bundles/mrn",
    segmentation: str = "bundles/segmentation",
    atlas: str | Path | None = None,
    nm_filter: str | None = None,
    qsm_filter: str | None = None,
    nm_series: str | None = None,
    qsm_series: str | None = None,
    masks: str | Path | None = None,
    nuclei: str | Path | None = None,
    abstain: bool = True,
    align: Mode = "auto",
    set_level: float | None = None,
    resume: bool = False,
    report: bool = False,
    occlusion: bool = True,
    scan_date: bool = False,
    dicom: bool = False,
    format: Format = "tables",  # noqa: A002  what users ask for
    trust_bundle: bool = False,
    **overrides: Any,
) -> Path:
    """Write P(PD), masks and flags of every subject to OUTPUT (research use only).

    Masks are used where they are given, else the segmentation bundle or an atlas makes them.
    ``output`` gets ``predictions.csv``, ``biomarkers.csv``, ``manifest.json`` and ``subjects/ID``
    with ``prediction.json`` and the masks that were made; each file appears whole or not at all.
    Under ``torchrun`` every process takes its share of the subjects, and the first one writes the
    tables.

    Args:
        input: a folder of subjects; one subject's folder of {NM,QSM[,NM_mask,QSM_mask]}, .nii.gz or
            .nii; a JSON datalist; or a BIDS directory.
        output: folder of the results.
        bundle: folder of a bundle with weights, or of a training run.
        segmentation: folder of the bundle that makes the masks of subjects without.
        atlas: folder of an atlas that makes them instead: templates (QSM, T1, or both), labels, and
            a table of nuclei (docs/atlas.md); takes the extra [atlas].
        nm_filter: glob of the NM images' names in BIDS, e.g. "*acq-NM*"; with a slash, of paths.
        qsm_filter: the same of QSM, e.g. "derivatives/qsmxt*/*_Chimap*".
        nm_series: the NM series of DICOM studies, by number or glob of the description.
        qsm_series: the same of QSM.
        masks: folder of the masks, where they do not lie beside the images: ID/NM_mask.nii.gz,
            ID/NM_pred.nii.gz, an output of mrn predict, or BIDS.
        nuclei: csv of the ids in given masks, ``image,nucleus,right,left``, if they are not usual.
        abstain: give no probability where the NM ROI or more than one ROI is missing.
        align: auto looks where NM shows the head elsewhere than QSM and says where it belongs,
            through T1.nii.gz if there is one; always looks at every subject; off at none.
        set_level: level of the sets of classes, or of the intervals of a score, 0 to 1, by a bundle
            that ``mrn crossval`` made of its folds; None is 0.9 where it had subjects enough.
        resume: keep the subjects whose files, weights and settings are those of an earlier call.
        report: write ``index.html`` and a page a subject too, with Shapley values and maps.
        occlusion: make occlusion maps for the pages, which asks the network some 25 times more.
        scan_date: also show on pages the date of the scans, where JSON files of BIDS tell it.
        dicom: write masks (SEG) and biomarkers (SR) of DICOM studies as objects of these studies.
        format: bids makes ``output`` a data set of BIDS derivatives too: tables that describe
            themselves, and the masks.
        trust_bundle: run the bundles in spite of what ``mrn inspect`` finds in them.
        overrides: config keys and their values, e.g. --ckpt_path FILE, --precision fp32.

    Returns:
        The path of ``predictions.csv``.

    Raises:
        FileNotFoundError: if a path is missing or ``bundle`` is no bundle.
        ValueError: for an override that the config does not know, a faulty datalist or table of
            nuclei, a ``set_level`` that the bundle has too few subjects for, an ``output`` that
            holds the images, or if every subject lacks masks and they cannot be made.
        UntrustedBundleError: if a bundle could run code of its own, or was changed.
        RuntimeError: if another process uses ``output``.
        FailedSubjectsError: at the end, if subjects failed; names them and the reasons.
    """
    if format not in get_args(Format):
        raise ValueError(f"format must be one of {sorted(get_args(Format))}, got {format!r}.")
    options = Options(
        bundle=bundle,
        segmentation=segmentation,
        atlas=atlas,
        nm_filter=nm_filter,
        qsm_filter=qsm_filter,
        nm_series=nm_series,
        qsm_series=qsm_series,
        masks=masks,
        abstain=abstain,
        align=align,
        set_level=set_level,
        resume=resume,
        report=report,
        occlusion=occlusion,
        scan_date=scan_date,
        format=format,
        dicom=dicom,
        trust_bundle=trust_bundle,
        nuclei=nuclei,
        overrides=overrides,
    )
    return predict_cohort(input, output, options)


def predict_cohort(input_dir: str | Path, output_dir: str | Path, options: Options) -> Path:
    """Predict subjects, as ``predict`` and ``contributions`` do; return ``predictions.csv``.

    Raises:
        FailedSubjectsError: at the end, if subjects failed; other errors come before the first one.
    """
    if own := sorted(set(OWN_KEYS) & set(options.overrides)):
        raise ValueError(
            f"--{own[0]}: `mrn predict INPUT OUTPUT` has no such option; `mrn evaluate` scores "
            "predictions by labels."
        )
    with _joined_processes() as (rank, world):
        workflow = inference_workflow(
            str(input_dir),
            str(output_dir),
            bundle=options.bundle,
            nuclei=options.nuclei,
            trust_bundle=options.trust_bundle,
            **_with_own_device(options.overrides),
        )
        found = _find(workflow, input_dir, output_dir, options)
        found.refuse_output(output_dir)
        unasked = options.align == "off" and options.atlas is None
        bridges = {} if unasked else find_bridges(input_dir, found)
        run = Cohort(workflow, found, Path(output_dir), options, bridges)
        if rank == 0:
            print(f"{len(found.subjects)} subjects: {found.layout}", flush=True)
        with lock(Path(output_dir)) if rank == 0 else nullcontext():
            if rank == 0:
                sweep(Path(output_dir))
            idist.barrier()  # until the first process has the folder
            run.predict(found.subjects[rank::world])
            idist.barrier()  # until every process has written its records
            return run.finish() if rank == 0 else Path(output_dir) / PREDICTIONS


def _find(
    workflow: ConfigWorkflow, input_dir: str | Path, output_dir: str | Path, options: Options
) -> Found:
    """Find the subjects, with the images that the bundle's regions are taken from."""
    parser = workflow.parser
    images = needed_images(parser.get_parsed_content("rois"))
    labelled = options.require_labels or options.labels is not None
    return find_subjects(
        input_dir,
        images,
        need=Need(images="some", masks="given", labels="all" if labelled else "none"),
        labels=options.labels,
        target=target_of(parser),
        masks=options.masks,
        filters=filters_of(images, options.nm_filter, options.qsm_filter),
        series=filters_of(images, options.nm_series, options.qsm_series),
        work=Path(output_dir) / WORK,
    )


@contextmanager
def _joined_processes() -> Iterator[tuple[int, int]]:
    """Join the processes that ``torchrun`` started: yield this one's rank, and their number."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield 0, 1
        return
    # The first waits for the slowest; when one dies, torchrun ends the others.
    idist.initialize("gloo", timeout=timedelta(days=7))
    try:
        yield idist.get_rank(), world
    finally:
        idist.finalize()


def _with_own_device(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Give each of several processes a GPU, where there are any."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and torch.cuda.is_available():
        number = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
        return {"device": f"cuda:{number}", **overrides}
    return dict(overrides)
