"""ROIs of nuclei that a mask lacks: laws on phantoms, whose true boxes are known."""

from itertools import product

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from tiny_cohort import AXCODES

from mrn_components.images.image import CHALLENGE_IMAGES, SIDES, Image
from mrn_components.phantom.anatomy import draw_anatomy
from mrn_components.phantom.numbers import GRIDS
from mrn_components.regions.placement import ROIPlacer
from mrn_components.regions.population import usual_box
from mrn_components.regions.roi import ROI

GRID = GRIDS["midbrain"]
ROIS = {
    "nm": ROI(image="nm", nuclei=["SN"]),
    "qsm1": ROI(image="qsm", nuclei=["CN", "PUT", "GP", "TH"]),
    "qsm2": ROI(image="qsm", nuclei=["STN", "SN", "RN"]),
    "qsm3": ROI(image="qsm", nuclei=["DN"]),
}
NUCLEI = [(image.name, name) for image in CHALLENGE_IMAGES.values() for name in image.nuclei]


@pytest.fixture(scope="module")
def phantoms():
    """Masks of phantoms: (nm, qsm)."""
    subjects = []
    for index in range(3):
        rng = np.random.default_rng([3, index])
        shift_mm = rng.normal(0, 0.8, 3)
        anatomy = draw_anatomy(rng, nm_loss=dict.fromkeys(SIDES, 0.06), shift_mm=shift_mm)
        masks = {image: np.zeros(GRID.shape, np.uint8) for image in CHALLENGE_IMAGES}
        for (nucleus, side), region in anatomy.nuclei.items():
            masks["qsm"][region.index(GRID)] = CHALLENGE_IMAGES["qsm"].nuclei[nucleus][
                SIDES.index(side)
            ]
        for side, region in anatomy.nm_seen.items():
            masks["nm"][region.index(GRID)] = CHALLENGE_IMAGES["nm"].nuclei["SN"][SIDES.index(side)]
        subjects.append(masks)
    return subjects


def volumes_of(masks, affine=GRID.affine):
    d = {}
    for image, mask in masks.items():
        d[image] = MetaTensor(torch.zeros(1, *mask.shape), affine=affine)
        d[f"mask_{image}"] = MetaTensor(torch.tensor(mask[None].copy()), affine=affine)
    return d


def without(masks, image, *labels):
    mask = masks[image].copy()
    mask[np.isin(mask, labels)] = 0
    return masks | {image: mask}


def place(masks, rois=ROIS):
    return ROIPlacer(rois=rois, missing="fallback")(volumes_of(masks))


def faces_mm(box, affine=GRID.affine):
    """The six faces of a box, in mm."""
    centre, half_size = box.to_mm(affine)
    return np.concatenate([centre - half_size, centre + half_size])


def test_the_population_is_the_phantoms(phantoms):
    found = {nucleus: [] for nucleus in NUCLEI}
    for masks in phantoms:
        rois = {
            f"{image} {name} {label}": ROI(image=image, nuclei=[name], margin_mm=0)
            for image, name in NUCLEI
            for label in CHALLENGE_IMAGES[image].nuclei[name]
        }
        boxes = {}
        for key, roi in rois.items():
            image, name, label = key.split()
            one = masks[image] * (masks[image] == int(label))
            placer = ROIPlacer(rois={key: roi})
            boxes[key] = placer(volumes_of({image: one}))[key].box.to_mm(GRID.affine)
        middle = (boxes["qsm RN 13"].centre + boxes["qsm RN 14"].centre) / 2
        for key, box in boxes.items():
            image, name, label = key.split()
            sign = 1 if int(label) % 2 else -1
            found[image, name].append([*((box.centre - middle) * (sign, 1, 1)), *box.half_size])
    for (image, name), boxes in found.items():
        usual = usual_box(CHALLENGE_IMAGES[image].quantity, name)
        assert np.mean(boxes, axis=0)[:3] == pytest.approx(usual.centre, abs=2.0), name
        assert np.mean(boxes, axis=0)[3:] == pytest.approx(usual.half_size, rel=0.12), name


def test_with_all_nuclei_the_fallback_changes_no_box_and_says_nothing(phantoms):
    for masks in phantoms:
        strict = ROIPlacer(rois=ROIS)(volumes_of(masks))
        for name, placement in place(masks).items():
            assert np.array_equal(placement.box, strict[name].box)
            assert (placement.estimated, placement.flags, placement.fault) == ([], [], None)


@pytest.mark.parametrize(("image", "name"), NUCLEI)
def test_a_lost_nucleus_is_mirrored_to_within_a_few_mm(phantoms, image, name):
    rois = {"roi": ROI(image=image, nuclei=[name], margin_mm=0)}
    for masks, side in product(phantoms, (0, 1)):
        lost, kept = SIDES[side], SIDES[1 - side]
        true = place(masks, rois)["roi"]
        found = place(without(masks, image, CHALLENGE_IMAGES[image].nuclei[name][side]), rois)[
            "roi"
        ]
        assert found.estimated == [f"{lost} {name}: mirrored from the {kept}"]
        assert found.flags == [
            f"the {image.upper()} mask lacks {lost} {name} (mirrored from the {kept})"
        ]
        limit = 5.0 if name in ("CN", "PUT", "DN") else 3.0  # the largest vary most; voxels 2 mm
        assert np.abs(faces_mm(found.box) - faces_mm(true.box)).max() <= limit + 2.0


@pytest.mark.parametrize("name", ROIS)
def test_the_population_box_covers_a_lost_roi(phantoms, name):
    roi = ROIS[name]
    for masks in phantoms:
        found = place(without(masks, roi.image.name, *roi.ids))[name]
        assert {text.split(": ")[1] for text in found.estimated} == {
            "placed where most people have it"
        }
        assert len(found.estimated) == 2 * len(roi.nuclei)
        nuclei = np.isin(masks[roi.image.name], roi.ids)
        box = tuple(slice(max(a, 0), b) for a, b in zip(*found.box, strict=True))
        assert nuclei[box].sum() >= 0.9 * nuclei.sum()


def test_one_nucleus_is_enough_to_place_everything(phantoms):
    for masks in phantoms:
        only = {"nm": masks["nm"] * (masks["nm"] == 1), "qsm": np.zeros_like(masks["qsm"])}
        for name, placement in place(only).items():
            true = place(masks)[name]
            assert np.abs(faces_mm(placement.box) - faces_mm(true.box)).max() < 15.0
            assert placement.fault is None


def test_boxes_do_not_depend_on_how_the_files_are_stored(phantoms):
    masks = without(phantoms[0], "qsm", 10, 15, 16, 11)
    masks["nm"] = np.zeros_like(masks["nm"])
    expected = place(masks)
    image = nibabel.Nifti1Image(masks["qsm"], GRID.affine)
    for axcodes in AXCODES:
        turn = ornt_transform(io_orientation(GRID.affine), axcodes2ornt(axcodes))
        turned = image.as_reoriented(turn)
        d = volumes_of({"qsm": np.asarray(turned.dataobj)}, turned.affine)
        d |= {"nm": volumes_of(masks)["nm"]}  # the other file stays as it is; its mask is absent
        for name, placement in ROIPlacer(rois=ROIS, missing="fallback")(d).items():
            affine = d[ROIS[name].image.name].affine.numpy()
            faces = faces_mm(placement.box, affine)
            assert faces == pytest.approx(faces_mm(expected[name].box)), axcodes
            assert placement.estimated == expected[name].estimated


def test_the_other_mask_places_an_image_whose_mask_is_absent(phantoms):
    for masks in phantoms:
        d = volumes_of(masks)
        del d["mask_nm"]
        found = ROIPlacer(rois=ROIS, missing="fallback")(d)["nm"]
        true = place(masks)["nm"]
        assert np.abs(faces_mm(found.box) - faces_mm(true.box)).max() < 6.0
        assert found.flags == [
            "the NM mask lacks right SN, left SN (placed where most people have it)"
        ]


def test_without_image_or_nuclei_there_is_no_place(phantoms):
    d = volumes_of(phantoms[0])
    del d["nm"]
    found = ROIPlacer(rois=ROIS, missing="fallback")(d)
    assert (found["nm"].box, found["nm"].fault) == (None, "has no NM image")
    assert found["qsm2"].box is not None
    empty = place({image: np.zeros_like(mask) for image, mask in phantoms[0].items()})
    for placement in empty.values():
        assert placement.box is None
        assert placement.fault == "has no place: no nucleus in any mask"
    assert empty["nm"].shape == found["nm"].shape  # the challenge's voxels are the usual ones
    assert empty["nm"].shape == pytest.approx((11, 27, 50), abs=2)


def test_the_population_box_of_a_masked_roi_has_the_images_voxels(phantoms):
    d = volumes_of(
        {image: np.zeros((8, 8, 8), np.uint8) for image in CHALLENGE_IMAGES}, np.diag([2, 1, 1, 1])
    )
    usual = place({image: np.zeros((8, 8, 8), np.uint8) for image in CHALLENGE_IMAGES})["nm"].shape
    found = ROIPlacer(rois=ROIS, missing="fallback")(d)["nm"].shape
    factors = np.array(found) / usual
    assert factors == pytest.approx([2, 2 / 3, 2 / 3], rel=0.1)  # resampled to square pixels


def test_a_stray_part_instead_of_a_nucleus_is_flagged_and_moves_nothing_else(phantoms):
    masks = without(phantoms[0], "qsm", 10, 15)
    expected = place(masks)["qsm3"].box
    masks["qsm"][5, 5, 40] = 10  # left STN
    found = place(masks)
    assert [flag.split(", usual")[0] for flag in found["qsm2"].flags] == [
        "left STN measures 1 x 1 x 2 mm",
        found["qsm2"].flags[1],
    ]
    assert "left STN lies" in found["qsm2"].flags[1]
    assert "mm from where other nuclei put it" in found["qsm2"].flags[1]
    assert np.abs(np.subtract(found["qsm3"].box, expected)).max() <= 1


@pytest.mark.parametrize(("axis", "end"), product(range(3), (0, 1)))
def test_a_nucleus_at_a_face_of_the_image_is_flagged_and_keeps_its_crop(phantoms, axis, end):
    """Cut the field of view through the right red nucleus' outermost layer."""
    masks = phantoms[0]
    box = ROIPlacer(rois={"r": ROI(image="qsm", nuclei=["RN"], margin_mm=0)})(
        volumes_of({"qsm": masks["qsm"] * (masks["qsm"] == 13)})
    )["r"].box
    cut = [slice(None)] * 3
    cut[axis] = slice(box.start[axis], None) if end == 0 else slice(None, box.stop[axis])
    rois = {"r": ROI(image="qsm", nuclei=["RN"])}
    whole = place({"qsm": masks["qsm"] * (masks["qsm"] == 13)}, rois)["r"].box
    masks = {"qsm": masks["qsm"][tuple(cut)]}
    found = place(masks, rois)["r"]
    assert "right RN touches the border of the image and may be cut off" in found.flags
    if axis:  # across x, the other side is lost
        assert ((found.box.stop - found.box.start) >= whole.stop - whole.start)[[1, 2]].all()
    shape = masks["qsm"].shape
    outside = found.box.start[axis] < 0 if end == 0 else found.box.stop[axis] > shape[axis]
    assert outside  # the margin is kept, and padded


def test_a_lost_nucleus_beyond_the_border_is_flagged(phantoms):
    masks = without(phantoms[0], "qsm", 15, 16)  # no dentate nuclei: the volume ends above them
    masks = {image: mask[:, :, 20:] for image, mask in masks.items()}
    d = volumes_of(masks)
    flags = ROIPlacer(rois=ROIS, missing="fallback")(d)["qsm3"].flags
    assert flags[1:] == [
        "right DN is expected beyond the border of the image",
        "left DN is expected beyond the border of the image",
    ]


ODD = Image(file="R2STAR", mask="R2STAR_mask", nuclei={"SN": (1, 2), "LC": (3, 4)})  # no LC known
ODD_ROIS = {
    "qsm2": ROIS["qsm2"],
    "odd": ROI(image=ODD, nuclei=["SN", "LC"]),
    "lc": ROI(image=ODD, nuclei=["LC"]),
}


def odd_volumes(masks, *lost):
    """The phantom's QSM and an R2* image with its SN, and a few voxels of LC beside them."""
    nigra = masks["qsm"]
    mask = np.where(nigra == 11, 1, 0) + np.where(nigra == 12, 2, 0)
    mask[5:8, 5:8, 5:8], mask[20:23, 5:8, 5:8] = 3, 4
    mask[np.isin(mask, lost)] = 0
    return volumes_of({"qsm": nigra, "r2star": mask.astype(np.uint8)})


def test_a_third_image_takes_the_anatomy_that_susceptibility_shows(phantoms):
    d = odd_volumes(phantoms[0], 1)
    found = ROIPlacer(rois=ODD_ROIS, missing="fallback")(d)["odd"]
    assert found.estimated == ["right SN: mirrored from the left"]
    assert found.flags[0] == "the R2STAR mask lacks right SN (mirrored from the left)"
    d = odd_volumes(phantoms[0], 1, 2)
    found = ROIPlacer(rois=ODD_ROIS, missing="fallback")(d)["odd"]
    assert found.estimated == [
        "right SN: placed where most people have it",
        "left SN: placed where most people have it",
    ]


def test_a_nucleus_that_no_table_knows_is_neither_estimated_nor_doubted(phantoms):
    """Its odd place, far from everything, moves and flags nothing."""
    placer = ROIPlacer(rois=ODD_ROIS, missing="fallback")
    whole, half, none = (placer(odd_volumes(phantoms[0], *lost)) for lost in ((), (3,), (3, 4)))
    strict = ROIPlacer(rois=ODD_ROIS)(odd_volumes(phantoms[0]))
    for name in ODD_ROIS:
        assert np.array_equal(whole[name].box, strict[name].box)
        assert (whole[name].estimated, whole[name].flags) == ([], [])
    alone = ROIPlacer(rois={"qsm2": ROIS["qsm2"]}, missing="fallback")(volumes_of(phantoms[0]))
    assert np.array_equal(whole["qsm2"].box, alone["qsm2"].box)
    assert half["lc"].estimated == []
    assert half["lc"].flags == ["the R2STAR mask lacks right LC (not estimated)"]
    assert half["lc"].box.start[0] > whole["lc"].box.start[0]  # around the left one alone
    assert (none["lc"].box, none["lc"].fault) == (
        None,
        "has no place: no LC in the R2STAR mask",
    )
    assert min(none["lc"].shape) > 1
    assert none["odd"].box is not None  # its SN are there


def test_missing_is_one_of_two_words():
    with pytest.raises(ValueError, match=r"missing must be one of \['error', 'fallback'\], got 'x"):
        ROIPlacer(rois=ROIS, missing="x")
