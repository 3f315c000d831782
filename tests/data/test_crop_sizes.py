"""Weights say the size of their crops, and others are refused."""

from dataclasses import replace

import pytest
import torch
from stand_in import StandIn

from mrn_components.data import identify_subjects, load_subjects
from mrn_components.data.crop_sizes import check_crop_sizes
from mrn_components.data.ledger import TrainingLedger
from mrn_components.regions.roi import ROI


def test_weights_refuse_crops_of_another_size_and_old_ones_say_nothing(cohort, tmp_path):
    subjects = load_subjects(dataset_dir=str(cohort))[:1]
    sides = {"nm": 56, "qsm2": 84}
    nuclei = {"nm": ["SN"], "qsm2": ["STN", "SN", "RN"]}
    rois = {n: ROI(image=n[:3].rstrip("2"), nuclei=nuclei[n], size=s) for n, s in sides.items()}
    new, old = (tmp_path / f"{name}.pt" for name in ("new", "old"))
    for path, trained in ((new, rois), (old, None)):
        torch.save(StandIn().state_dict(), path)
        identities = identify_subjects(subjects)
        TrainingLedger(subjects=subjects, identities=identities, rois=trained).append_to(path)
    check_crop_sizes(rois=rois, ckpt_paths=[new, old])
    check_crop_sizes(rois={"nm": rois["nm"], "x": rois["qsm2"]}, ckpt_paths=new)
    other = {**rois, "qsm2": replace(rois["qsm2"], size=224)}
    check_crop_sizes(rois=other, ckpt_paths=[old, tmp_path / "none.pt"])
    with pytest.raises(ValueError, match=r"new\.pt was .*: qsm2 224 for 84\. .*--image_size"):
        check_crop_sizes(rois=other, ckpt_paths=[old, new])
