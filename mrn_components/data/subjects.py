"""Subjects to train on or to run a bundle on: sound, or refused with every fault (4.1.1)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mrn_components.checks import check_headers as find_header_faults
from mrn_components.data.groups import give_groups
from mrn_components.data.layouts import WORK, Need, filters_of, find_subjects
from mrn_components.data.tables import Subject
from mrn_components.data.target import Target
from mrn_components.images.image import CHALLENGE_IMAGES, FACTOR, Image, factor_of
from mrn_components.regions.roi import ROI, images_of, volume_keys


def load_subjects(
    dataset_dir: str | Path,
    labels: str | Path | None = None,
    require_labels: bool = True,
    require_masks: bool = True,
    check_headers: bool = True,
    *,
    rois: Mapping[str, ROI] | None = None,
    images: Sequence[Image] | None = None,
    target: Target | None = None,
    masks: str | Path | None = None,
    nm_filter: str | None = None,
    qsm_filter: str | None = None,
    nm_series: str | None = None,
    qsm_series: str | None = None,
    work_dir: str | Path | None = None,
    group_by: str | None = None,
) -> list[Subject]:
    """List the subjects of a data set, sorted by subject, each with all that is needed of it.

    Args:
        dataset_dir: folder of subjects, one subject's folder, a JSON datalist or a BIDS directory,
            as ``find_subjects`` reads them.
        labels: csv of rows ``case_id,label[,person]`` or with a header, or JSON datalist, as typed
            or relative to ``dataset_dir``; None takes a datalist's own, or the only csv there.
        require_labels: read the label; False leaves it out.
        require_masks: expect the masks of the nuclei; False leaves them out.
        check_headers: refuse files whose header, the first kilobyte, says that they are no usable
            volume (``mrn check`` looks at all the rest).
        rois: the regions, whose images and masks are needed and no others.
        images: the images that are needed, instead of ``rois``; without both, the challenge's two.
        target: what a label may be; None for 0 healthy and 1 Parkinson's disease.
        masks: folder of the masks, where they do not lie beside the images.
        nm_filter: glob of the NM images' names in BIDS, e.g. "*acq-NM*"; one with a slash is for
            paths in the data set.
        qsm_filter: the same of QSM, e.g. "derivatives/qsmxt*/*_Chimap*".
        nm_series: the NM series of DICOM studies, by number or glob of the description.
        qsm_series: the same of QSM.
        work_dir: folder that keeps what is converted from DICOM, in a folder of its own; None for
            one that goes with this process.
        group_by: column, such as site, of the datalist, of a csv of labels with a header, or of
            ``participants.tsv`` in BIDS.

    Returns:
        Dicts with the keys ``subject, nm, qsm, mask_nm, mask_qsm, label`` and, where the table or
        the layout has it, ``person`` (several scans of one person share it); ``factor_qsm`` where a
        file has another unit than its image; ``group`` by ``group_by``.

    Raises:
        FileNotFoundError: if there is no such data set.
        ValueError: for faults of tables, entries, ids and headers, and missing files; lists all. Or
            for subjects without a value in the column ``group_by``.
    """
    need = Need(
        masks="all" if require_masks else "none", labels="all" if require_labels else "none"
    )
    needed = needed_images(rois) if images is None else {image.name: image for image in images}
    found = find_subjects(
        dataset_dir,
        needed,
        need=need,
        labels=labels,
        target=target,
        masks=masks,
        filters=filters_of(needed, nm_filter, qsm_filter),
        series=filters_of(needed, nm_series, qsm_series),
        work=None if work_dir is None else Path(work_dir) / WORK,
    )
    further = find_header_faults(found.subjects, needed) if check_headers else ()
    return give_groups(found.require_all(further), found.covariates, group_by)


def add_masks(
    subjects: Sequence[Subject],
    masks: str | Path | None,
    *,
    dataset_dir: str | Path,
    rois: Mapping[str, ROI],
    nm_filter: str | None = None,
    qsm_filter: str | None = None,
) -> list[Subject]:
    """Return subjects, and once more those that have other masks, such as a network's.

    A network that is trained on readers' masks alone meets others in prediction.

    Args:
        subjects: of ``dataset_dir``, with masks.
        masks: folder of the other masks, as ``load_subjects`` takes it; None adds nothing.
        dataset_dir: the data set.
        rois: the regions, whose masks are needed.
        nm_filter: glob of the NM images in BIDS, as ``load_subjects`` takes it.
        qsm_filter: the same of QSM.

    Raises:
        FileNotFoundError: if ``masks`` has those of no subject.
        ValueError: for faults of the other masks' headers; lists all.
    """
    if masks is None:
        return list(subjects)
    images, need = needed_images(rois), Need(masks="given", labels="none")
    filters = filters_of(images, nm_filter, qsm_filter)
    found = find_subjects(dataset_dir, images, need=need, masks=masks, filters=filters)
    others = {
        other["subject"]: {key: path for key, path in other.items() if key.startswith("mask_")}
        for other in found.require_all(find_header_faults(found.subjects, images))
    }
    again = [s | others[s["subject"]] for s in subjects if others.get(s["subject"])]
    return [*subjects, *again]


def select_volume(*, subjects: Sequence[Subject], name: str) -> list[Subject]:
    """Return the files of one image of subjects, as ``image``, for networks of one image."""
    return [
        {"subject": s["subject"], "image": s[name], f"{FACTOR}image": factor_of(s, name)}
        for s in subjects
    ]


def needed_images(rois: Mapping[str, ROI] | None) -> dict[str, Image]:
    """Return the images that regions are taken from, without masks that no region needs.

    Without regions they are the challenge's two images.
    """
    if rois is None:
        return dict(CHALLENGE_IMAGES)
    keys = volume_keys(rois)
    return {
        name: image
        if image.mask_name in keys
        else replace(image, mask=None, nuclei={}, drawn_as={})
        for name, image in images_of(rois).items()
    }
