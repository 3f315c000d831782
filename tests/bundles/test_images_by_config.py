"""Other images and regions by YAML alone: trained for two epochs, then used for prediction."""

import json
import math
import shutil

import nibabel
import numpy as np
import pytest
from tiny_bundles import train
from tiny_cohort import write_nifti
from tiny_run import read_rows

from mrn_components.app.predict import predict
from mrn_components.images.image import CHALLENGE_IMAGES

NM = ["NM.nii.gz", "NM_mask.nii.gz"]
QSM = ["QSM.nii.gz", "QSM_mask.nii.gz"]

# Overlays: what a researcher writes into a file beside train.yaml.
NM_ONLY = """
rois:
  nm: {_target_: mrn_components.ROI, image: "@images#nm", nuclei: [SN], size: "@image_size"}
"""
QSM_ONLY = """
rois#nm#_disabled_: true
"""
R2STAR = """
images#r2star:
  _target_: mrn_components.Image
  file: R2STAR
  mask: R2STAR_mask
  nuclei: {SN: [1, 2], RN: [3, 4]}
  quantity: relaxation
  unit: 1/s
  window: [0.0, 100.0]
rois#r2star:
  _target_: mrn_components.ROI
  image: "@images#r2star"
  nuclei: [SN, RN]
  size: "@image_size"
"""
WHOLE = """
images#t1: {_target_: mrn_components.Image, file: T1}
rois:
  brain: {_target_: mrn_components.ROI, image: "@images#t1", nuclei: [], size: "@image_size"}
"""


def make_r2star(folder):
    """Make R2* of what the QSM shows, with a mask of its own ids."""
    qsm, mask = (nibabel.load(folder / f"{name}.nii.gz") for name in ("QSM", "QSM_mask"))
    r2star = 20 + 0.2 * np.asanyarray(qsm.dataobj)
    ids, own = np.asanyarray(mask.dataobj), np.zeros(mask.shape, np.uint8)
    for number, name in enumerate(("SN", "RN")):
        for side, old in enumerate(CHALLENGE_IMAGES["qsm"].nuclei[name], start=1):
            own[ids == old] = 2 * number + side
    write_nifti(folder / "R2STAR.nii.gz", r2star.astype(np.float32))
    write_nifti(folder / "R2STAR_mask.nii.gz", own)


def make_t1(folder):
    (folder / "NM.nii.gz").rename(folder / "T1.nii.gz")


# {what: (overlay, files of its own, files that are not there, regions)}
CASES = {
    "NM only": (NM_ONLY, None, QSM, ["nm"]),
    "QSM only": (QSM_ONLY, None, NM, ["qsm1", "qsm2", "qsm3"]),
    "a third image": (R2STAR, make_r2star, [], ["nm", "qsm1", "qsm2", "qsm3", "r2star"]),
    "a whole image": (WHOLE, make_t1, ["NM_mask.nii.gz", *QSM], ["brain"]),
}


@pytest.mark.parametrize(
    ("bundle", "case"), [*(("mrn", case) for case in CASES), ("seres10", "a whole image")]
)
def test_images_are_swapped_by_config_alone(cohort, tmp_path, bundle, case):
    """A subject needs the files of the regions' images, and no others."""
    overlay, make, unneeded, rois = CASES[case]
    data = tmp_path / "data"
    for number in range(4):
        folder = data / f"SUBJ_{number:03d}"
        shutil.copytree(cohort / folder.name, folder)
        if make is not None:
            make(folder)
        for name in unneeded:
            (folder / name).unlink()
    (data / "labels.csv").write_text("".join(f"SUBJ_{n:03d},{n % 2}\n" for n in range(4)))
    run = tmp_path / "run"
    (tmp_path / "mine.yaml").write_text(overlay)
    trainer = train(data, run, bundle, [str(tmp_path / "mine")], num_folds=2)
    assert trainer.state.output["pred"]["patient"].shape[1] == 48 * len(rois)
    assert math.isfinite(trainer.state.metrics["loss"])

    out = tmp_path / "out"
    rows = read_rows(predict(str(data), str(out), bundle=str(run), num_workers=0))
    assert {row["status"] for row in rows} == {"ok"}, rows[0]
    assert all(0 <= float(row["prob_pd"]) <= 1 for row in rows)
    record = json.loads((out / "subjects" / "SUBJ_000" / "prediction.json").read_text())
    assert list(record["boxes"]) == rois
    needed = {box["image"] for box in record["boxes"].values()}
    assert {key.removeprefix("mask_") for key in record["inputs"]} == needed
