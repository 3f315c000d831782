"""From subjects to nnU-Net's raw data set."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.data import MetaTensor
from nibabel.orientations import aff2axcodes, axcodes2ornt, io_orientation, ornt_transform

from mrn_components.data.folds import select_fold
from mrn_components.data.tables import Subject
from mrn_components.images.image import Image
from mrn_components.regions.reading import ReadVolumesd
from mrn_components.regions.roi import ROI
from mrn_components.system.files import replacing, write_json
from mrn_components.system.logs import bar

DATASET = "Dataset001_nuclei"
_AXES = ("L", "A", "S")  # of the challenge's files; plan.ORIENTATION read backwards


def write_dataset(
    subjects: Sequence[Subject], folds: Mapping[str, Any], image: Image, raw_dir: Path
) -> None:
    """Write the data set that nnU-Net trains on.

    Files of the challenge's orientation are linked, others are written anew in it, since nnU-Net
    sees the axes of a file and not the directions in its header. A quantitative image, which has a
    window, gets nnU-Net's scheme for that (one range and mean for all subjects); others, such as
    NM, are normalised each by itself. nnU-Net trains on the same ``folds``, and needs ids of the
    image's nuclei that count from 1 without a gap.

    Raises:
        ValueError: for ids with a gap, and for a volume or a mask that ``ReadVolumesd`` refuses.
    """
    folder = raw_dir / DATASET
    if sorted(image.ids) != list(range(1, 1 + len(image.ids))):
        raise ValueError(
            f"image {image.name!r} has the ids {sorted(image.ids)}, expected 1 to "
            f"{len(image.ids)}, which nnU-Net needs; renumber its masks."
        )
    as_stored = replace(image, reference="none")  # as the network meets it: before masks are known
    check = ReadVolumesd(rois={"all": ROI(image=as_stored, nuclei=list(image.nuclei))})
    for subject in bar(subjects, f"Data set of {image.name}"):
        name = subject["subject"]
        try:
            read = check(subject)  # type: ignore[arg-type]  # its names are text
        except ValueError as error:
            raise ValueError(f"subject {name}: {error}") from error
        _place(read[image.name], folder / "imagesTr" / f"{name}_0000.nii.gz")
        _place(read[image.mask_name], folder / "labelsTr" / f"{name}.nii.gz", np.uint8)
    ids = {f"{nucleus}_{side}": number for number, (nucleus, side) in image.ids.items()}
    description = {
        # A name of nnU-Net's schemes; "CT" is its scheme for quantitative images.
        "channel_names": {"0": "CT" if image.window else image.title},
        "labels": {"background": 0} | ids,
        "numTraining": len(subjects),
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
    }
    splits = [
        {
            "train": _names(select_fold(subjects, folds, fold, "training")),
            "val": _names(select_fold(subjects, folds, fold, "validation")),
        }
        for fold in range(len(folds["folds"]))
    ]
    write_json(folder / "splits_final.json", splits, indent=1)
    write_json(folder / "dataset.json", description, indent=1)


def _names(subjects: Sequence[Subject]) -> list[str]:
    return [subject["subject"] for subject in subjects]


def _place(read: MetaTensor, target: Path, dtype: Any = None) -> None:
    """Link the file of a volume, or write it anew where nnU-Net would read it otherwise."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    source = Path(read.meta["filename_or_obj"])
    volume: Any = nibabel.load(source)
    fits = volume.shape == volume.shape[:3] and aff2axcodes(volume.affine) == _AXES
    voxels = read.numpy()[0]
    if not np.array_equal(voxels, np.asarray(volume.dataobj, np.float32).reshape(voxels.shape)):
        fits, volume = False, nibabel.Nifti1Image(voxels, volume.affine)  # another unit, other ids
    if fits and source.name.endswith(".nii.gz") and dtype in (None, volume.get_data_dtype()):
        try:
            target.symlink_to(source.resolve())
        except OSError:  # a file system without links
            shutil.copyfile(source, target)
        return
    turned = volume.as_reoriented(
        ornt_transform(io_orientation(volume.affine), axcodes2ornt(_AXES))
    )
    voxels = np.asanyarray(turned.dataobj)
    if dtype is not None:
        voxels = np.rint(voxels).astype(dtype)
    with replacing(target) as temporary:
        nibabel.save(nibabel.Nifti1Image(voxels, turned.affine), temporary)
