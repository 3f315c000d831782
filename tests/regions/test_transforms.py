import logging
from dataclasses import replace
from itertools import product

import nibabel
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import (
    BorderPad,
    Orientationd,
    ScaleIntensityRange,
    ScaleIntensityRangePercentiles,
)
from tiny_cohort import AFFINE, SHAPE, make_mask, make_subject, write_nifti

from mrn_components.data import load_subjects
from mrn_components.data.dataset import ROIDataset, collate_subjects
from mrn_components.images.image import CHALLENGE_IMAGES, Image
from mrn_components.regions.reading import LoadVolumed, ReadVolumesd
from mrn_components.regions.roi import ROI
from mrn_components.regions.scaling import ScaleImagesd
from mrn_components.regions.transforms import (
    MergeSidesd,
    ROICropd,
    ROIMaskChannelsd,
)

KEYS = ["nm", "qsm", "mask_nm", "mask_qsm"]


def read(folder, *transforms):
    """Read the only subject of a data set as the bundles do."""
    steps = [
        LoadVolumed(KEYS, ensure_channel_first=True),
        Orientationd(KEYS, axcodes="LPS", labels=None),
        *transforms,
    ]
    (subject,) = load_subjects(folder, require_labels=False, check_headers=False)
    return ROIDataset(data=[subject], transform=steps)[0]


def make_volumes(mask, image="nm", affine=AFFINE):
    """A subject in memory with one image, whose voxel values tell the voxels apart."""
    values = np.arange(1.0, mask.size + 1).reshape(mask.shape)
    return {
        "subject": "S0",
        "label": 1,
        image: MetaTensor(torch.tensor(values[None]), affine=affine),
        f"mask_{image}": MetaTensor(torch.tensor(mask[None]).float(), affine=affine),
    }


def assert_same_place(crop, volume, fill):
    """Every voxel of the crop holds what the volume has at the same mm, or the fill outside it."""
    crop_to_volume = np.linalg.inv(volume.affine.numpy()) @ crop.affine.numpy()
    for index in np.ndindex(*crop.shape[1:]):
        place = np.rint(crop_to_volume @ [*index, 1])[:3].astype(int)
        inside = (place >= 0).all() and (place < volume.shape[1:]).all()
        assert crop[(0, *index)] == (volume[(0, *place)] if inside else fill)


@pytest.fixture
def subject_dir(tmp_path):
    make_subject(tmp_path / "SUBJ_000", label=1, seed=0)
    return tmp_path


PLAIN = replace(CHALLENGE_IMAGES["nm"], relative_window=None)  # its crops show the voxels
NIGRA = ROI(image=PLAIN, nuclei=["SN"], margin_mm=2.0)  # 3 voxels in plane, 1 slice


def test_a_crop_is_the_nuclei_and_their_margin():
    mask = np.zeros(SHAPE)
    mask[5:8, 10:14, 4:6] = 1
    mask[15:17, 11:13, 5:7] = 2
    d = ROICropd(rois={"nm": NIGRA})(make_volumes(mask))
    assert set(d) == {"subject", "label", "nm", "mask_nm"}
    assert tuple(d["nm"].shape) == (1, 3 + 2, 4 + 6, 12 + 6)  # D, H, W
    assert d["mask_nm"].shape == d["nm"].shape
    assert int((d["mask_nm"] == 1).sum()) == 3 * 4 * 2
    assert int((d["mask_nm"] == 2).sum()) == 2 * 2 * 2


@pytest.mark.parametrize("corner", product((0, 1), repeat=3))
def test_a_crop_keeps_its_place_in_mm_and_is_padded_at_every_border(corner):
    mask = np.zeros(SHAPE)
    box = tuple(
        slice(0, 3) if at == 0 else slice(n - 3, n) for at, n in zip(corner, SHAPE, strict=True)
    )
    mask[box] = 1
    volumes = make_volumes(mask)
    d = ROICropd(rois={"nm": NIGRA})(volumes)
    assert tuple(d["nm"].shape) == (1, 3 + 2, 3 + 6, 3 + 6)
    assert_same_place(d["nm"], volumes["nm"], fill=1.0)  # the image's minimum
    assert_same_place(d["mask_nm"], volumes["mask_nm"], fill=0.0)


def test_an_oblique_affine_gives_its_spacing_and_place():
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    mask = np.zeros(SHAPE)
    mask[10:13, 10:13, 5:7] = 1
    volumes = make_volumes(mask, affine=turn @ AFFINE)
    d = ROICropd(rois={"nm": NIGRA})(volumes)
    assert tuple(d["nm"].shape) == (1, 2 + 2, 3 + 6, 3 + 6)
    assert_same_place(d["nm"], volumes["nm"], fill=1.0)


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "PIR", "ASL", "SRA"])
def test_crops_do_not_depend_on_how_the_file_is_stored(subject_dir, rois, axcodes):
    expected = read(subject_dir, ROICropd(rois=rois))
    for path in (subject_dir / "SUBJ_000").iterdir():
        image = nibabel.load(path)
        turn = nibabel.orientations.ornt_transform(
            nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(axcodes)
        )
        turned = image.as_reoriented(turn)
        write_nifti(path, np.asarray(turned.dataobj), turned.affine)
    found = read(subject_dir, ROICropd(rois=rois))
    for name in rois:
        for key in (name, f"mask_{name}"):
            assert torch.equal(found[key].as_tensor(), expected[key].as_tensor())
            assert torch.allclose(found[key].affine, expected[key].affine, atol=1e-5)


def test_axes_are_slices_from_below_rows_from_the_front_columns_from_the_right(subject_dir, rois):
    d = read(subject_dir, ROICropd(rois=rois))

    def centre(name, label):  # (d, h, w)
        return (d[f"mask_{name}"][0] == label).nonzero().double().mean(0)

    for name, roi in rois.items():
        for nucleus in roi.nuclei:
            right, left = roi.image.nuclei[nucleus]
            assert centre(name, right)[2] < centre(name, left)[2]
    caudate, thalamus = centre("qsm1", 1), centre("qsm1", 7)
    assert caudate[1] < thalamus[1]  # the caudate lies in front
    assert centre("qsm2", 9)[0] > centre("qsm2", 11)[0]  # STN lies above SN


def test_only_the_largest_component_of_a_label_makes_the_box():
    mask = np.zeros(SHAPE)
    mask[5:8, 10:14, 4:6] = 1
    expected = ROICropd(rois={"nm": NIGRA})(make_volumes(mask))
    mask[20, 20, 10] = 1  # a stray voxel far away
    found = ROICropd(rois={"nm": NIGRA})(make_volumes(mask))
    assert torch.equal(found["nm"].as_tensor(), expected["nm"].as_tensor())


def test_voxels_that_touch_at_a_corner_are_one_component():
    mask = np.zeros(SHAPE)
    mask[5, 10, 4] = mask[6, 11, 5] = 1
    d = ROICropd(rois={"nm": NIGRA})(make_volumes(mask))
    assert int(d["mask_nm"].sum()) == 2


def test_a_crop_owns_its_memory():
    """Saving a view into the cache would save the whole volume."""
    mask = np.zeros(SHAPE)
    mask[10:12, 10:12, 5] = 1
    d = ROICropd(rois={"nm": NIGRA})(make_volumes(mask))
    assert d["nm"].untyped_storage().nbytes() == d["nm"].numel() * d["nm"].element_size()


def test_a_mask_without_some_nuclei_is_a_warning_and_without_all_an_error(caplog):
    roi = ROI(image="qsm", nuclei=["SN", "RN"])
    mask = np.zeros(SHAPE)
    mask[10:12, 10:12, 5] = 11  # right SN
    with caplog.at_level(logging.WARNING):
        ROICropd(rois={"midbrain": roi})(make_volumes(mask, "qsm"))
    assert "S0: midbrain: the QSM mask lacks left SN, right RN, left RN" in caplog.text
    with pytest.raises(ValueError, match=r"'dn' .*no DN in the QSM mask .*rois#dn#_disabled_ True"):
        ROICropd(rois={"dn": ROI(image="qsm", nuclei=["DN"])})(make_volumes(mask, "qsm"))


def test_sides_merge_in_the_order_of_the_rois_nuclei(subject_dir):
    rois = {"a": ROI(image="qsm", nuclei=["RN", "SN"]), "b": ROI(image="qsm", nuclei=["SN", "RN"])}
    ids = read(subject_dir, ROICropd(rois=rois))["mask_a"].as_tensor()
    d = read(subject_dir, ROICropd(rois=rois), MergeSidesd(rois=rois))
    a, b = d["mask_a"].as_tensor(), d["mask_b"].as_tensor()
    assert torch.equal(a == 1, (ids == 13) | (ids == 14))
    assert torch.equal(a == 2, (ids == 11) | (ids == 12))
    assert torch.equal(b == 1, a == 2)
    assert torch.equal(b == 2, a == 1)
    assert {9, 10} & set(ids.unique().tolist())  # the STN was in the crop and became background


def test_mirrored_masks_merge_to_the_same_classes(rois):
    mask = make_mask("qsm")
    roi = {"qsm2": rois["qsm2"]}
    swap = [0, *(i + 1 if i % 2 else i - 1 for i in range(1, 17))]
    merged = [
        MergeSidesd(rois=roi)(ROICropd(rois=roi)(make_volumes(ids, "qsm")))["mask_qsm2"]
        for ids in (mask, np.array(swap)[mask])
    ]
    assert torch.equal(merged[0].as_tensor(), merged[1].as_tensor())


CONFIG = """
rois:
  nm: {_target_: mrn_components.ROI, image: nm, nuclei: [SN]}
  qsm1: {_target_: mrn_components.ROI, image: qsm, nuclei: [CN, PUT, GP, TH]}
  qsm3: {_target_: mrn_components.ROI, image: qsm, nuclei: [DN]}
images: "$list(@rois)"
masks: "$['mask_' + roi for roi in @rois]"
crop:
  - {_target_: mrn_components.ROICropd, rois: "@rois"}
  - {_target_: mrn_components.MergeSidesd, rois: "@rois"}
  - {_target_: EnsureTyped, keys: "$@images + @masks", track_meta: false}
augment:
  _target_: mrn_components.augment_rois
  rois: "@rois"
  mirror: {prob: 0.5}
  rotation: {prob: 0.5, range_x: 0.26}
  noise: {prob: 0.3, std: 0.05}
"""


def parse(**overrides):
    parser = ConfigParser(yaml.safe_load(CONFIG))
    for key, value in overrides.items():
        parser[key.replace("__", "#")] = value
    return parser.get_parsed_content("crop"), parser.get_parsed_content("augment")


def test_crops_follow_the_configs_rois(subject_dir):
    new = {"_target_": "mrn_components.ROI", "image": "qsm", "nuclei": ["RN", "SN"]}
    crop, augment = parse(rois__nm___disabled_=True, rois__midbrain=new)
    d = read(subject_dir, *crop, augment)
    assert set(d) - {"subject", *KEYS} == {
        f"{kind}{roi}" for kind in ("", "mask_") for roi in ("qsm1", "qsm3", "midbrain")
    }
    assert set(d["mask_midbrain"].unique().tolist()) == {0, 1, 2}


def test_augmentation_moves_images_and_masks_of_all_rois_together(subject_dir):
    """With each mask as its image the two stay equal, but for interpolation and noise."""
    crop, augment = parse()
    subject = read(subject_dir, *crop)
    names = ["nm", "qsm1", "qsm3"]
    for name in names:
        mask = subject[f"mask_{name}"]
        mask[..., mask.shape[-1] // 2 :] = 0  # the right side only, so that a mirror shows
        subject[name] = (mask > 0).float()
    dataset = ROIDataset(data=[subject], transform=augment)
    dataset.transform.set_random_state(0)
    mirrored = []
    for d in (dataset[0] for _ in range(8)):
        sides = set()
        for name in names:
            mask = d[f"mask_{name}"]
            assert d[name].shape == mask.shape == subject[name].shape
            assert (d[name] - (mask > 0).float()).abs().mean() < 0.1
            sides.add(bool((mask > 0).nonzero()[:, 3].double().mean() > mask.shape[-1] / 2))
        assert len(sides) == 1
        mirrored.append(sides.pop())
    assert set(mirrored) == {True, False}


R2STAR = Image(file="R2STAR", mask="R2STAR_mask", nuclei={"SN": (1, 2)})


def test_images_are_scaled_by_their_window_or_by_their_own_percentiles():
    rois = {
        "nm": NIGRA,
        "qsm": ROI(image="qsm", nuclei=["SN"]),
        "r2star": ROI(image=R2STAR, nuclei=[]),
    }
    d = both_images() | {"r2star": MetaTensor(torch.rand(1, *SHAPE) * 80, affine=AFFINE)}
    d["qsm"] = d["qsm"] * 600 - 200
    by_hand = {
        "nm": ScaleIntensityRangePercentiles(0.5, 99.5, 0.0, 1.0, clip=True),
        "qsm": ScaleIntensityRange(-100.0, 250.0, 0.0, 1.0, clip=True),
        "r2star": ScaleIntensityRangePercentiles(0.5, 99.5, 0.0, 1.0, clip=True),
    }
    scaled = ScaleImagesd(rois=rois)(d)
    for name, scale in by_hand.items():
        assert torch.equal(scaled[name].as_tensor(), scale(d[name]).as_tensor())
    assert torch.equal(scaled["mask_nm"], d["mask_nm"])
    del d["nm"]
    assert "nm" not in ScaleImagesd(rois=rois)(d)  # absent under the fallback


def neuromelanin():
    """A subject in memory: tissue of 300, a bright SN, air outside the head."""
    rng = np.random.default_rng(0)
    mask = make_mask("nm")
    volume = 300 * (1 + 0.05 * rng.standard_normal(SHAPE) + 0.2 * (mask > 0))
    volume[:2] = 0
    return {
        "nm": MetaTensor(torch.tensor(volume[None]).float(), affine=AFFINE),
        "mask_nm": MetaTensor(torch.tensor(mask[None]).float(), affine=AFFINE),
    }


def scaled_crop(data):
    rois = {"nm": ROI(image="nm", nuclei=["SN"], margin_mm=2.0)}
    return ROICropd(rois=rois)(ScaleImagesd(rois=rois)(data))


def test_a_relative_window_makes_arbitrary_units_comparable_and_clips_no_nucleus():
    expected = scaled_crop(neuromelanin())
    nigra = expected["nm"][expected["mask_nm"] > 0]
    assert 0.4 < nigra.min() < nigra.max() < 1
    d = neuromelanin()
    d["nm"] = d["nm"] * 7
    assert torch.allclose(scaled_crop(d)["nm"], expected["nm"], atol=1e-5)


@pytest.mark.parametrize("view", ["smaller", "air around", "a bright vessel"])
def test_a_relative_window_does_not_depend_on_the_field_of_view(view):
    expected, d = scaled_crop(neuromelanin())["nm"], neuromelanin()
    if view == "smaller":
        d = {key: volume[:, 3:, :, 1:] for key, volume in d.items()}
    elif view == "air around":
        d = {key: BorderPad((40, 40, 10))(volume) for key, volume in d.items()}
    else:
        d["nm"][:, 2, 2, :] = 9000
    assert torch.allclose(scaled_crop(d)["nm"].as_tensor(), expected.as_tensor(), atol=1e-6)


@pytest.mark.parametrize("fault", ["constant", "negative", "a large offset"])
def test_an_image_without_contrast_is_refused_under_a_relative_window(fault):
    d = neuromelanin()
    if fault == "constant":
        d["nm"][:] = 300
    else:
        d["nm"] = -d["nm"] - 1 if fault == "negative" else d["nm"] + 1e6
    with pytest.raises(ValueError, match="ROI 'nm' has no contrast in the NM image"):
        scaled_crop(d)


@pytest.mark.parametrize("pixel", [(0.5, 2.0), (1.34, 0.67)])
def test_tissue_keeps_its_shape_whatever_the_pixels_are(pixel):
    """A sphere is as wide as it is high, in its crop and in the mask."""
    affine = np.diag([*pixel, 2.0, 1.0])
    shape = [round(40 / side) for side in (*pixel, 2.0)]
    places = np.stack(np.indices(shape), -1) * [*pixel, 2.0] - 19
    mask = (np.linalg.norm(places, axis=-1) < 8).astype(float)
    d = ROICropd(rois={"nm": NIGRA})(make_volumes(mask, affine=affine))
    _, height, width = d["mask_nm"].shape[1:]
    assert abs(height - width) * min(pixel) <= max(pixel)
    assert d["nm"].shape == d["mask_nm"].shape
    assert d["nm"].pixdim[1:].tolist() == pytest.approx([min(pixel)] * 2)
    rows, columns = (int(d["mask_nm"].sum((0, 1, axis)).count_nonzero()) for axis in (3, 2))
    assert abs(rows - columns) * min(pixel) <= max(pixel)  # as the sphere has
    assert set(d["mask_nm"].unique().tolist()) == {0.0, 1.0}


def test_a_fixed_extent_gives_crops_of_one_size_about_the_middle_of_the_nuclei():
    roi = ROI(image="nm", nuclei=["SN"], extent_mm=[12, 10, 8])
    for stop in (13, 16):
        mask = np.zeros(SHAPE)
        mask[10:stop, 10:14, 4:6] = 1
        d = ROICropd(rois={"nm": roi})(make_volumes(mask))
        assert tuple(d["nm"].shape) == (1, 4, 15, 18)  # 2 mm slices, 0.6667 mm in plane
        middle = (d["mask_nm"][0] > 0).nonzero().double().mean(0) + 0.5
        assert torch.allclose(middle, torch.tensor([2.0, 7.5, 9.0]).double(), atol=1)
    missing = ROICropd(rois={"nm": roi}, missing="fallback")({"subject": "S0"})
    assert missing["missing_rois"] == ["nm"]


def test_an_roi_without_nuclei_is_the_whole_image_and_needs_no_mask():
    rois = {"whole": ROI(image=Image(file="R2STAR"), nuclei=[])}
    volume = MetaTensor(torch.rand(1, *SHAPE), affine=AFFINE)
    for missing in ("error", "fallback"):
        d = {"subject": "S0", "r2star": volume}
        for step in (
            ReadVolumesd(rois=rois, missing=missing),
            ROICropd(rois=rois, missing=missing),
            MergeSidesd(rois=rois),
        ):
            d = step(d)
        assert set(d) - {"boxes", "estimated", "missing_rois", "flags"} == {
            "subject",
            "whole",
            "mask_whole",
        }
        assert d["whole"].shape == d["mask_whole"].shape == (1, SHAPE[2], SHAPE[1], SHAPE[0])
        assert d["whole"].sum() == pytest.approx(float(volume.sum()))
        assert int(d["mask_whole"].count_nonzero()) == 0
    assert d["boxes"]["whole"]["stop"] == list(SHAPE)
    assert d["flags"] == []


def test_a_whole_roi_ignores_the_mask_of_its_image():
    whole = {"nm": ROI(image="nm", nuclei=[])}
    d = ROICropd(rois=whole)(both_images())
    assert int(d["mask_nm"].count_nonzero()) == 0
    assert ROIMaskChannelsd(rois=whole)(d)["nm"].shape[0] == 2  # the image and background


def test_mask_channels_are_one_hot_behind_the_image(rois):
    for name, roi in rois.items():
        image = torch.rand(1, 2, 3, 4)
        mask = torch.arange(24).reshape(1, 2, 3, 4) % roi.num_classes
        d = ROIMaskChannelsd(rois={name: roi})({name: image, f"mask_{name}": mask.to(torch.uint8)})
        assert d[name].shape == (1 + roi.num_classes, 2, 3, 4)
        assert d[name].dtype == torch.float32
        assert torch.equal(d[name][:1], image)
        for index in range(roi.num_classes):
            assert torch.equal(d[name][1 + index], (mask[0] == index).float())
        assert torch.equal(d[f"mask_{name}"], mask.to(torch.uint8))


def test_mask_channels_follow_augmentation(subject_dir):
    """What flips and rotations did to the mask, its channels show, background included."""
    crop, augment = parse()
    rois = {"qsm1": ROI(image="qsm", nuclei=["CN", "PUT", "GP", "TH"])}
    append = ROIMaskChannelsd(rois=rois)
    dataset = ROIDataset(data=[read(subject_dir, *crop)], transform=[augment, append])
    dataset.transform.set_random_state(0)
    for d in (dataset[0] for _ in range(4)):
        assert torch.equal(d["qsm1"][1:].argmax(0), d["mask_qsm1"][0].long())
        assert torch.equal(d["qsm1"][1:].sum(0), torch.ones(d["qsm1"].shape[1:]))


def both_images(qsm_ids=(13, 14)):
    """Two images of noise; the NM mask has both SN, the QSM mask boxes for some labels."""
    generator = torch.Generator().manual_seed(0)
    d = {"subject": "S0"}
    for image, ids in (("nm", (1, 2)), ("qsm", qsm_ids)):
        mask = np.zeros(SHAPE)
        for number, label in enumerate(ids):
            mask[5 + 8 * (number % 2) : 8 + 8 * (number % 2), 10:14, 4:6] = label
        volume = torch.rand((1, *SHAPE), generator=generator)
        d[image] = MetaTensor(volume, affine=AFFINE)
        d[f"mask_{image}"] = MetaTensor(torch.tensor(mask[None]).float(), affine=AFFINE)
    return d


MIDBRAIN = {"nm": NIGRA, "rn": ROI(image="qsm", nuclei=["RN"])}


def test_the_fallback_gives_the_same_crops_where_nothing_is_missing():
    strict = ROICropd(rois=MIDBRAIN)(both_images())
    d = ROICropd(rois=MIDBRAIN, missing="fallback")(both_images())
    assert set(d) - set(strict) == {"boxes", "estimated", "missing_rois", "flags"}
    for name in MIDBRAIN:
        for key in (name, f"mask_{name}"):
            assert torch.equal(d[key].as_tensor(), strict[key].as_tensor())
            assert torch.equal(d[key].affine, strict[key].affine)
    assert (d["missing_rois"], d["estimated"]) == ([], {})
    box = {"image": "nm", "nuclei": ["SN"], "start": [2, 7, 3], "stop": [19, 17, 7]}
    assert d["boxes"]["nm"] == box


def test_an_absent_image_becomes_zeros_and_is_flagged():
    d = both_images()
    del d["nm"], d["mask_nm"]
    d = ROICropd(rois=MIDBRAIN, missing="fallback")(d)
    assert d["missing_rois"] == ["nm"]
    assert "nm: masked, since it has no NM image" in d["flags"]
    assert set(d["boxes"]) == {"rn"}
    for key in ("nm", "mask_nm"):
        assert d[key].ndim == 4
        assert d[key].numel() > 0
        assert int(d[key].count_nonzero()) == 0
    channels = ROIMaskChannelsd(rois={"nm": NIGRA})(d)["nm"]
    assert channels.shape[0] == 3
    assert int(channels.count_nonzero()) == 0  # as Table 4 masks: not even background


def test_an_absent_mask_leaves_the_image_and_a_background_mask():
    d = both_images()
    del d["mask_nm"]
    d = ROICropd(rois=MIDBRAIN, missing="fallback")(d)
    assert d["missing_rois"] == []
    assert d["estimated"] == {
        "nm": [
            "right SN: placed where most people have it",
            "left SN: placed where most people have it",
        ]
    }
    assert d["nm"].shape == d["mask_nm"].shape
    assert d["nm"].std() > 0
    assert int(d["mask_nm"].count_nonzero()) == 0


def test_an_roi_without_contrast_is_refused_or_masked():
    d = both_images()
    d["qsm"] = torch.full_like(d["qsm"], 0.3)
    with pytest.raises(ValueError, match=r"ROI 'rn' has no contrast in the QSM image \(.*rois#rn#"):
        ROICropd(rois=MIDBRAIN)(d)
    masked = ROICropd(rois=MIDBRAIN, missing="fallback")(d)
    assert masked["missing_rois"] == ["rn"]
    assert "rn: masked, since it has no contrast in the QSM image" in masked["flags"]
    assert int(masked["rn"].count_nonzero()) == 0


def test_an_roi_beyond_the_image_is_masked():
    rois = {"dn": ROI(image="qsm", nuclei=["DN"])}
    d = ROICropd(rois=rois, missing="fallback")(both_images())
    assert d["missing_rois"] == ["dn"]
    assert "dn: masked, since it lies outside the QSM image" in d["flags"]


def test_what_is_flagged_survives_the_cache_and_mixed_batches(tmp_path):
    whole, partial = both_images(), both_images()
    del partial["nm"], partial["mask_nm"]
    crop = ROICropd(rois=MIDBRAIN, missing="fallback")
    batch = collate_subjects([crop(whole), crop(partial)])
    assert batch["missing_rois"] == [[], ["nm"]]
    make_subject(tmp_path / "SUBJ_000", label=1, seed=0)
    (subject,) = load_subjects(tmp_path, require_labels=False)
    del subject["nm"]
    steps = [ReadVolumesd(rois=MIDBRAIN, missing="fallback"), crop]
    fresh, cached = (
        ROIDataset(data=[subject], transform=steps, cache_dir=tmp_path / "cache")[0]
        for _ in range(2)
    )
    assert fresh["missing_rois"] == ["nm"]
    for key in ("boxes", "estimated", "missing_rois", "flags"):
        assert fresh[key] == cached[key]
