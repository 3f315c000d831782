"""The size of the crops that weights were trained with, at which alone they predict."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from monai.utils import ensure_tuple

from mrn_components.data.weight_records import CROP_SIZES, read_record
from mrn_components.regions.roi import ROI


def crop_sizes(rois: Mapping[str, ROI]) -> dict[str, int]:
    """Return the pixels of the longer in-plane side of each ROI's crops."""
    return {name: roi.size for name, roi in rois.items()}


def check_crop_sizes(
    *, rois: Mapping[str, ROI], ckpt_paths: str | Path | Sequence[str | Path]
) -> None:
    """Refuse crops of another size than weights were trained with.

    A network takes crops of any size, and at another the same weights give other probabilities.

    Args:
        rois: what is cropped.
        ckpt_paths: one weight file or several. One that says nothing of crops passes.

    Raises:
        ValueError: naming the sizes.
    """
    found = crop_sizes(rois)
    for path in ensure_tuple(ckpt_paths):
        is_there = Path(path).is_file()  # if not, what loads it says so
        trained = (read_record(path, CROP_SIZES) if is_there else None) or {}
        other = [name for name in found if trained.get(name, found[name]) != found[name]]
        if other:
            listed = ", ".join(f"{name} {found[name]} for {trained[name]}" for name in other)
            raise ValueError(
                f"{path} was trained on crops of another size, in pixels of the longer side: "
                f"{listed}. The same weights would give other probabilities; leave --image_size "
                "and --rois#...#size out, or train with this size."
            )
