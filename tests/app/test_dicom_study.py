"""DICOM studies in, and segmentations and reports in the same studies out."""

import json
import os
import shutil
import sys
from dataclasses import replace

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from nibabel.processing import resample_from_to
from pydicom.data import get_testdata_file
from tiny_dicom import make_study, write_enhanced, write_series
from tiny_run import make_run, read_rows

from mrn_components.app.align import find_bridges
from mrn_components.app.biomarkers import measure_subjects
from mrn_components.app.check import check
from mrn_components.app.predict import dicom_output, predict
from mrn_components.app.predict.dicom_output import FOLDER, report_objects, segment_objects
from mrn_components.app.report.scan import scan_facts
from mrn_components.biomarkers import biomarkers_of
from mrn_components.data.dicom import _KEPT
from mrn_components.data.layouts import WORK, Need, find_subjects
from mrn_components.data.subjects import load_subjects
from mrn_components.images.image import CHALLENGE_IMAGES
from mrn_components.images.volume import read_volume
from mrn_components.phantom import make_subject
from mrn_components.system.errors import FailedSubjectsError

ANY = Need(images="some", masks="given", labels="none")
VENDORS = {"A 1": "SIEMENS", "B2": "Philips Medical Systems", "C3": "GE MEDICAL SYSTEMS"}
MAP = ("DERIVED", "PRIMARY", "QSM", "NONE")


def slab(affine, shape, degrees=20.0):
    """A tilted grid of thick slices about the middle of another grid."""
    angle = np.deg2rad(degrees)
    turn = np.eye(3)
    turn[1:, 1:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    size = np.array([110, 110, 20])
    tilted = np.eye(4)
    tilted[:3, :3] = turn * [-0.6, -0.6, 2.5]
    centre = affine @ [*(np.array(shape) / 2), 1]
    tilted[:3, 3] = centre[:3] - tilted[:3, :3] @ (size / 2)
    return tuple(size), tilted


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Three studies of three vendors in one folder, masks as NIfTI, and a tiny run."""
    root = tmp_path_factory.mktemp("dicom")
    # The nuclei of phantom 0 lie apart enough for a look at its alignment, which takes seconds.
    for number, (patient, vendor) in enumerate(VENDORS.items()):
        phantom = make_subject((0, 2, 3)[number], view="midbrain")
        study = make_study(patient, vendor=vendor)
        grid = slab(phantom.affine, phantom.volumes["NM"].shape)
        nm, nm_mask = (
            resample_from_to(nibabel.Nifti1Image(voxels, phantom.affine), grid, order=order)
            for voxels, order in (
                (phantom.volumes["NM"].astype(np.float32), 1),
                (phantom.volumes["NM_mask"], 0),
            )
        )
        # Slopes that change from slice to slice are Philips', an intercept is common.
        slopes, inter = ((0.5, 0.75, 1.25), 0.0) if "Philips" in vendor else ((1.0,), 0.0)
        folder = root / "data" / f"disk{number}"
        write_series(
            folder,
            nm.get_fdata(),
            nm.affine,
            study=study,
            number=5,
            description="NM_GRE_MT",
            slopes=slopes,
            inter=inter,
        )
        write_series(
            folder,
            phantom.volumes["QSM"],
            phantom.affine,
            study=study,
            number=7,
            description="QSM map",
            types=MAP,
            slopes=(0.1,),
            inter=-200.0 * (number > 0),
        )
        few = {"voxels": np.ones((8, 8, 3)), "affine": np.eye(4), "study": study}
        write_series(
            folder, **few, number=1, description="localizer NM", types=["X", "Y", "LOCALIZER"]
        )
        write_series(
            folder, **few, number=8, description="QSM GRE", types=("ORIGINAL", "PRIMARY", "P")
        )
        write_series(folder, **few, number=9, description="T1w MPRAGE")
        masks = root / "masks" / patient.replace(" ", "-")
        masks.mkdir(parents=True)
        nibabel.save(
            nibabel.Nifti1Image(np.asarray(nm_mask.dataobj, np.uint8), nm.affine), masks / "nm.nii"
        )
        image = nibabel.Nifti1Image(phantom.volumes["QSM_mask"], phantom.affine)
        nibabel.save(image, masks / "qsm.nii")
    (root / "data" / "notes.txt").write_text("no DICOM")
    shutil.copytree(root / "data" / "disk1", root / "data" / "once more")
    put_masks_on_series(root)
    make_run(root / "run", 0)
    return root


def put_masks_on_series(root):
    """Turn the masks to the axes of the converted images, on which a reader draws them."""
    found = find_subjects(root / "data", need=ANY, work=root / "converted")
    for subject in found.subjects:
        folder = root / "masks" / subject["subject"]
        for name, image in CHALLENGE_IMAGES.items():
            like = nibabel.load(subject[name])
            mask = resample_from_to(nibabel.load(folder / f"{name}.nii"), like, order=0)
            voxels = np.asarray(mask.dataobj, np.uint8)
            nibabel.save(nibabel.Nifti1Image(voxels, like.affine), folder / f"{image.mask}.nii.gz")
            (folder / f"{name}.nii").unlink()


def test_studies_are_found_and_the_choice_is_printed(studies, tmp_path, capsys):
    found = find_subjects(studies / "data", need=ANY, work=tmp_path)
    assert [subject["subject"] for subject in found.subjects] == ["A-1", "B2", "C3"]
    assert found.layout == "DICOM"
    assert not found.problems
    printed = capsys.readouterr().out
    copies = len(list((studies / "data" / "once more").iterdir()))
    assert (
        f"{copies} DICOM files are copies of others and are left out: once more/01_000.dcm, "
        in (printed)
    )
    assert "NM by the first word of neuromelanin, nm, mtc, mt" in printed
    chosen = "  A-1: NM is series 5 'NM_GRE_MT'; QSM is series 7 'QSM map'; its series are 1 "
    assert chosen in printed
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")}
    assert len(before) == 6
    find_subjects(studies / "data", need=ANY, work=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")} == before
    assert not list(tmp_path.rglob(".converting*"))


@pytest.mark.parametrize("number", range(len(VENDORS)))
def test_voxels_and_places_are_those_of_the_files(studies, number):
    """By SimpleITK's reader: a tilted slab, scale factors of each vendor."""
    found = find_subjects(studies / "data", need=ANY, work=studies / "converted")
    subject = found.subjects[number]
    for name in ("nm", "qsm"):
        ours = read_volume(subject[name])
        files = sorted(map(str, found.sources[subject["subject"]][name]))
        theirs = SimpleITK.ReadImage(
            SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(
                str(studies / "data" / f"disk{number}"),
                pydicom.dcmread(files[0]).SeriesInstanceUID,
            )
        )
        step = np.array(theirs.GetDirection()).reshape(3, 3) * theirs.GetSpacing()
        world = np.diag([-1, -1, 1]) @ (step @ [3, 5, 2] + theirs.GetOrigin())
        index = np.linalg.inv(ours.affine) @ [*world, 1]
        place = tuple(np.rint(index[:3]).astype(int))
        np.testing.assert_allclose(index[:3], place, atol=1e-3)
        values = SimpleITK.GetArrayFromImage(theirs).astype(float)
        assert ours.voxels[place] == pytest.approx(values[2, 5, 3], abs=1e-3)
        assert sorted(ours.shape) == sorted(values.shape)
        assert ours.voxels.sum() == pytest.approx(values.sum(), rel=1e-4)


def test_masks_and_biomarkers_come_back_in_the_study(studies, tmp_path, capsys):
    out = tmp_path / "out"
    options = {"bundle": str(studies / "run"), "masks": studies / "masks", "dicom": True}
    rows = read_rows(predict(studies / "data", out, **options))
    assert {row["status"] for row in rows} == {"ok"}
    assert "no DICOM of" not in capsys.readouterr().out
    converted = list((out / WORK).rglob("*.nii.gz"))
    assert len(converted) == 6
    found = find_subjects(studies / "data", need=ANY, work=out / WORK)
    for subject in ("A-1", "B2", "C3"):
        folder = out / FOLDER / subject
        source = pydicom.dcmread(found.sources[subject]["qsm"][0])
        for image in CHALLENGE_IMAGES.values():
            drawn = nibabel.load(studies / "masks" / subject / f"{image.mask}.nii.gz")
            path = folder / f"{image.file}_seg.dcm"
            compare_segmentation(path, drawn, image)
            same_study(pydicom.dcmread(path), source)
        same_study(pydicom.dcmread(folder / "biomarkers_sr.dcm"), source)
        record = json.loads((out / "subjects" / subject / "prediction.json").read_text())
        compare_report(folder / "biomarkers_sr.dcm", record["biomarkers"])
        assert str(tmp_path) not in json.dumps(record)


def test_nothing_of_an_earlier_prediction_stays_of_a_failed_subject(studies, tmp_path, monkeypatch):
    out, masks, data = tmp_path / "out", tmp_path / "masks", tmp_path / "data"
    shutil.copytree(studies / "masks", masks)
    for disk in ("disk0", "disk1"):
        shutil.copytree(studies / "data" / disk, data / disk, copy_function=os.link)
    options = {"bundle": str(studies / "run"), "masks": masks, "align": "off"}
    predict(data, out, **options, format="bids", dicom=True)
    with monkeypatch.context() as context:  # headers that highdicom cannot use
        context.setattr(dicom_output, "segment_objects", lambda *_, **__: 1 / 0)
        with pytest.raises(FailedSubjectsError, match=r"(?s)2 of 2 .*A-1: no DICOM of its"):
            predict(data, out, **options, resume=True, dicom=True)
    mask = next(masks.glob("B2/QSM_mask.nii*"))
    image = nibabel.load(mask)
    nibabel.save(image.slicer[1:], mask)
    with pytest.raises(FailedSubjectsError, match=r"B2: .*the shape"):
        predict(data, out, **options, resume=True)
    for name, count in (("A-1", 3), ("B2", 0)):
        assert len(list((out / FOLDER / name).glob("*"))) == count
        assert len(list((out / f"sub-{name.replace('-', '')}" / "anat").glob("*"))) == 2 * count


def same_study(made, source):
    for key in ("StudyInstanceUID", "PatientID", "PatientName", "FrameOfReferenceUID"):
        if key in made or key != "FrameOfReferenceUID":
            assert made[key].value == source[key].value, key
    assert "RESEARCH USE ONLY" in made.SeriesDescription


def compare_segmentation(path, drawn, image):
    """By highdicom's reader: every voxel of a drawn mask in its segment, and no other."""
    segmentation = highdicom.seg.segread(path)
    volume = segmentation.get_volume(combine_segments=True)
    described = segmentation.SegmentSequence
    labels = {int(one.SegmentNumber): one.SegmentLabel for one in described}
    voxels = np.asarray(drawn.dataobj)
    inside = np.argwhere(voxels > 0)
    assert (volume.array > 0).sum() == len(inside)  # so that an overlap below is an overlap of 1
    lps = np.diag([-1, -1, 1, 1]) @ drawn.affine @ np.c_[inside, np.ones(len(inside))].T
    index = np.rint(np.linalg.inv(volume.affine) @ lps)[:3].astype(int)
    by_label = {f"{side} {nucleus}": number for number, (nucleus, side) in image.ids.items()}
    table = np.array([0, *(by_label[labels[number]] for number in sorted(labels))])
    np.testing.assert_array_equal(table[volume.array[tuple(index)]], voxels[tuple(inside.T)])


def compare_report(path, biomarkers):
    """By highdicom's reader: the numbers of the record."""
    report = highdicom.sr.srread(path).content
    assert highdicom.sr.srread(path).ContentTemplateSequence[0].TemplateIdentifier == "1500"
    groups = report.get_volumetric_roi_measurement_groups()
    values = {
        (group.tracking_identifier, measured.name.meaning): float(measured.value)
        for group in groups
        for measured in group.get_measurements()
    }
    assert values["left SN", "qsm_mean_ppb"] == pytest.approx(
        biomarkers["qsm_mean_ppb_SN_left"], rel=1e-6
    )
    assert values["right DN", "Volume"] == pytest.approx(biomarkers["volume_mm3_DN_right"])
    kinds = {name for _, name in values}
    assert {"Volume", "qsm_mean_ppb", "qsm_p95_ppb", "nm_contrast_ratio"} <= kinds
    compared = report.get_image_measurement_groups()
    told = {one.tracking_identifier: one.get_measurements()[0].value for one in compared}
    assert told["asymmetry_volume_mm3_SN"] == pytest.approx(
        biomarkers["asymmetry_volume_mm3_SN"], rel=1e-6
    )


def test_other_verbs_take_studies(studies, tmp_path):
    report = check(studies / "data", masks=studies / "masks", workers=1)
    assert {one.id for one in report.findings if one.severity == "error"} == set()
    measure_subjects(studies / "data", tmp_path / "out", masks=studies / "masks")
    assert len(read_rows(tmp_path / "out" / "biomarkers.csv")) == 3
    loaded = load_subjects(
        studies / "data", require_labels=False, masks=studies / "masks", work_dir=tmp_path
    )
    assert [subject["subject"] for subject in loaded] == ["A-1", "B2", "C3"]


def test_series_are_never_guessed(tmp_path, capsys):
    study, grid = make_study("P"), {"voxels": np.ones((8, 8, 4)), "affine": np.eye(4)}
    data = tmp_path / "data"
    for number, name in ((3, "NM a"), (4, "NM b"), (5, "SWI")):
        write_series(data, **grid, study=study, number=number, description=name)
    write_series(
        data, **grid, study=study, number=6, description="QSM", types=("ORIGINAL", "PRIMARY", "M")
    )

    def find(**series):
        return find_subjects(data, need=ANY, work=tmp_path / "work", series=series)

    problem = find().problems["P"]
    assert "2 series that could be NM among 3 'NM a', 4 'NM b'" in problem
    assert "Choose one by its number or description with --nm_series" in problem
    assert "QSM" not in str(find().subjects[0])  # a magnitude image is no map
    for chosen in ("4", "*b"):
        found = find(nm=chosen)
        assert not found.problems
        assert "P: NM is series 4 'NM b'; its series are" in capsys.readouterr().out
    assert "qsm" in find(nm="4", qsm="6").subjects[0]
    for value in ("9", "*T1*"):
        assert "0 series that could be NM among 3 'NM a', 4 'NM b'" in find(nm=value).problems["P"]
    with pytest.raises(ValueError, match="'5' chooses series of DICOM studies"):
        find_subjects(tmp_path / "work", need=ANY, series={"nm": "5"})
    (lacking,) = [one for one in find(nm="4").findings if "no QSM image" in one.found]
    assert lacking.fix.startswith("Choose its series with --qsm_series: the study has 3 'NM a', ")
    with pytest.raises(ValueError, match="holds the images, and results are never written"):
        find(nm="4").refuse_output(data)


def test_several_studies_of_a_person_and_ids_that_are_no_names(tmp_path):
    for patient, date in (("../x y", "20240101"), ("../x y", "20240301"), ("", "20240101")):
        study = make_study(patient, date)
        folder = tmp_path / "data" / str(len(list(tmp_path.rglob("*.dcm"))))
        grid = {"voxels": np.ones((8, 8, 4)), "affine": np.eye(4)}
        write_series(folder, **grid, study=study, number=1, description="NM")
    found = find_subjects(tmp_path / "data", need=ANY, work=tmp_path / "work")
    people = {subject["subject"]: subject.get("person") for subject in found.subjects}
    assert people == {"x-y_20240101": "../x y", "x-y_20240301": "../x y", "unnamed": None}


def test_a_unit_of_the_series_is_read(tmp_path):
    study, voxels = make_study("P"), np.linspace(-0.2, 0.2, 8 * 8 * 4).reshape(8, 8, 4)
    options = {"study": study, "number": 1, "description": "QSM", "types": MAP, "slopes": (1e-4,)}
    write_series(tmp_path / "data", voxels, np.eye(4), **options, RescaleType="ppm")
    found = find_subjects(tmp_path / "data", need=ANY, work=tmp_path / "work")
    assert found.subjects[0]["factor_qsm"] == 1000.0
    write_series(tmp_path / "other", voxels, np.eye(4), **options, RescaleType="ppb")
    ppm = {"qsm": replace(CHALLENGE_IMAGES["qsm"], file_unit="ppm")}
    found = find_subjects(tmp_path / "other", ppm, need=ANY, work=tmp_path / "work")
    assert "factor_qsm" not in found.subjects[0]  # the series comes first


def test_a_unit_that_no_image_has_is_a_fault_of_the_series(tmp_path):
    voxels, study = np.linspace(-9, 9, 8 * 8 * 4).reshape(8, 8, 4), make_study("P")
    options = {"study": study, "number": 1, "description": "QSM", "types": MAP, "slopes": (0.01,)}
    write_series(tmp_path / "data", voxels, np.eye(4), **options, RescaleType="ppm")
    for unit in ("Hz", "rad"):
        images = {"qsm": replace(CHALLENGE_IMAGES["qsm"], unit=unit)}
        found = find_subjects(tmp_path / "data", images, need=ANY, work=tmp_path / "work")
        assert f"QSM.nii.gz: the unit 'ppm'; expected {unit}. Convert" in found.problems["P"]


def test_two_files_of_one_instance_that_differ_are_refused(tmp_path):
    study, grid = make_study("P"), {"voxels": np.ones((8, 8, 4)), "affine": np.eye(4)}
    files = write_series(tmp_path / "data", **grid, study=study, number=1, description="NM")
    first, second = map(pydicom.dcmread, files[:2])
    second.SOPInstanceUID = second.file_meta.MediaStorageSOPInstanceUID = first.SOPInstanceUID
    second.PixelData = bytes(len(second.PixelData))
    second.save_as(files[1])
    found = find_subjects(tmp_path / "data", need=ANY, work=tmp_path / "work")
    told = "01_000.dcm and 01_001.dcm are one SOP instance with other voxels; expected one volume"
    assert told in found.problems["P"]


@pytest.mark.parametrize("upwards", [1, -1])
def test_a_series_of_one_file_goes_in_and_comes_back(tmp_path, upwards):
    """Enhanced MR: voxels, places and unit of the frames; each segment's frames refer to theirs."""
    affine = slab(np.eye(4), (20, 24, 10))[1] @ np.diag([1, 1, upwards, 1])
    voxels = np.random.default_rng(0).integers(100, 1000, (20, 24, 10)).astype(float)
    study, options = make_study("P"), {"affine": affine, "slopes": (0.5,)}
    data = tmp_path / "data"
    write_enhanced(data / "1.dcm", voxels, study=study, number=1, description="NM", **options)
    options |= {"types": MAP, "unit": "ppm"}
    write_enhanced(data / "2.dcm", voxels, study=study, number=2, description="QSM", **options)
    found = find_subjects(data, need=ANY, work=tmp_path / "work")
    (subject,) = found.subjects
    assert (found.findings, subject["factor_qsm"]) == ([], 1000.0)
    nm = read_volume(subject["nm"])
    told = {"Field": "3 T", "Scanner": "Siemens Model", "TR, TE": "30, 5 ms"}
    assert scan_facts(nm).items() >= told.items()
    kept = json.loads(nm.path.with_name("NM.json").read_text())
    assert kept.keys() <= {*_KEPT}  # no name, id or date
    index = np.argwhere(voxels)
    there = np.linalg.inv(nm.affine) @ affine @ np.c_[index, np.ones(len(index))].T
    places = np.rint(there[:3]).astype(int)
    np.testing.assert_allclose(there[:3], places, atol=1e-4)
    np.testing.assert_array_equal(nm.voxels[tuple(places)], voxels[tuple(index.T)])
    drawn = np.zeros(nm.shape, np.uint8)
    drawn[2:6, 3:8, 2:5], drawn[10:14, 3:8, 2:5] = 1, 2
    (source,) = map(pydicom.dcmread, found.sources["P"]["nm"])
    options = {"automatic": True, "number": 9000}
    made = segment_objects(
        [source], nm.with_voxels(drawn, nm.path), CHALLENGE_IMAGES["nm"], **options
    )
    made.save_as(tmp_path / "seg.dcm")
    image = nibabel.Nifti1Image(drawn, nm.affine)
    compare_segmentation(tmp_path / "seg.dcm", image, CHALLENGE_IMAGES["nm"])
    for frame in made.PerFrameFunctionalGroupsSequence:
        (of,) = frame.DerivationImageSequence[0].SourceImageSequence
        theirs = source.PerFrameFunctionalGroupsSequence[of.ReferencedFrameNumber - 1]
        assert of.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert (
            frame.PlanePositionSequence[0].ImagePositionPatient
            == theirs.PlanePositionSequence[0].ImagePositionPatient
        )
    values = {name: 1.0 for one in biomarkers_of(CHALLENGE_IMAGES) for name in one.columns}
    report = report_objects([source, made], {"nm": made}, values, CHALLENGE_IMAGES)
    assert report.StudyInstanceUID == source.StudyInstanceUID


def test_frames_of_one_file_with_scale_factors_of_their_own_are_refused(tmp_path):
    voxels, study = np.full((8, 8, 4), 50.0), make_study("P")
    path, options = tmp_path / "data" / "1.dcm", {"number": 1, "description": "NM"}
    write_enhanced(path, voxels, np.eye(4), study=study, slopes=(0.5, 0.25), **options)
    found = find_subjects(tmp_path / "data", need=ANY, work=tmp_path / "work")
    told = "series 1 'NM', one file whose frames have 2 scale factors; expected one volume"
    assert told in found.problems["P"]
    assert "Export it as one file a slice" in found.problems["P"]


def test_headers_that_are_no_headers_are_told(tmp_path, caplog):
    write_series(
        tmp_path / "data",
        np.ones((8, 8, 4)),
        np.eye(4),
        study=make_study("P"),
        number=1,
        description="NM",
    )
    for path in (tmp_path / "data").glob("*.dcm"):
        content = path.read_bytes()
        start = content.index(b"\x20\x00\x11\x00IS")
        path.write_bytes(content[: start + 8] + b"xx" + content[start + 10 :])
    found = find_subjects(tmp_path / "data", need=ANY, work=tmp_path / "work")
    assert "nm" in found.subjects[0]
    assert not caplog.text
    for path in (tmp_path / "data").glob("*.dcm"):
        path.write_bytes(bytes(128) + b"DICM and no more")
    with pytest.raises(FileNotFoundError, match=r"has no subjects.* Of its DICOM files none is of"):
        find_subjects(tmp_path / "data", need=ANY, work=tmp_path / "work")


def test_studies_between_folders_of_nifti_files_are_told_and_no_bridges(tmp_path, capsys):
    data = tmp_path / "data"
    (data / "A").mkdir(parents=True)
    (data / "A" / "NM.nii.gz").touch()
    grid = {"voxels": np.ones((8, 8, 4)), "affine": np.eye(4)}
    write_series(data / "B", **grid, study=make_study("A"), number=1, description="T1")
    found = find_subjects(data, need=ANY)
    assert [subject["subject"] for subject in found.subjects] == ["A"]
    assert "left out: DICOM in B, to be named alone as the data" in found.layout
    assert find_bridges(data, found) == {}
    assert capsys.readouterr().out == ""


def test_a_series_of_two_volumes_is_refused(tmp_path):
    study = make_study("P")
    for echo, time in enumerate((5.0, 10.0), start=1):
        folder = tmp_path / "data" / str(echo)
        files = write_series(
            folder,
            np.full((8, 8, 4), echo),
            np.eye(4),
            study=study,
            number=1,
            description="NM",
            EchoTime=time,
            EchoNumbers=echo,
        )
        for path in files:
            one = pydicom.dcmread(path)
            one.SeriesInstanceUID = f"{study.StudyInstanceUID}.1"
            one.save_as(path)
    found = find_subjects(tmp_path / "data", need=ANY, work=tmp_path / "work")
    problem = found.problems["P"]
    assert "series 1 'NM', 8 files, of which dcm2niix makes 2 volumes" in problem
    assert not list((tmp_path / "work").iterdir())


FILES = [
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_expb.dcm",
    "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_padded.dcm",
    "MR_truncated.dcm",
    "CT_small.dcm",
    "rtplan.dcm",
    "test-SR.dcm",
]


@pytest.mark.parametrize("name", FILES)
def test_real_files_go_in_or_are_refused_by_name(name, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    source = get_testdata_file(name, download=False)
    if source is None:
        pytest.skip("not in this version of pydicom")
    shutil.copy(source, data)
    options = {"need": ANY, "work": tmp_path / "work", "series": {"nm": "*"}}
    found = find_subjects(data, **options)
    (subject,) = found.subjects
    if "nm" in subject:
        volume = read_volume(subject["nm"])
        expected = pydicom.dcmread(source).pixel_array
        np.testing.assert_array_equal(np.sort(volume.voxels.ravel()), np.sort(expected.ravel()))
    else:
        assert found.problems[subject["subject"]]


def test_what_lacks_is_named(studies, tmp_path, monkeypatch):
    (tmp_path / "list.json").write_text('[{"subject": "A", "nm": "x.nii"}]')
    with pytest.raises(ValueError, match=r"INPUT is no DICOM .a JSON datalist.; name a folder"):
        predict(tmp_path / "list.json", tmp_path / "out", bundle=str(studies / "run"), dicom=True)
    for package in ("pydicom", "dcm2niix"):
        with monkeypatch.context() as context:
            context.setitem(sys.modules, package, None)
            fix = r'DICOM needs .*: pip install "mrn-components\[dicom\]"'
            with pytest.raises(ValueError, match=fix):
                find_subjects(studies / "data", need=ANY, work=tmp_path / "work")
