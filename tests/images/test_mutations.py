"""Headers as damage leaves them: a named error, or what an independent reader makes of them."""

import gzip
import warnings
from collections import Counter

import faults_data
import nibabel
import numpy as np
import pytest

from mrn_components.biomarkers import measure_nuclei
from mrn_components.checks import examine_subject
from mrn_components.data import load_subjects
from mrn_components.images.volume import read_volume
from mrn_components.regions.reading import ReadVolumesd
from mrn_components.regions.transforms import ROICropd

NUM_MUTATIONS = 400
READ = ("dim", "datatype", "pixdim", "vox", "scl", "qform", "sform", "quatern", "srow", "magic")
KEYS = {"NM": "nm", "QSM": "qsm", "NM_mask": "mask_nm", "QSM_mask": "mask_qsm"}


def mutate(header, rng):
    """Give a field, or a part of one, one of its extremes or random bytes."""
    fields = list(header.dtype.fields.items())
    if rng.random() < 0.5:  # half of them where a reader looks
        fields = [field for field in fields if field[0].startswith(READ)]
    name, (kind, offset, *_) = fields[rng.integers(len(fields))]
    base = kind.base
    place = offset + base.itemsize * int(rng.integers(kind.itemsize // base.itemsize))
    choices = [rng.bytes(base.itemsize)]
    if base.kind in "iu":
        limits = np.iinfo(base)
        choices += [np.array(n, base).tobytes() for n in (limits.min, limits.max, 0, 1, 7)]
    elif base.kind == "f":
        values = (np.nan, np.inf, -np.inf, 0, -1, 1e30, 1e-30)
        choices += [np.array(value, base).tobytes() for value in values]
    content = bytearray(header.tobytes())
    chosen = choices[rng.integers(len(choices))]
    content[place : place + len(chosen)] = chosen
    return name, bytes(content)


def refusal(root):
    """What training says of a data set; "" if it takes it."""
    try:
        load_subjects(root, require_labels=False)
    except ValueError as error:
        return str(error)
    return ""


def assert_as_nibabel_reads_it(volume):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = nibabel.load(volume.path)
    voxels = np.asarray(loaded.dataobj, np.float32).reshape(volume.shape)
    assert np.array_equal(volume.voxels, voxels)
    assert np.array_equal(volume.affine, loaded.affine)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mutations_of_a_header_are_named_or_change_nothing(tmp_path, rois):
    """In check, in training (``load``) and in what prediction does before the network."""
    rng = np.random.default_rng(20261125)
    faults_data.make_sound_cohort(tmp_path, 2)
    subject = load_subjects(tmp_path, require_labels=False)[0]
    names, ends = set(), Counter()
    for number in range(NUM_MUTATIONS):
        file = ("NM", "QSM", "QSM_mask")[number % 3]
        path = faults_data.path(tmp_path, file)
        whole, before = path.read_bytes(), read_volume(path)
        content = gzip.decompress(whole)
        name, header = mutate(nibabel.Nifti1Header(content[:348]).structarr, rng)
        names.add(name)
        path.write_bytes(gzip.compress(header + content[348:], 1))
        examination = examine_subject(subject, deep=True)
        errors = [found for found in examination.findings if found.severity == "error"]
        said = refusal(tmp_path)
        assert not said or (errors and f"{file}.nii.gz: " in said), name
        if errors:
            assert all(found.file and found.found and found.fix for found in errors), name
            ends["refused"] += 1
        else:
            d = ReadVolumesd(rois=rois, missing="fallback")(subject | examination.volumes)
            ROICropd(rois=rois, missing="fallback")(d)
            measure_nuclei(examination.volumes)
            after = examination.volumes[KEYS[file]]
            same = np.array_equal(after.voxels, before.voxels)
            same = same and np.array_equal(after.affine, before.affine)
            ends["unchanged" if same else f"changed by {name}"] += 1
            if not same:
                assert_as_nibabel_reads_it(after)
        path.write_bytes(whole)
    assert len(names) > 35, names  # nearly every field
    possible = {"scl_slope", "scl_inter", "srow_x", "srow_y", "srow_z"}  # no reader can know
    assert set(ends) <= {"refused", "unchanged", *(f"changed by {name}" for name in possible)}
    assert min(ends["refused"], ends["unchanged"]) > 100
