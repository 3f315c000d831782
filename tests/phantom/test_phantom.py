import json
import logging
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from mrn_components.images.image import CHALLENGE_IMAGES
from mrn_components.phantom import cohort as phantom_cohort
from mrn_components.phantom import latent_values, make_cohort, make_subject
from mrn_components.phantom.cohort import draw_label
from mrn_components.phantom.numbers import GRIDS, NM_SHAPE, SHAPES

_logger = logging.getLogger(__name__)

FILES = {"QSM.nii.gz", "NM.nii.gz", "NM_mask.nii.gz", "QSM_mask.nii.gz"}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return make_cohort(
        tmp_path_factory.mktemp("cohort") / "phantom", subjects=3, view="midbrain", workers=1
    )


@pytest.fixture(scope="module")
def several():
    return [make_subject(index, seed=3, view="midbrain") for index in range(6)]


@pytest.fixture(scope="module")
def brain():
    return make_subject(0, t1=True)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


def test_layout_and_csv_are_the_challenges(cohort):
    assert {p.name for p in cohort.iterdir()} == {
        "PHAN1_000", "PHAN1_001", "PHAN1_002", "train_cases.csv", "phantom.json"
    }  # fmt: skip
    for folder in cohort.glob("PHAN1_*"):
        assert {p.name for p in folder.iterdir()} == FILES
    rows = (cohort / "train_cases.csv").read_text().splitlines()
    assert rows == [f"PHAN1_{i:03d},{draw_label(i)}" for i in range(3)]


def test_midbrain_headers_keep_the_world_of_the_full_grid(cohort):
    for path in (cohort / "PHAN1_000").iterdir():
        image = nib.load(path)
        assert image.shape == GRIDS["midbrain"].shape
        assert nib.aff2axcodes(image.affine) == ("L", "A", "S")
        np.testing.assert_allclose(image.affine[:3, 3], [-84 * 2 / 3, 64 * 2 / 3, 0], atol=1e-5)


def test_brain_headers_are_the_challenges(brain, tmp_path, monkeypatch):
    monkeypatch.setattr(phantom_cohort, "make_subject", lambda *_, **__: brain)
    make_cohort(tmp_path / "out", subjects=1, workers=1, t1=True)
    for path in (tmp_path / "out" / "PHAN1_000").iterdir():
        image = nib.load(path)
        assert image.shape == (300, 300, 70)
        np.testing.assert_allclose(image.affine, np.diag([-2 / 3, 2 / 3, 2, 1]), atol=1e-6)
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-6)
        assert image.header["qform_code"] == image.header["sform_code"] == 1
        assert image.header["xyzt_units"] == 10
        name = path.name.removesuffix(".nii.gz")
        stored = np.asarray(image.dataobj)
        if name.endswith("_mask"):
            assert image.get_data_dtype() == np.uint8
            np.testing.assert_array_equal(stored, brain.volumes[name])
        else:
            step = 0.1 if name == "QSM" else 1.0
            assert np.abs(stored - brain.volumes[name]).max() <= 0.51 * step


def test_only_qsm_is_skull_stripped(brain):
    inside = brain.volumes["QSM"] != 0
    assert 0.1 < inside.mean() < 0.4
    for face in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
        assert not face.any()
    for name in ("NM", "T1"):
        volume = brain.volumes[name]
        air = volume[:20, :20]
        assert (np.rint(air) > 0).mean() > 0.9  # a noise floor
        assert air.mean() < 0.1 * volume[inside].mean()
        assert np.percentile(volume[~inside], 90) > 0.5 * volume[inside].mean()  # the scalp


def test_views_hold_the_same_nuclei(brain):
    crop = make_subject(0, view="midbrain")
    grid = GRIDS["midbrain"]
    box = tuple(slice(a, a + n) for a, n in zip(grid.start, grid.shape, strict=True))
    for name in ("QSM_mask", "NM_mask"):
        whole, part = brain.volumes[name], crop.volumes[name]
        np.testing.assert_array_equal(whole[box], part)
        assert (whole > 0).sum() == (part > 0).sum()


def test_labels_are_complete_and_odd_ids_lie_right(several):
    for phantom in several:
        for image in CHALLENGE_IMAGES.values():
            mask = phantom.volumes[image.mask]
            assert mask.dtype == np.uint8
            assert set(np.unique(mask)) == {0, *image.ids}
            for right, left in image.nuclei.values():
                centres = [
                    phantom.affine[:3, :3] @ np.argwhere(mask == i).mean(0) for i in (right, left)
                ]
                assert centres[0][0] > centres[1][0] + 5  # RAS+: right has the larger x, in mm


def test_nuclei_keep_6_mm_from_the_border(several):
    for phantom in several:
        for name in ("QSM_mask", "NM_mask"):
            voxels = np.argwhere(phantom.volumes[name])
            shape = np.array(phantom.volumes[name].shape)
            margin = np.minimum(voxels.min(0), shape - 1 - voxels.max(0)) * (2 / 3, 2 / 3, 2)
            assert (margin >= 6).all()


def test_mean_volumes_are_the_published_ones(several):
    masks = [phantom.volumes for phantom in several]
    for name, shape in SHAPES.items():
        pair = CHALLENGE_IMAGES["qsm"].nuclei[name]
        volume = np.mean([np.isin(m["QSM_mask"], pair).sum() for m in masks]) / 2 * 8 / 9
        assert volume == pytest.approx(np.mean(shape.volume), rel=0.15), name
    volume = np.mean([(m["NM_mask"] > 0).sum() for m in masks]) / 2 * 8 / 9
    assert volume == pytest.approx(NM_SHAPE.volume[0] * 0.975, rel=0.15)  # half lose 5 %


def test_neuromelanin_overlaps_the_substantia_nigra(several):
    shares = []
    for phantom in several:
        nm, qsm = phantom.volumes["NM_mask"], phantom.volumes["QSM_mask"]
        for nm_id, qsm_id in zip(
            CHALLENGE_IMAGES["nm"].nuclei["SN"], CHALLENGE_IMAGES["qsm"].nuclei["SN"], strict=True
        ):
            shares.append((qsm[nm == nm_id] == qsm_id).mean())
    assert 0.5 < np.mean(shares) < 0.8


def test_nuclei_stand_out_in_their_images(several):
    contrasts = []
    for phantom in several:
        qsm, nm = phantom.volumes["QSM"], phantom.volumes["NM"]
        qsm_mask, nm_mask = phantom.volumes["QSM_mask"], phantom.volumes["NM_mask"]
        nigra = np.isin(qsm_mask, CHALLENGE_IMAGES["qsm"].nuclei["SN"])
        assert qsm[nigra].mean() > np.median(qsm[qsm != 0]) + 40
        contrasts.append(nm[nm_mask > 0].mean() / nm[(nm_mask == 0) & (qsm_mask > 0)].mean())
    assert np.mean(contrasts) > 1.04
    assert min(contrasts) > 1


def test_a_subject_depends_on_seed_and_number_alone(cohort, tmp_path):
    alone = make_cohort(tmp_path / "two", subjects=3, view="midbrain", workers=2)
    assert contents(alone) == contents(cohort)
    other = make_subject(0, seed=2, view="midbrain").volumes["NM"]
    assert not np.array_equal(other, make_subject(0, seed=1, view="midbrain").volumes["NM"])


@pytest.mark.parametrize("seed", [1, 2])
def test_classes_are_balanced_and_shuffled(seed):
    labels = [draw_label(i, seed=seed) for i in range(200)]
    assert sum(labels) == 100
    assert 25 < sum(labels[::2]) < 75  # neither odd nor even ids tell the class


def test_without_effect_the_label_changes_nothing():
    healthy, patient = (
        make_subject(1, effect=0.0, view="midbrain", label=label) for label in (0, 1)
    )
    for name, volume in healthy.volumes.items():
        np.testing.assert_array_equal(volume, patient.volumes[name])


def test_the_effect_changes_patients_only():
    for label, same in ((0, True), (1, False)):
        weak, strong = (
            make_subject(1, effect=e, view="midbrain", label=label).volumes for e in (1.0, 2.0)
        )
        assert np.array_equal(weak["QSM"], strong["QSM"]) == same
        assert np.array_equal(weak["NM"], strong["NM"]) == same


def test_disease_raises_qsm_and_takes_neuromelanin():
    def measures(label):
        volumes = make_subject(4, effect=2.0, view="midbrain", label=label).volumes
        nigra = np.isin(volumes["QSM_mask"], CHALLENGE_IMAGES["qsm"].nuclei["SN"])
        return (
            volumes["QSM"][nigra].mean(),
            (volumes["QSM"][nigra] < 70).sum(),  # nigrosome-1
            *posterolateral_contrast(volumes),
            (volumes["NM_mask"] > 0).sum(),
        )

    (chi, dark, *contrast, volume), (chi_pd, dark_pd, *contrast_pd, volume_pd) = map(
        measures, (0, 1)
    )
    assert chi_pd > chi + 5
    assert dark_pd < dark
    assert np.all(np.array(contrast_pd) < contrast)
    assert 0.8 * volume < volume_pd < volume  # most of the loss is in the signal


def test_sizes_and_places_tell_no_more_at_a_larger_effect():
    for index in range(3):
        published, strong = (
            make_subject(index, effect=e, view="midbrain", label=1).volumes for e in (1.0, 4.0)
        )
        for name in ("NM_mask", "QSM_mask"):
            np.testing.assert_array_equal(published[name], strong[name])
        assert not np.array_equal(published["NM"], strong["NM"])


def settings_of(folder, *, seed, effect, subjects, version=phantom_cohort._VERSION):
    """A cohort's folder without its images."""
    folder.mkdir()
    settings = {"version": version, "seed": seed, "effect": effect}
    (folder / "phantom.json").write_text(json.dumps(settings))
    rows = [f"P{i},{draw_label(i, seed=seed)}\n" for i in range(subjects)]
    (folder / "train_cases.csv").write_text("".join(rows))
    return folder


def test_latent_values_are_what_the_images_show(several, tmp_path):
    latent = latent_values(settings_of(tmp_path / "c", seed=3, effect=1.0, subjects=6))
    for side, number in (("right", 11), ("left", 12)):
        shown = [p.volumes["QSM"][p.volumes["QSM_mask"] == number].mean() for p in several]
        made = [values[f"qsm_SN_{side}"] for values in latent.values()]
        assert np.corrcoef(shown, made)[0, 1] > 0.8
        assert np.mean(shown) == pytest.approx(np.mean(made), rel=0.15)


def test_latent_values_of_healthy_controls_know_no_effect(tmp_path):
    folders = [
        settings_of(tmp_path / f"{effect}", seed=1, effect=effect, subjects=8)
        for effect in (0.0, 1.0)
    ]
    without, with_effect = map(latent_values, folders)
    for index, (name, values) in enumerate(without.items()):
        assert (values == with_effect[name]) == (draw_label(index) == 0)


def test_latent_values_of_other_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not a phantom cohort: it has no phantom.json"):
        latent_values(tmp_path)
    old = settings_of(tmp_path / "old", seed=1, effect=1.0, subjects=1, version=1)
    with pytest.raises(ValueError, match=r"phantoms of version 1, this is version \d+: what they"):
        latent_values(old)


def test_a_t1_comes_when_asked_for_and_changes_nothing_else(several):
    phantom = make_subject(0, seed=3, view="midbrain", t1=True)
    assert "T1" not in several[0].volumes
    for name, volume in several[0].volumes.items():
        np.testing.assert_array_equal(volume, phantom.volumes[name])
    mask, t1 = phantom.volumes["QSM_mask"], phantom.volumes["T1"]
    for ids in CHALLENGE_IMAGES["qsm"].nuclei.values():  # visible, so that it helps to register
        nucleus = np.isin(mask, ids)
        around = t1[ndimage.binary_dilation(nucleus, iterations=3) & (mask == 0)]
        assert t1[nucleus].mean() < around.mean() - 1.5 * t1[nucleus].std()


def test_a_template_is_an_atlas_of_the_mean_subject(tmp_path, several):
    out = make_cohort(tmp_path / "atlas", template=True, view="midbrain")
    before = contents(out)
    assert {str(path) for path in before} == {
        "QSM.nii.gz", "T1.nii.gz", "labels.nii.gz", "nuclei.csv"
    }  # fmt: skip
    labels = np.asanyarray(nib.load(out / "labels.nii.gz").dataobj)
    qsm = nib.load(out / "QSM.nii.gz").get_fdata()
    for nucleus, ids in CHALLENGE_IMAGES["qsm"].nuclei.items():
        assert qsm[labels == ids[0]].mean() == pytest.approx(qsm[labels == ids[1]].mean(), rel=0.3)
        volumes = [np.isin(one.volumes["QSM_mask"], ids).sum() for one in several]
        assert 0.7 < np.isin(labels, ids).sum() / np.mean(volumes) < 1.3, nucleus
    make_cohort(out, template=True, view="midbrain")
    assert contents(out) == before
    (out / "scan.nii").touch()
    with pytest.raises(FileExistsError, match="holds something else"):
        make_cohort(out, template=True, view="midbrain")


def test_an_interrupted_cohort_goes_on(tmp_path):
    out = make_cohort(tmp_path / "out", subjects=2, view="midbrain", workers=1)
    before = contents(out)
    kept = (out / "PHAN1_000" / "NM.nii.gz").stat().st_mtime_ns
    (out / "PHAN1_001" / "NM.nii.gz").unlink()
    (out / "train_cases.csv").unlink()
    (out / ".PHAN1_001.partial").mkdir()
    make_cohort(out, subjects=2, view="midbrain", workers=1)
    assert contents(out) == before
    assert (out / "PHAN1_000" / "NM.nii.gz").stat().st_mtime_ns == kept


def test_other_settings_are_refused(cohort):
    before = contents(cohort)
    with pytest.raises(FileExistsError, match=r"effect is 1\.0, asked for 2\.0"):
        make_cohort(cohort, subjects=3, view="midbrain", effect=2.0)
    with pytest.raises(FileExistsError, match=r"seed is 1, asked for 7.*view is 'midbrain'"):
        make_cohort(cohort, subjects=3, seed=7)
    with pytest.raises(FileExistsError, match="holds PHAN1_002, asked for 2 subjects"):
        make_cohort(cohort, subjects=2, view="midbrain")
    assert contents(cohort) == before
    assert json.loads((cohort / "phantom.json").read_text())["seed"] == 1


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "scan.nii").touch()
    with pytest.raises(FileExistsError, match=r"has no phantom\.json"):
        make_cohort(tmp_path, subjects=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"subjects": 0}, "subjects must be >= 1, got 0"),
        ({"workers": 0}, "workers must be >= 1"),
        ({"seed": -1}, "seed must be >= 0, got -1"),
        ({"effect": -0.5}, r"effect must be >= 0 .* got -0\.5"),
        ({"effect": float("nan")}, "effect must be >= 0 .* got nan"),
        ({"view": "head"}, r"view must be one of \['brain', 'midbrain'\], got 'head'"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        make_cohort(tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_a_label_is_0_or_1():
    with pytest.raises(ValueError, match=r"label must be 0 \(HC\) or 1 \(PD\), got 2"):
        make_subject(0, label=2)
    with pytest.raises(ValueError, match="index must be >= 0, got -1"):
        make_subject(-1)


def test_phantoms_need_neither_torch_nor_monai():
    code = "import sys, mrn_components.phantom; print({'torch', 'monai'} & set(sys.modules))"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "set()"


EFFECTS = (1.0, 0.0, 4.0)
ROIS = {"NM_mask": [(1, 2)], "QSM_mask": [range(1, 9), range(9, 15), (15, 16)]}


@pytest.fixture(scope="module")
def features():
    """{effect: {kind of features: (300, ...)}} and the labels of 300 subjects."""
    found = {}
    for effect in EFFECTS:
        rows = [
            features_of(make_subject(i, seed=11, effect=effect, view="midbrain"))
            for i in range(300)
        ]
        found[effect] = {kind: np.array([row[kind] for row in rows]) for kind in rows[0]}
    return found, np.array([draw_label(i, seed=11) for i in range(300)])


@pytest.mark.slow
@pytest.mark.timeout(3600)
class TestWhatTellsTheClass:
    """Cross-validated logistic regressions of 300 subjects; the SD of an AUC is 0.03.

    ``--log-cli-level INFO`` prints the numbers.
    """

    def test_sizes_tell_hardly_anything(self, features):
        """What is published of volumes, and no more, at whatever effect."""
        assert score(features, 1.0, "sizes") <= 0.62
        assert score(features, 4.0, "sizes") <= 0.65
        assert score(features, 0.0, "sizes") < 0.58
        for effect in EFFECTS:
            assert score(features, effect, "sizes", "places") <= 0.62

    def test_nucleus_means_classify_as_poorly_as_in_real_data(self, features):
        """Published baseline on the real data: accuracy 0.62-0.63."""
        means = "qsm means", "nm means"
        assert 0.60 < score(features, 1.0, *means, scoring="accuracy") < 0.70
        assert 0.42 < score(features, 0.0, *means, scoring="accuracy") < 0.58

    def test_each_image_tells_the_class_and_both_tell_more(self, features):
        for effect, kind, low in ((1, "means", 0.56), (1, "thirds", 0.75), (4, "means", 0.75)):
            alone = [score(features, effect, f"{image} {kind}") for image in ("qsm", "nm")]
            both = score(features, effect, f"qsm {kind}", f"nm {kind}")
            assert low < min(alone) <= max(alone) < both
        assert max(score(features, 0.0, f"{image} thirds") for image in ("qsm", "nm")) < 0.6


def score(features, effect, *kinds, scoring="roc_auc"):
    model_selection = pytest.importorskip("sklearn.model_selection")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found, labels = features
    value = model_selection.cross_val_score(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        np.concatenate([found[effect][kind] for kind in kinds], axis=1),
        labels,
        cv=model_selection.RepeatedStratifiedKFold(n_splits=5, n_repeats=4, random_state=0),
        scoring=scoring,
    ).mean()
    _logger.info("effect %g, %s: %s %.3f", effect, " and ".join(kinds), scoring, value)
    return value


def features_of(phantom):
    """Sizes and places of boxes and masks, means of nuclei, and three parts of each SN."""
    volumes = phantom.volumes
    qsm, nm = (means(volumes[k], volumes["QSM_mask"]) for k in ("QSM", "NM"))
    seen = means(volumes["NM"], volumes["NM_mask"])
    boxes = np.concatenate([mask_boxes(volumes[name], rois) for name, rois in ROIS.items()])
    voxels = [np.bincount(volumes[name].ravel())[1:] for name in ("NM_mask", "QSM_mask")]
    return {
        "sizes": np.concatenate([(boxes[:, 1] - boxes[:, 0]).ravel(), *voxels]),
        "places": boxes.mean(1).ravel(),
        "qsm means": qsm,
        "nm means": np.concatenate([nm, seen]) / nm.mean(),
        "qsm thirds": parts(volumes["QSM"], volumes["QSM_mask"], (11, 12)),
        "nm thirds": parts(volumes["NM"], volumes["NM_mask"], (1, 2)) / nm.mean(),
    }


def mask_boxes(mask, rois):
    voxels = [np.argwhere(np.isin(mask, list(ids))) for ids in rois]
    return np.array([(found.min(0), found.max(0) + 1) for found in voxels])


def parts(image, mask, ids):
    """Means of the thirds of two nuclei, from the anteromedial to the posterolateral one."""
    found = []
    for sign, number in zip((1, -1), ids, strict=True):
        voxels = np.argwhere(mask == number)
        order = np.argsort(voxels @ (-0.6 * sign, -0.8, 0), kind="stable")  # i grows to the left
        found += [image[tuple(third.T)].mean() for third in np.array_split(voxels[order], 3)]
    return np.array(found)


def posterolateral_contrast(volumes):
    """NM of the SN's posterolateral third to the rest's, right and left."""
    thirds = parts(volumes["NM"], volumes["NM_mask"], (1, 2)).reshape(2, 3)
    return thirds[:, 2] / thirds[:, 0]


def means(image, mask):
    ids = mask.ravel()
    return (np.bincount(ids, image.ravel()) / np.bincount(ids))[1:]


# ---- several sites


def test_scanners_differ_as_their_table_says_and_anatomy_does_not():
    own = make_subject(1, view="midbrain", label=1)
    other = make_subject(1, view="midbrain", label=1, sites=2)
    first = make_subject(2, view="midbrain", label=1)
    assert np.array_equal(
        first.volumes["QSM"], make_subject(2, view="midbrain", label=1, sites=2).volumes["QSM"]
    )
    for name in ("QSM_mask", "NM_mask"):
        np.testing.assert_array_equal(own.volumes[name], other.volumes[name])
    brain = own.volumes["QSM"] != 0
    assert (other.volumes["QSM"] - own.volumes["QSM"])[brain].mean() == pytest.approx(30, abs=0.5)
    around = (own.volumes["QSM_mask"] == 0) & brain
    contrast = [
        p.volumes["NM"][own.volumes["NM_mask"] > 0].mean() / p.volumes["NM"][around].mean()
        for p in (own, other)
    ]
    assert contrast[1] < contrast[0]  # its neuromelanin stands out less


def test_each_site_has_its_share_of_patients_and_effect_its_own_labels():
    labels = [draw_label(index, seed=5, sites=3) for index in range(300)]
    assert [np.mean(labels[site::3]) for site in range(3)] == [0.5, 0.4, 0.6]
    assert [draw_label(index) for index in range(8)] == [
        draw_label(index, sites=1) for index in range(8)
    ]


def test_the_csv_tells_the_sites_and_a_cohort_of_others_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(phantom_cohort, "_write_subject", lambda *_, **__: None)
    make_cohort(tmp_path, subjects=4, workers=1, sites=3)
    rows = [line.split(",") for line in (tmp_path / "train_cases.csv").read_text().splitlines()]
    assert rows[0] == ["subject", "label", "site"]
    assert [row[2] for row in rows[1:]] == ["A", "B", "C", "A"]
    assert latent_values(tmp_path).keys() == {row[0] for row in rows[1:]}
    with pytest.raises(FileExistsError, match="sites is 3, asked for 2"):
        make_cohort(tmp_path, subjects=4, workers=1, sites=2)
    with pytest.raises(ValueError, match="sites must be 1 to 4, got 9"):
        make_cohort(tmp_path / "other", sites=9)
