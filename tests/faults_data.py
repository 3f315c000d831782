"""Builders of faulty data: each changes one thing in a sound tiny data set.

A builder takes the folder of a copied data set and changes it. Rows of ``faults.yaml`` name them.
``SUBJ_000`` is the subject that they change.
"""

import gzip
import json
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
from tiny_cohort import AFFINE, SHAPE, make_mask, write_nifti

from mrn_components.images.image import CHALLENGE_IMAGES

NAMES = ("NM", "QSM", "NM_mask", "QSM_mask")
FIRST = "SUBJ_000"
IRON = (
    CHALLENGE_IMAGES["qsm"].nuclei["GP"]
    + CHALLENGE_IMAGES["qsm"].nuclei["SN"]
    + CHALLENGE_IMAGES["qsm"].nuclei["RN"]
)


def make_sound_subject(folder: Path, seed: int) -> None:
    """Write a subject without any fault: NM a magnitude, QSM in ppb about 0."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for image in ("nm", "qsm"):
        mask = make_mask(image)
        if image == "qsm":  # the dentate nucleus in three slices
            dentate = np.isin(mask[..., 2], CHALLENGE_IMAGES["qsm"].nuclei["DN"])
            mask[..., 3][dentate] = mask[..., 2][dentate]
            volume = rng.normal(0, 30, SHAPE) + 100 * np.isin(mask, IRON)
        else:
            volume = 1000 + rng.normal(0, 50, SHAPE) + 300 * (mask > 0)
        name = image.upper()
        write_nifti(folder / f"{name}.nii.gz", np.round(volume).astype(np.int16))
        write_nifti(folder / f"{name}_mask.nii.gz", mask)


def make_sound_cohort(root: Path, count: int = 1) -> None:
    """Write subjects of alternating labels and their csv."""
    for number in range(count):
        make_sound_subject(root / f"SUBJ_{number:03d}", number)
    rows = [f"SUBJ_{number:03d},{number % 2}\n" for number in range(count)]
    (root / "train_cases.csv").write_text("".join(rows))


def path(root: Path, name: str = "QSM") -> Path:
    return root / FIRST / f"{name}.nii.gz"


def read(root: Path, name: str = "QSM") -> np.ndarray:
    return np.asarray(nibabel.load(path(root, name)).dataobj)


def write(root: Path, array: np.ndarray, name: str = "QSM", affine: np.ndarray = AFFINE) -> None:
    write_nifti(path(root, name), array, affine)


def sound(root: Path) -> None:
    """Change nothing."""


# ---- files -------------------------------------------------------------------------------------


def cut_gzip(root: Path) -> None:
    path(root).write_bytes(path(root).read_bytes()[:-2000])


def cut_plain(root: Path) -> None:
    (root / "list.json").write_text(json.dumps(_entries(root, nm="NM.nii")))
    content = gzip.decompress(path(root, "NM").read_bytes())
    (root / FIRST / "NM.nii").write_bytes(content[:-100])


def cut_content(root: Path) -> None:
    """A whole gzip stream around half a file."""
    path(root).write_bytes(gzip.compress(gzip.decompress(path(root).read_bytes())[:5000]))


def flip_a_bit(root: Path, position: int | None = None) -> None:
    content = bytearray(path(root).read_bytes())
    place = 8 * (len(content) // 2) if position is None else position
    content[place // 8] ^= 1 << place % 8
    path(root).write_bytes(content)


def plain_files(root: Path) -> None:
    """All files of the subject as .nii: allowed."""
    for name in NAMES:
        file = path(root, name)
        file.with_name(f"{name}.nii").write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()


def _other_format(root: Path, name: str, content: bytes) -> None:
    (root / FIRST / name).write_bytes(content)
    (root / "list.json").write_text(json.dumps(_entries(root, nm=name)))


def freesurfer(root: Path) -> None:
    _other_format(root, "NM.mgz", gzip.compress(b"\0\0\0\1\0\0\0\x18" + bytes(500)))


def nrrd(root: Path) -> None:
    _other_format(root, "NM.nrrd", b"NRRD0004\ntype: short\n" + bytes(500))


def dicom(root: Path) -> None:
    _other_format(root, "IM0001", bytes(128) + b"DICM" + bytes(500))


def dicom_folder(root: Path) -> None:
    dicom(root)
    (root / FIRST / "series").mkdir()
    (root / FIRST / "IM0001").rename(root / FIRST / "series" / "IM0001")
    (root / "list.json").write_text(json.dumps(_entries(root, nm="series")))


def empty_file(root: Path) -> None:
    path(root).write_bytes(b"")


def text_file(root: Path) -> None:
    path(root).write_bytes(gzip.compress(b"not found\n"))


def plain_named_gzip(root: Path) -> None:
    path(root).write_bytes(gzip.decompress(path(root).read_bytes()))


def huge_header(root: Path) -> None:
    content = bytearray(gzip.decompress(path(root).read_bytes()))
    content[42:48] = np.array([20000] * 3, "<i2").tobytes()
    path(root).write_bytes(gzip.compress(bytes(content)))


def header_beyond_the_file(root: Path) -> None:
    content = bytearray(gzip.decompress(path(root).read_bytes()))
    content[42:48] = np.array([500] * 3, "<i2").tobytes()
    path(root).write_bytes(gzip.compress(bytes(content)))


def gzip_bomb(root: Path) -> None:
    content = gzip.decompress(path(root).read_bytes())
    path(root).write_bytes(gzip.compress(content + bytes(8 << 20)))


def missing_files(root: Path) -> None:
    path(root, "NM").unlink()
    (root / "SUBJ_001" / "QSM.nii.gz").unlink()


def links_in_a_circle(root: Path) -> None:
    path(root).unlink()
    path(root).symlink_to(path(root))


# ---- arrays ------------------------------------------------------------------------------------


def four_dimensions(root: Path) -> None:
    write(root, np.stack([read(root)] * 3, axis=-1))


def last_axis_of_one(root: Path) -> None:
    write(root, read(root)[..., None])


def last_axes_of_one(root: Path) -> None:
    write(root, read(root)[..., None, None])


def unknown_type(root: Path) -> None:
    content = bytearray(gzip.decompress(path(root).read_bytes()))
    content[70:72] = np.array(37, "<i2").tobytes()  # nibabel writes no such type
    path(root).write_bytes(gzip.compress(bytes(content)))


def voxels_from_the_first_byte(root: Path) -> None:
    """nibabel would read the header as voxels."""
    content = bytearray(gzip.decompress(path(root).read_bytes()))
    content[108:112] = bytes(4)  # vox_offset
    path(root).write_bytes(gzip.compress(bytes(content)))


def two_dimensions(root: Path) -> None:
    write(root, read(root)[..., 0])


def colours(root: Path) -> None:
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    write(root, np.zeros(SHAPE, kind))


def complex_numbers(root: Path) -> None:
    write(root, read(root).astype(np.complex64))


def nan_in_a_nucleus(root: Path) -> None:
    volume = read(root).astype(np.float32)
    volume[np.isin(read(root, "QSM_mask"), CHALLENGE_IMAGES["qsm"].nuclei["RN"])] = np.nan
    write(root, volume)


def infinite_outside(root: Path) -> None:
    volume = read(root, "NM").astype(np.float32)
    volume[0, 0, -1] = np.inf
    write(root, volume, "NM")


def zeros(root: Path) -> None:
    write(root, np.zeros(SHAPE, np.float32))


def constant_roi(root: Path) -> None:
    volume = read(root, "NM")
    volume[..., :-1] = 1000  # one slice with an image, away from the substantia nigra
    write(root, volume, "NM")


def parts_per_million(root: Path) -> None:
    write(root, (read(root) / 1000).astype(np.float32))


def sign_flipped(root: Path) -> None:
    write(root, -read(root))


def swapped_images(root: Path) -> None:
    nm, qsm = path(root, "NM").read_bytes(), path(root).read_bytes()
    path(root, "NM").write_bytes(qsm)
    path(root).write_bytes(nm)


def large_magnitude_as_qsm(root: Path) -> None:
    write(root, read(root, "NM") * 20)


def one_image_twice(root: Path) -> None:
    shutil.copy(path(root, "NM"), path(root))


def times_nine(root: Path) -> None:
    write(root, read(root) * 9)


def hertz_at_3_tesla(root: Path) -> None:
    write(root, (read(root) * 0.1277).astype(np.float32))


def hertz_at_7_tesla(root: Path) -> None:
    write(root, (read(root) * 0.298).astype(np.float32))


def divided_by_two_pi(root: Path) -> None:
    write(root, (read(root) / (2 * np.pi)).astype(np.float32))


def scale_factor_lost(root: Path) -> None:
    """Steps of 0.1 ppb without the factor that says so."""
    write(root, np.rint(read(root) * 10).astype(np.int16))


def scale_factor_twice(root: Path) -> None:
    write(root, (read(root) * 0.1).astype(np.float32))


def another_reference(root: Path) -> None:
    write(root, read(root) + 100)


def another_reference_below(root: Path) -> None:
    write(root, read(root) - 90)


def another_reference_and_sign(root: Path) -> None:
    """The iron above 0, and still below the thalamus."""
    write(root, 120 - read(root))


def far_reference(root: Path) -> None:
    write(root, read(root) + 400)


def cut_at_8_bits(root: Path) -> None:
    write(root, np.clip(read(root), -128, 127).astype(np.int8))


def begun_anew_after_8_bits(root: Path) -> None:
    write(root, read(root).astype(np.int8))


def begun_anew_after_16_bits(root: Path) -> None:
    """Steps of 0.004 ppb, of which int16 holds 131 to either side."""
    steps = np.rint(read(root) / 0.004).astype(np.int16)
    image = nibabel.Nifti1Image(steps, AFFINE)
    image.header.set_slope_inter(0.004, 0)
    path(root).write_bytes(gzip.compress(image.to_bytes()))


def shown_to_255(root: Path) -> None:
    """NM exported for the screen: what is bright is cut."""
    write(root, np.clip(read(root, "NM") / 5.0, 0, 255).astype(np.uint8), "NM")


def crus_drawn(root: Path) -> None:
    """The mask of NM on the dark tissue before the substantia nigra, on both sides."""
    nm, mask = read(root, "NM"), np.roll(read(root, "NM_mask"), 4, axis=1)
    nm[mask > 0] = 900
    write(root, nm, "NM")
    write(root, mask, "NM_mask")


def structure_drawn_outside(root: Path) -> None:
    """The middle of both sides stays where it is, each side moves."""
    mask = read(root, "NM_mask")
    apart = np.zeros_like(mask)
    apart[:12], apart[12:] = np.roll(mask[:12], -6, axis=0), np.roll(mask[12:], 6, axis=0)
    write(root, np.roll(apart, 7, axis=1), "NM_mask")


def a_vessel_drawn(root: Path) -> None:
    nm = read(root, "NM")
    nm[read(root, "NM_mask") > 0] = 2500
    write(root, nm, "NM")


# ---- geometry ----------------------------------------------------------------------------------


def stored_anew(root: Path) -> None:
    """Axes PIR in all files of the subject: allowed."""
    for name in NAMES:
        image = nibabel.load(path(root, name))
        start = nibabel.io_orientation(image.affine)
        turn = nibabel.orientations.ornt_transform(start, nibabel.orientations.axcodes2ornt("PIR"))
        turned = image.as_reoriented(turn)
        write(root, np.asarray(turned.dataobj), name, turned.affine)


def _with_header(root: Path, name: str, **fields: object) -> None:
    image = nibabel.load(path(root, name))
    image = nibabel.Nifti1Image(np.asarray(image.dataobj), None, image.header)
    for field, value in fields.items():
        image.header[field] = value
    path(root, name).write_bytes(gzip.compress(image.to_bytes()))


def forms_disagree(root: Path) -> None:
    image = nibabel.load(path(root))
    moved = AFFINE.copy()
    moved[0, 3] = 3
    image.set_qform(moved, 1)
    path(root).write_bytes(gzip.compress(image.to_bytes()))


def invalid_sform_code(root: Path) -> None:
    """The sform 3 mm away, with a code that NIfTI does not have: the qform counts, for all."""
    moved = AFFINE.copy()
    moved[0, 3] = 3
    image = nibabel.load(path(root))
    image.set_sform(moved, 1)
    image.set_qform(AFFINE, 1)
    content = bytearray(image.to_bytes())
    content[254:256] = (77).to_bytes(2, "little")  # sform_code
    path(root).write_bytes(gzip.compress(bytes(content)))


def no_forms(root: Path) -> None:
    for name in NAMES:
        _with_header(root, name, qform_code=0, sform_code=0)


def no_forms_unlabelled(root: Path) -> None:
    no_forms(root)
    (root / "train_cases.csv").unlink()


def singular_sform(root: Path) -> None:
    _with_header(root, "QSM", srow_x=[0, 0, 0, 0], sform_code=1)


def oblique(root: Path, degrees: float = 40.0) -> None:
    angle = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    for name in NAMES:
        write(root, read(root, name), name, turn @ AFFINE)


def metres(root: Path) -> None:
    for name in NAMES:
        write(root, read(root, name), name, np.diag([*np.diag(AFFINE)[:3] / 1000, 1]))


def mask_of_another_shape(root: Path) -> None:
    write(root, read(root, "NM_mask")[:-1], "NM_mask")


def mask_moved(root: Path) -> None:
    moved = AFFINE.copy()
    moved[1, 3] = 0.5
    write(root, read(root, "NM_mask"), "NM_mask", moved)


def mask_of_another_spacing(root: Path) -> None:
    write(root, read(root, "NM_mask"), "NM_mask", np.diag([-0.7, 0.7, 2.0, 1.0]))


def nm_on_another_grid(root: Path) -> None:
    moved = AFFINE.copy()
    moved[2, 3] = 1
    for name in ("NM", "NM_mask"):
        write(root, read(root, name), name, moved)


def content_moved(root: Path) -> None:
    """The substantia nigra of NM 6.7 mm from that of QSM, under the same affine."""
    for name in ("NM", "NM_mask"):
        write(root, np.roll(read(root, name), 10, axis=1), name)


def slab(root: Path, degrees: float = 20.0, away_mm: float = 0.0) -> None:
    """NM as a slab of 0.5 x 0.5 x 1.5 mm on the substantia nigra, tilted as it is acquired."""
    mask, image = read(root, "NM_mask"), read(root, "NM")
    centre = nibabel.affines.apply_affine(AFFINE, np.argwhere(mask).mean(axis=0))
    angle = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine, shape = turn @ np.diag([-0.5, 0.5, 1.5, 1]), (28, 24, 10)
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    way = np.linalg.inv(AFFINE) @ affine
    at = nibabel.affines.apply_affine(way, np.stack(np.indices(shape), axis=-1))
    at = np.clip(np.rint(at), 0, np.array(SHAPE) - 1).astype(int)
    affine[1, 3] += away_mm
    for name, array in (("NM", image), ("NM_mask", mask)):
        write(root, array[tuple(np.moveaxis(at, -1, 0))], name, affine)


def slab_away(root: Path) -> None:
    slab(root, away_mm=12)


def slab_elsewhere(root: Path) -> None:
    slab(root, away_mm=300)


def slab_at_the_edge(root: Path) -> None:
    """Two millimetres of overlap."""
    slab(root, degrees=0, away_mm=-10)


def slab_upright(root: Path) -> None:
    slab(root, degrees=40)


def head_turned(root: Path) -> None:
    """All files in a frame that is turned by 30 degrees about the upright axis."""
    oblique(root, 30)


# ---- masks -------------------------------------------------------------------------------------


def _relabel(root: Path, changes: dict[int, float], name: str = "QSM_mask") -> None:
    mask = read(root, name)
    changed = mask.astype(np.float32)
    for label, value in changes.items():
        changed[mask == label] = value
    whole = not np.mod(changed, 1).any()
    write(root, changed.astype(np.uint8) if whole else changed, name)


def one_nucleus_missing(root: Path) -> None:
    _relabel(root, {CHALLENGE_IMAGES["qsm"].nuclei["STN"][1]: 0})


def one_side_missing(root: Path) -> None:
    _relabel(root, {pair[1]: 0 for pair in CHALLENGE_IMAGES["qsm"].nuclei.values()})


def empty_mask(root: Path) -> None:
    _relabel(root, {1: 0, 2: 0}, "NM_mask")


def stray_voxel(root: Path) -> None:
    mask = read(root, "QSM_mask")
    mask[1, 1, 10] = CHALLENGE_IMAGES["qsm"].nuclei["RN"][0]
    write(root, mask, "QSM_mask")


def nucleus_at_the_border(root: Path) -> None:
    for name in ("NM", "NM_mask"):
        write(root, read(root, name)[:, 8:], name)


def fractional_labels(root: Path) -> None:
    _relabel(root, {11: 10.9999})


def label_255(root: Path) -> None:
    _relabel(root, {1: 255}, "NM_mask")


def label_17(root: Path) -> None:
    _relabel(root, {16: 17})


def sides_swapped(root: Path) -> None:
    _relabel(root, {label: label + 1 if label % 2 else label - 1 for label in range(1, 17)})


def slices_reversed(root: Path) -> None:
    for name in ("QSM", "QSM_mask"):
        write(root, read(root, name)[..., ::-1], name)


def two_slices(root: Path) -> None:
    mask = read(root, "NM_mask")
    mask[..., :4] = 0
    write(root, mask, "NM_mask")


def three_slices(root: Path) -> None:
    for name in ("NM", "NM_mask"):
        write(root, read(root, name)[..., 3:6], name)


def many_slices(root: Path) -> None:
    fine = AFFINE @ np.diag([1, 1, 1 / 18, 1])
    for name in ("QSM", "QSM_mask"):
        write(root, np.repeat(read(root, name), 18, axis=2), name, fine)


def _scaled(root: Path, name: str, slope: float) -> None:
    """A mask as nibabel saves its float values under a header of 8 bits."""
    stored = np.rint(read(root, name) / slope).astype(np.uint8)
    image = nibabel.Nifti1Image(stored, AFFINE)
    image.header.set_slope_inter(slope, 0)
    path(root, name).write_bytes(gzip.compress(image.to_bytes()))


def scaled_mask(root: Path) -> None:
    _scaled(root, "NM_mask", 2 / 255)
    _scaled(root, "QSM_mask", 16 / 255)


def scaled_mask_between_ids(root: Path) -> None:
    """A scale factor that does not explain 0.5."""
    mask = read(root, "NM_mask").astype(np.float32)
    mask[mask == 2] = 1.5
    image = nibabel.Nifti1Image(np.rint(mask / 0.01).astype(np.uint8), AFFINE)
    image.header.set_slope_inter(0.01, 0)
    path(root, "NM_mask").write_bytes(gzip.compress(image.to_bytes()))


def one_label_for_both_sides(root: Path) -> None:
    _relabel(root, {2: 1}, "NM_mask")


def one_label_with_a_stray_voxel(root: Path) -> None:
    one_label_for_both_sides(root)
    mask = read(root, "NM_mask")
    mask[6, 2, 5] = 1
    write(root, mask, "NM_mask")


def one_label_of_255(root: Path) -> None:
    _relabel(root, {1: 255, 2: 255}, "NM_mask")


def one_label_that_is_the_left(root: Path) -> None:
    _relabel(root, {1: 2}, "NM_mask")


def one_label_of_a_nucleus_in_qsm(root: Path) -> None:
    _relabel(root, {12: 11}, "QSM_mask")


def one_side_drawn(root: Path) -> None:
    """A mask of one side is no mask of both."""
    _relabel(root, {2: 0}, "NM_mask")


def crus_and_nigra(root: Path) -> None:
    """A table of its own: 1 is the crus of both sides, 2 the SN of both sides."""
    mask = read(root, "NM_mask")
    two = np.where(mask > 0, 2, 0).astype(np.uint8)
    two[np.roll(mask, 4, axis=1) > 0] = 1
    write(root, two, "NM_mask")


def crus_and_nigra_with_a_table(root: Path) -> None:
    crus_and_nigra(root)
    (root / "nuclei.csv").write_text("image,nucleus,right,left\nnm,SN,2,2\n")


def _other_table(root: Path, ids: dict[str, tuple[int, int]]) -> None:
    mask = read(root, "QSM_mask")
    other = np.zeros(mask.shape, np.int16)
    for nucleus, pair in ids.items():
        for ours, theirs in zip(CHALLENGE_IMAGES["qsm"].nuclei[nucleus], pair, strict=True):
            other[mask == ours] = theirs
    write(root, other, "QSM_mask")


def freesurfers_table(root: Path) -> None:
    _other_table(root, {"CN": (50, 11), "PUT": (51, 12), "GP": (52, 13), "TH": (49, 10)})


def spms_table(root: Path) -> None:
    _other_table(root, {"CN": (36, 37), "PUT": (57, 58), "GP": (55, 56), "TH": (59, 60)})


def large_ids_with_a_table(root: Path) -> None:
    """Ids above 255, mostly one for both sides, and a structure that the table leaves out.

    The red nuclei touch in the tiny cohort, and are too narrow to be told for two.
    """
    ids = {name: (1000 + n, 1000 + n) for n, name in enumerate(CHALLENGE_IMAGES["qsm"].nuclei)}
    ids["RN"] = (2000, 2001)
    _other_table(root, ids)
    mask = read(root, "QSM_mask")
    mask[0, 0, 0] = 77
    write(root, mask, "QSM_mask")
    rows = [f"qsm,{name},{right},{left}\n" for name, (right, left) in ids.items()]
    (root / "nuclei.csv").write_text("image,nucleus,right,left\n" + "".join(rows))


def sides_in_another_order_with_a_table(root: Path) -> None:
    sides_swapped(root)
    rows = [
        f"qsm,{n},{left},{right}\n" for n, (right, left) in CHALLENGE_IMAGES["qsm"].nuclei.items()
    ]
    (root / "nuclei.csv").write_text("image,nucleus,right,left\n" + "".join(rows))


def table_of_another_nucleus(root: Path) -> None:
    (root / "nuclei.csv").write_text("image,nucleus,right,left\nqsm,LC,1,2\n")


def table_with_a_word(root: Path) -> None:
    (root / "nuclei.csv").write_text("image,nucleus,right,left\nqsm,SN,eleven,12\n")


def probabilities(root: Path) -> None:
    rng = np.random.default_rng(3)
    mask = read(root, "NM_mask")
    write(root, np.where(mask > 0, rng.uniform(0, 1, SHAPE), 0).astype(np.float32), "NM_mask")


# ---- places ------------------------------------------------------------------------------------


def odd_paths(root: Path) -> None:
    """A datalist that names files in a folder with spaces, other letters and a long name."""
    folder = root / "Käthe Żółć 日本" / ("x" * 120)
    folder.parent.mkdir()
    shutil.move(root / FIRST, folder)
    (root / "list.json").write_text(json.dumps(_entries(root, folder=folder)))


def read_only(root: Path) -> None:
    for folder, _, files in os.walk(root):
        for name in files:
            (Path(folder) / name).chmod(0o444)
    for folder in sorted((root, *(p for p in root.rglob("*") if p.is_dir())), reverse=True):
        folder.chmod(0o555)


def _entries(root: Path, folder: Path | None = None, **files: str) -> list[dict[str, object]]:
    """A datalist of the first subject."""
    names = {"nm": "NM.nii.gz", "qsm": "QSM.nii.gz"} | files
    where = os.path.relpath(folder or root / FIRST, root)
    return [{"subject": FIRST, **{key: f"{where}/{name}" for key, name in names.items()}}]


# ---- tables ------------------------------------------------------------------------------------


def _table(root: Path, *rows: str, encoding: str = "utf-8") -> None:
    (root / "train_cases.csv").write_bytes("".join(f"{row}\n" for row in rows).encode(encoding))


def id_twice(root: Path) -> None:
    _table(root, "SUBJ_000,0", "SUBJ_001,1", "subj_000,0")


def two_faulty_lines(root: Path) -> None:
    _table(root, "SUBJ_000,ill", "SUBJ_001,2")


def windows_1252(root: Path) -> None:
    _table(root, "Käthe,0", "SUBJ_000,0", "SUBJ_001,1", encoding="cp1252")


def byte_order_mark_and_empty_row(root: Path) -> None:
    _table(root, "\ufeffSUBJ_000 , 0", "", "SUBJ_001,1")


def semicolons(root: Path) -> None:
    _table(root, "SUBJ_000;0", "SUBJ_001;1")


def header_row(root: Path) -> None:
    _table(root, "case_id,label", "SUBJ_000,0", "SUBJ_001,1")


def line_without_a_folder(root: Path) -> None:
    _table(root, "SUBJ_000,0", "SUBJ_001,1", "SUBJ_777,1")


def folder_without_a_line(root: Path) -> None:
    _table(root, "SUBJ_001,1")


def fraction_as_a_label(root: Path) -> None:
    _table(root, "SUBJ_000,0.0", "SUBJ_001,nan")


def unsafe_folder(root: Path) -> None:
    (root / FIRST).rename(root / "a subject")


def folders_that_differ_in_case(root: Path) -> None:
    make_sound_subject(root / "subj_000", 7)


def plain_nii(root: Path) -> None:
    for file in list(root.rglob("*.nii.gz")):
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()


def two_files_for_one(root: Path) -> None:
    (root / FIRST / "NM.nii").write_bytes(gzip.decompress(path(root, "NM").read_bytes()))


def one_file_under_two_ids(root: Path) -> None:
    shutil.copy(path(root, "NM"), root / "SUBJ_001" / "NM.nii.gz")


def one_image_turned_under_two_ids(root: Path) -> None:
    """The same voxels with other axes, another type, another header, compressed anew."""
    image = nibabel.load(path(root))
    turned = image.as_reoriented([[1, 1], [0, -1], [2, -1]])
    write_nifti(
        root / "SUBJ_001" / "QSM.nii.gz",
        np.asarray(turned.dataobj).astype(np.float32),
        turned.affine,
    )


def _atlas(root: Path) -> Path:
    """An atlas beside the data set, of its first subject."""
    folder = root.parent / "atlas"
    folder.mkdir()
    shutil.copyfile(path(root), folder / "QSM.nii.gz")
    shutil.copyfile(path(root, "QSM_mask"), folder / "labels.nii.gz")
    ids = CHALLENGE_IMAGES["qsm"].ids.items()
    rows = [f"{number},{nucleus},{side}\n" for number, (nucleus, side) in ids]
    (folder / "nuclei.csv").write_text("".join(["id,nucleus,side\n", *rows]))
    return folder


def atlas_without_a_table(root: Path) -> None:
    (_atlas(root) / "nuclei.csv").unlink()


def atlas_without_a_label(root: Path) -> None:
    with (_atlas(root) / "nuclei.csv").open("a") as table:
        table.write("21,GP,both\n")


def atlas_with_an_id_twice(root: Path) -> None:
    with (_atlas(root) / "nuclei.csv").open("a") as table:
        table.write("5,PUT,right\n")


def atlas_of_another_quantity(root: Path) -> None:
    shutil.copyfile(path(root, "NM"), _atlas(root) / "QSM.nii.gz")


def atlas_that_was_cut(root: Path) -> None:
    labels = _atlas(root) / "labels.nii.gz"
    labels.write_bytes(labels.read_bytes()[:200])


def atlas_on_two_grids(root: Path) -> None:
    write_nifti(_atlas(root) / "labels.nii.gz", make_mask("qsm")[:-1])


def two_scans_of_a_person(root: Path) -> None:
    one_file_under_two_ids(root)
    _table(root, "SUBJ_000,0,anna", "SUBJ_001,1,anna")


def one_class(root: Path) -> None:
    _table(root, *(f"{folder.name},1" for folder in sorted(root.glob("SUBJ_*"))))


def few_of_a_class(root: Path) -> None:
    _table(root, *(f"SUBJ_{n:03d},{int(n > 2)}" for n in range(len(list(root.glob("SUBJ_*"))))))


def scanner_tells_the_label(root: Path) -> None:
    """Slices of 2.1 mm in one class."""
    for number, folder in enumerate(sorted(root.glob("SUBJ_*"))):
        if number % 2:
            for name in NAMES:
                file = folder / f"{name}.nii.gz"
                array = np.asarray(nibabel.load(file).dataobj)
                write_nifti(file, array, np.diag([-0.6667, 0.6667, 2.1, 1.0]))


def site_tells_the_label(root: Path) -> None:
    """A datalist with columns for site and age, one of which follows the label."""
    entries = [
        {"subject": folder.name, "label": number % 2, "site": "AB"[number % 2], "age": 60 + number}
        | {key: f"{folder.name}/{key.upper()}.nii.gz" for key in ("nm", "qsm")}
        for number, folder in enumerate(sorted(root.glob("SUBJ_*")))
    ]
    (root / "list.json").write_text(json.dumps(entries))


def sorted_ids_tell_the_label(root: Path) -> None:
    folders = sorted(root.glob("SUBJ_*"))
    _table(root, *(f"{f.name},{int(n >= len(folders) / 2)}" for n, f in enumerate(folders)))


def nothing(root: Path) -> None:
    shutil.rmtree(root)


def no_subject(root: Path) -> None:
    for folder in root.glob("SUBJ_*"):
        shutil.rmtree(folder)


def broken_datalist(root: Path) -> None:
    (root / "list.json").write_text("[{")


def faulty_entries(root: Path) -> None:
    (entry,) = _entries(root)
    entries = [{"subject": "A"}, entry, entry | {"label": 2}]
    (root / "list.json").write_text(json.dumps(entries))
