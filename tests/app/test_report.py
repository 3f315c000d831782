"""Reports: what a page says, that it says it truly, and that nothing gets in or out of it."""

import base64
import io
import json
import math
import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image as Pixels
from tiny_report import BOXES, EVIL, EXPLANATION, record, write_cross_validation, write_output
from tiny_run import write_predictions

from mrn_components.app import cli
from mrn_components.app.evaluate import evaluate
from mrn_components.app.report import index
from mrn_components.app.report.cohort import write_cohort_report
from mrn_components.app.report.faults import faults_of, in_words
from mrn_components.app.report.images import Drawing
from mrn_components.app.report.pages import environment
from mrn_components.app.report.reports import write_reports
from mrn_components.app.report.scan import scan_facts
from mrn_components.app.report.slices import (
    canonical_box,
    draw_planes,
    draw_slice,
    grey,
    radiological,
)
from mrn_components.app.report.strips import biomarker_rows, published_values
from mrn_components.biomarkers import references
from mrn_components.data.target import Score, write_target
from mrn_components.images.boxes import Box
from mrn_components.images.image import CHALLENGE_IMAGES, Image
from mrn_components.images.volume import Volume, read_volume
from mrn_components.metrics import diagnosis_metrics


def page(output: Path, subject: str) -> str:
    return (output / "subjects" / subject / "report.html").read_text()


def words(html: str) -> str:
    """What a reader reads."""
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL).split())


def test_a_page_says_what_the_record_holds(output):
    html = page(output, "SUBJ_000")
    text = words(html)
    for part in (
        "Research use only. Not a medical device. Nothing on this page is a diagnosis.",
        "0.70 above the threshold 0.5: class PD",
        "Folds 0.40 to 0.80",
        "2 of 3 folds give this class",
        "No flag was raised",
        "from 0.50 with all regions hidden to 0.70 with all shown",
        "nm SN +0.300 qsm2 −0.100 qsm3 0.000",
        "strongest cell +0.050",
        "substantia nigra",
        "abababababab…",
        "cdcdcdcdcdcd…",
    ):
        assert part in text or part in words(html.replace(" title", "")), part
    assert html.count('class="fold"') == 3
    assert all(f"left:{at}" in html for at in ("60.0%", "80.0%", "40.0%"))


def test_a_probability_near_the_threshold_is_said_to_be_near(cohort, tmp_path):
    near = [record(cohort, f"SUBJ_00{n}", prob_pd=p) for n, p in enumerate((0.51, 0.45, 0.61))]
    folder = write_output(tmp_path / "out", near)
    write_reports(folder, cohort)
    assert "0.51 near the threshold 0.5, above it: class PD" in words(page(folder, "SUBJ_000"))
    assert "0.45 near the threshold 0.5, not above it: class HC" in words(page(folder, "SUBJ_001"))
    assert "near the threshold" not in words(page(folder, "SUBJ_002"))


def test_a_page_says_in_words_how_unlike_the_training_a_subject_is(cohort, tmp_path):
    folder = write_output(tmp_path / "out", [record(cohort, "SUBJ_000", unlike_training=0.432)])
    write_reports(folder, cohort)
    told = "43.2 %: so many of the subjects outside the training lie nearer to it. It is flagged"
    assert f"{told} above 99 %." in words(page(folder, "SUBJ_000")).replace("\xa0", " ").replace(
        "&nbsp;", " "
    )


def test_a_page_tells_how_a_scan_was_made_and_when_only_if_asked(cohort, tmp_path):
    shutil.copytree(cohort / "SUBJ_000", tmp_path / "in" / "SUBJ_000")
    sidecar = {"MagneticFieldStrength": 3, "EchoTime": 0.0031, "RepetitionTime": 0.05}
    sidecar |= {"PulseSequenceType": "GRE, MT", "AcquisitionDateTime": "1999-12-31T23:58"}
    sidecar |= {"Manufacturer": EVIL, "PatientName": "Anna"}
    (tmp_path / "in" / "SUBJ_000" / "NM.json").write_text(json.dumps(sidecar))
    quality = {"nm": {"contrast_to_noise": 4.25, "noise": 0.031, "ghosts": None}}
    quality["qsm"] = {"contrast_to_noise": 2.0, "noise": 7.5, "ghosts": None}
    told = {"quality": quality, "person": {"age": 63.0, "sex": "F"}}
    others = record(cohort, "SUBJ_001", quality={"nm": {"noise": 0.071}})
    folder = write_output(tmp_path / "out", [record(cohort, "SUBJ_000", **told), others])
    index = write_reports(folder, tmp_path / "in").read_text()
    html = page(folder, "SUBJ_000")
    for part in (
        "Image Voxel Matrix Field Scanner Sequence TR, TE Contrast to noise Noise Ghosts",
        "NM 0.67 × 0.67 × 2.00 mm 24 × 24 × 12 3 T &lt;script&gt;alert(1)&lt;/script&gt; GRE, MT",
        "50, 3.1 ms 4.2 0.031 of the tissue –",
        "QSM 0.67 × 0.67 × 2.00 mm 24 × 24 × 12 – – – – 2.0 7.500 ppb –",
        "Age 63 Sex F",
    ):
        assert part in words(html), part
    assert not any(text in html for text in ("1999", "Anna", "<script", "SUBJ_001"))
    assert "NM: Noise 0.031 SUBJ_000 0.051 0.071 SUBJ_001" in words(index)
    assert "Contrast to noise" not in words(index)  # of one subject there is no range
    write_reports(folder, tmp_path / "in", scan_date=True)
    html = page(folder, "SUBJ_000")
    assert "NM 0.67 × 0.67 × 2.00 mm 24 × 24 × 12 1999-12-31 3 T" in words(html)
    assert "23:58" not in html


@pytest.mark.parametrize(
    ("told", "facts"),
    [
        ({"EchoTime": [0.004, 0.008], "RepetitionTime": 0.05}, {"TR, TE": "50, 4 / 8 ms"}),
        ({"EchoTime": [0.004]}, {"TR, TE": "–, 4 ms"}),
        ({"RepetitionTime": 2, "EchoTime": "?"}, {"TR, TE": "2000, – ms"}),
        ({"ScanningSequence": ["GR", "MT"]}, {"Sequence": "GR, MT"}),
        ({"PulseSequenceType": [], "ScanningSequence": "GR"}, {"Sequence": "GR"}),
        ({"Manufacturer": ["A", "B"], "ManufacturersModelName": "M"}, {"Scanner": "A, B M"}),
        ({"MagneticFieldStrength": [3, 7.0]}, {"Field": "3 / 7 T"}),
        ({"MagneticFieldStrength": True, "Manufacturer": None}, {}),
        ({"Manufacturer": {"a": 1}, "EchoTime": [[1]]}, {}),
        ({"EchoTime": [0.004, 10**400], "RepetitionTime": math.inf}, {"TR, TE": "–, 4 ms"}),
        ({"MagneticFieldStrength": math.nan, "EchoTime": 0}, {}),
    ],
)
def test_a_scan_is_told_whatever_its_sidecar_holds_and_however_its_path_is_written(
    told, facts, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    anat = Path("study", "sub-1", "anat")
    anat.mkdir(parents=True)
    Path("study", "dataset_description.json").touch()
    Path("study", "NM.json").write_text(json.dumps(told))  # that the image inherits
    voxels = np.zeros((4, 3, 2), np.float32)
    found = scan_facts(Volume(path=anat / "sub-1_NM.nii.gz", stored=voxels, affine=np.eye(4)))
    plain = {"Voxel": "1.00 × 1.00 × 1.00 mm", "Matrix": "4 × 3 × 2"}
    assert found == plain | facts


@pytest.mark.parametrize("image", ["anna_NM", "[1]_NM", "**", "a-1_b_NM", "é NM"])
def test_a_sidecar_of_another_image_tells_nothing(image, tmp_path):
    volume = Volume(path=tmp_path / f"{image}.nii.gz", stored=np.zeros((2, 2, 2)), affine=np.eye(4))
    for other in ("otto_NM", "a-2_b_NM", "a-1_c_NM", "[2]_NM", "1_NM", "e NM", "anna_QSM"):
        (tmp_path / f"{other}.json").write_text('{"MagneticFieldStrength": 7}')
    assert "Field" not in scan_facts(volume)
    (tmp_path / f"{image}.json").write_text('{"MagneticFieldStrength": 3}')
    assert scan_facts(volume)["Field"] == "3 T"


def test_regions_are_headed_in_words_and_pictures_have_a_scale(cohort, tmp_path):
    boxes = {"qsm2": BOXES["qsm2"] | {"nuclei": ["STN", "SN", "RN"]}, "nm": BOXES["nm"]}
    folder = write_output(tmp_path / "out", [record(cohort, "SUBJ_000", boxes=boxes)])
    write_reports(folder, cohort)
    html = page(folder, "SUBJ_000")
    assert "Substantia nigra, neuromelanin nm" in words(html)
    heading = "Subthalamic nucleus, substantia nigra and red nucleus, susceptibility qsm2"
    assert heading in words(html)
    bars = re.findall(r'bar-mm" d="M([\d.]+) [\d.]+H([\d.]+)"/>\s*<text[^>]*>(\d+) mm<', html)
    assert len(bars) == html.count('<svg class="slice"')
    for start, stop, length in bars:  # pictures are drawn in mm
        assert float(stop) - float(start) == pytest.approx(float(length), abs=0.011)


def test_faults_of_one_kind_are_one_and_what_to_do_is_folded_away():
    flags = [
        f"qsm2: {side} {n} measures 1 x 1 x 4 mm, usual is 7 x 6 x 5 mm"
        for side in ("right", "left")
        for n in ("SN", "STN")
    ]
    flags += [
        "qsm1: left CN lies 17 mm from where other nuclei put it",
        "S QSM.nii.gz: 3 ppb; expected 60. Mend it (scl_slope. x). Then go on.",
    ]
    faults = faults_of(flags)
    assert [fault.found for fault in faults] == [
        "S QSM.nii.gz: 3 ppb; expected 60.",
        "2 kinds of nuclei have masks of an unusual size: substantia nigra, subthalamic nucleus",
        "qsm1: left caudate nucleus lies 17 mm from where other nuclei put it",
    ]
    assert [len(fault.rest) for fault in faults] == [1, 4, 0]
    assert "Mend it (scl_slope. x). Then go on." in faults[0].rest
    assert in_words("nm lacks right SN, left SN of SNR") == (
        "nm lacks right substantia nigra, left substantia nigra of SNR"
    )


LOOKS = {"nm": {"cells": [[1.0, 1.1]]}, "qsm2": {"cells": [[0.2, 1.8]]}}


@pytest.mark.parametrize(
    ("changes", "said", "unsaid"),
    [
        (
            {"attention": LOOKS},
            [
                *("nm slices 4, 5, 6 of 12", "attention map, strongest cell 1.8 × the mean"),
                *("It is much the same everywhere in nm.", "Nothing in qsm3 moved P(PD)."),
            ],
            ["map of weights", "nm, qsm2", "The references"],
        ),
        (
            {"attention": LOOKS, "weighed_by_mask": True, "references": {"HC": 5, "PD": 4}},
            [
                *("map of weights, strongest cell 1.8", "the mask draws as nucleus"),
                "The references are subjects of the training set of each fold: 5 HC, 4 PD.",
            ],
            ["attention", "Attention"],
        ),
        ({"attention": {}}, ["There are no attention maps"], ["map of weights", "everywhere"]),
    ],
)
def test_maps_are_called_what_they_are_and_what_all_share_is_said_once(
    changes, said, unsaid, cohort, tmp_path
):
    folder = write_output(tmp_path / "out", [record(cohort, "SUBJ_000")])
    still = {"occlusion": EXPLANATION["occlusion"] | {"qsm3": [[0.0]]}}
    file = folder / "subjects" / "SUBJ_000" / "explanation.json"
    file.write_text(json.dumps(EXPLANATION | still | changes))
    write_reports(folder, cohort)
    text = words(page(folder, "SUBJ_000"))
    assert [part for part in said if text.count(part) != 1] == []
    assert [part for part in unsaid if part in text] == []


def test_the_seconds_of_stages_are_all(cohort, tmp_path):
    timings = {"read": 0.25, "segment_nm": 2.0, "total": 3.0}
    folder = write_output(tmp_path / "out", [record(cohort, "SUBJ_000", timings_s=timings)])
    write_reports(folder, cohort)
    told = "Seconds: 3.00, of which read 0.25 · segment_nm 2.00 · other 0.75"
    assert told in words(page(folder, "SUBJ_000"))


def test_states_show_as_such(output):
    assert "The system abstains: no class is given." in words(page(output, "SUBJ_002"))
    assert "not found: hidden from the network" in words(page(output, "SUBJ_002"))
    assert "The network was trained on this subject" in words(page(output, "SUBJ_002"))
    assert "class PD" not in words(page(output, "SUBJ_002"))
    failed = words(page(output, "SUBJ_003"))
    assert "The prediction failed, see the flags." in failed
    assert "QSM: the image could not be read, see the flags." in failed
    assert "NM, slice" in failed
    assert "SUBJ_000/QSM.nii.gz not read" in failed
    assert "not above the threshold 0.5: class HC" in words(page(output, "SUBJ_001"))
    for subject, reason in {
        "SUBJ_001": "the subject was predicted without --report. mrn predict INPUT OUTPUT",
        "SUBJ_003": "the prediction failed.",
    }.items():
        assert "no Shapley values and occlusion maps: " in words(page(output, subject))
        assert reason in words(page(output, subject))
    assert "predicted without --report" not in failed
    assert "no Shapley values" not in words(page(output, "SUBJ_000"))


def test_a_printed_sheet_names_its_subject_and_no_name_gets_into_the_styles():
    css = environment().filters["css_text"]
    assert css("SUBJ 1") == r"SUBJ\20 1"
    assert not set('"}<') & set(css('a"}</style><script>'))


def test_no_text_of_a_subject_becomes_markup(output):
    for html in (page(output, "SUBJ_001"), page(output, "SUBJ_003")):
        assert "<script" not in html
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    index = (output / "index.html").read_text()
    assert index.count("<script") == 1  # our own
    assert environment().autoescape is True


def test_a_page_holds_all_that_it_shows(output):
    for path in output.rglob("*.html"):
        html = path.read_text()
        assert not re.findall(r"(?:src|href)=\"(?!data:|\.\./\.\./index|subjects/)[^\"]+", html)
        assert "http:" not in html
        assert "https:" not in html
        assert "@import" not in html
        assert "url(" not in html
        assert "default-src 'none'" in html
        assert path.stat().st_size < 5 * 1024**2
        assert html.count("<img") == html.count('alt="')
        assert html.count('<svg class="slice"') == html.count('role="img" aria-label="') - (
            html.count('<div class="scale" role="img"')
            + html.count('<div class="crowd" role="img"')
        )


def test_the_index_names_every_subject(output):
    html = (output / "index.html").read_text()
    for number in range(4):
        assert f'href="subjects/SUBJ_00{number}/report.html"' in html
    assert html.count("data:image/webp") == 7  # two images of three subjects, one of the failed
    assert 'alt="NM of SUBJ_003, middle slice"' in html
    assert "no QSM" in words(html)
    assert "4 subjects 2 complete 1 abstained 1 failed 2 flagged" in words(html)


def test_the_index_keeps_every_word_and_stays_small(cohort, tmp_path, monkeypatch):
    flag = "a long reason " * 40 + "its end"
    records = [record(cohort, f"SUBJ_00{number}", flags=[flag]) for number in range(3)]
    folder = write_output(tmp_path / "out", records)
    html = write_reports(folder, cohort).read_text()
    assert "its end" in words(html)  # for the search
    thumbs = [len(uri) for uri in re.findall(r"data:image/webp[^\"]+", html)]
    text = 3 * (1000 + 2 * len(flag))
    monkeypatch.setattr(index, "_MAX_BYTES", text + sum(thumbs[:4]))  # of two subjects
    html = write_reports(folder, cohort).read_text()
    assert html.count("data:image/webp") == 4
    assert "1 subject has no pictures here, since the page would be too large" in words(html)


def test_contours_are_those_of_the_regions_nuclei(cohort, tmp_path):
    """The red nucleus and the STN lie in the box too; the record says whose box it is."""
    box = BOXES["qsm2"] | {"nuclei": ["SN"]}
    folder = write_output(tmp_path / "out", [record(cohort, "SUBJ_000", boxes={"qsm2": box})])
    write_reports(folder, cohort)
    region = page(folder, "SUBJ_000").split('<div class="roi">')[1].split("</section>")[0]
    assert set(re.findall(r'outline n-(\w+)"', region)) == {"SN"}
    assert "contours of SN" in region


def test_what_cannot_be_made_afterwards_is_said(cohort, tmp_path, caplog):
    impossible = {"flags": ["no explanation: the network has no ROI tokens"]}
    records = [
        record(cohort, "SUBJ_000"),
        record(cohort, "SUBJ_001"),
        record(cohort, "SUBJ_002", **impossible),
        record(cohort, "SUBJ_003", status="abstained", prob_pd=None, prob_pd_folds=[]),
    ]
    folder = write_output(tmp_path / "out", records)
    write_reports(folder, cohort)
    warnings = [entry.getMessage() for entry in caplog.records if entry.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "1 of 4 pages lack Shapley values and occlusion maps" in warnings[0]
    assert "--resume True --report True" in warnings[0]
    assert "occlusion maps: the flags say why." in words(page(folder, "SUBJ_002"))
    assert "maps: the system gives no probability." in words(page(folder, "SUBJ_003"))


def test_a_page_says_what_made_it_and_nothing_of_others(cohort, tmp_path):
    folder = write_output(tmp_path / "out", [record(cohort, "SUBJ_000")])
    manifest = {
        "written": "2026-11-24T20:00:00+00:00",
        "settings": {
            "bundle": "mrn",
            "segmentation": "nuclei",
            "overrides": {"ckpt_path": "/home/anna/model.pt"},
        },
        "weights": {"models/model.pt": "cd" * 32},
        "segmentation": None,
        "device": "cpu",
        "inputs": {name: {"nm": "ef" * 32} for name in ("SUBJ_000", "SUBJ_001")},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    write_reports(folder, cohort)
    html = page(folder, "SUBJ_000")
    unfolded = words(re.sub(r"<details>.*?</details>", "", html, flags=re.DOTALL))
    assert (
        "Predicted 2026-11-24T20:00:00+00:00 · bundle mrn · weights models/model.pt cdcdcdcdcdcd… "
        "· computed on cpu"
    ) in unfolded
    assert "segmentation" not in words(html)  # it drew none of these masks
    assert "SUBJ_001" not in html  # pages are mailed one by one
    assert "/home/anna" not in html
    assert "anna/model.pt" in html


def test_a_subject_outside_the_folder_has_a_row_and_no_page(cohort, tmp_path):
    folder = write_output(tmp_path / "out", [record(cohort, "SUBJ_000")])
    with (folder / "predictions.csv").open("a") as file:
        file.write("../../x,failed,,a flag,=error\n")
    html = write_reports(folder, cohort).read_text()
    assert "../../x" in html
    assert html.count("report.html") == 1


def test_images_that_are_gone_are_named(cohort, tmp_path):
    folder = write_output(tmp_path / "out", [record(cohort, "SUBJ_000")])
    write_reports(folder, tmp_path)
    assert "NM.nii.gz: no such file; expected a NIfTI file." in words(page(folder, "SUBJ_000"))


@pytest.mark.parametrize("path", ["../secret/NM.nii.gz", "/etc/NM.nii.gz"])
def test_a_record_that_leads_out_of_the_input_is_refused(path, cohort, tmp_path):
    folder = write_output(tmp_path / "out", [record(cohort, "SUBJ_000")])
    file = folder / "subjects" / "SUBJ_000" / "prediction.json"
    content = json.loads(file.read_text())
    content["inputs"]["nm"]["path"] = path
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"SUBJ_000 names .* lies outside of INPUT"):
        write_reports(folder, cohort)


def test_a_broken_record_is_named(cohort, tmp_path):
    folder = write_output(tmp_path / "out", [record(cohort, "SUBJ_000")])
    (folder / "subjects" / "SUBJ_000" / "prediction.json").write_text("{")
    with pytest.raises(ValueError, match=r"prediction\.json is no JSON .*predict this subject"):
        write_reports(folder, cohort)
    with pytest.raises(FileNotFoundError, match="`mrn predict INPUT OUTPUT` writes"):
        write_reports(tmp_path / "none", cohort)


@pytest.mark.parametrize(
    ("scale", "window"),
    [
        ({"window": (-100, 250)}, (-100, 250)),
        ({}, (0, 1000)),  # the range of the whole image, as the network has it
        ({"percentiles": (0, 50)}, (0, 20)),
        ({"relative_window": (0.5, 1.5)}, (10, 30)),  # of the box
    ],
)
def test_a_whole_slice_has_the_window_of_the_image(scale, window):
    voxels = np.full((10, 10, 4), 1000.0, np.float32)
    voxels[:, :6] = 0
    voxels[:5, :5] = 10
    voxels[2:8, 2:8] = 20
    image = Image(file="T1", mask="T1_mask", nuclei={"SN": (1, 2)}, **scale)
    places = {"affine": np.eye(4), "path": Path("T1")}
    drawing = Drawing(image, Volume(stored=voxels, **places), Volume(stored=voxels * 0, **places))
    boxes = {"sn": Box(np.array([2, 2, 0]), np.array([8, 8, 4]))}
    assert drawing.overall_window(boxes) == pytest.approx(window)


@pytest.mark.parametrize("axes", ["RAS", "LAS", "PIR", "SPL"])
def test_every_orientation_gives_the_same_picture(axes, tmp_path):
    """A file of other axes: the same pixels, box and contours."""
    rng = np.random.default_rng(0)
    image = nibabel.Nifti1Image(rng.random((9, 8, 7), dtype=np.float32), np.diag([1, 2, 3, 1.0]))
    mask = nibabel.Nifti1Image(np.zeros((9, 8, 7), np.uint8), image.affine)
    mask.dataobj[5:8, 2:5, 3:5] = 1  # high x: the patient's right
    start, stop = np.array([4, 1, 2]), np.array([9, 6, 6])
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(axes)
    )
    paths = []
    for name, item in (("nm", image), ("mask", mask)):
        paths.append(tmp_path / f"{name}.nii.gz")
        nibabel.save(item.as_reoriented(turn), paths[-1])
    box = np.zeros((2, 3), int)
    for axis, (target, direction) in enumerate(turn.astype(int)):
        ends = (start[axis], stop[axis])
        size = image.shape[axis]
        box[:, target] = ends if direction > 0 else (size - ends[1], size - ends[0])
    file = read_volume(paths[0])
    volume, seen = file.canonical, read_volume(paths[1]).canonical
    found = canonical_box(*box, affine=file.affine, volume=volume)
    np.testing.assert_array_equal(found, (start, stop))
    picture = draw_slice(volume, seen, 3, nuclei={"SN": (1, 2)}, boxes={"nm": found}, window=(0, 1))
    frame = picture.frames[0]
    # The patient's right is on the left: the box begins where x is highest.
    assert (frame.left, frame.top, frame.width, frame.height) == (0, 4, 5, 10)
    points = np.array(re.findall(r"([\d.]+) ([\d.]+)", picture.outlines[0].path), dtype=float)
    # Half a pixel of the contour's corners is cut: x 5..8 of 9 columns, y 2..5 of 8 rows of 2 mm.
    np.testing.assert_allclose(points.min(0), (1, 6), atol=0.01)
    np.testing.assert_allclose(points.max(0), (4, 12), atol=0.01)


def test_the_patients_right_is_left_and_anterior_on_top():
    plane = np.zeros((3, 2))
    plane[2, 1] = 1  # right, anterior
    assert radiological(plane)[0, 0] == 1
    assert radiological(plane).shape == (2, 3)


def test_the_other_planes_have_superior_on_top_and_anterior_or_right_on_the_left():
    """A voxel of three: the rightmost, foremost, uppermost corner."""
    array = np.zeros((5, 4, 3), np.float32)
    array[4, 3, 2] = 1
    affine = np.diag([1, 2, 3, 1.0])
    image = Volume(path=Path("nm"), stored=array, affine=affine)
    mask = Volume(path=Path("mask"), stored=array.astype(np.uint8), affine=affine)
    box = Box(np.array([3, 2, 1]), np.array([5, 4, 3]))
    options = {"nuclei": {"SN": (1, 2)}, "boxes": {"nm": box}, "window": (0, 1)}
    planes = draw_planes(image, mask, **options)
    sizes = {"coronal": (5, 9, 5), "sagittal": (8, 9, 4)}  # mm, mm, number of the plane from 1
    for name, (width, height, _) in sizes.items():
        picture = planes[name]
        pixels = np.asarray(Pixels.open(io.BytesIO(base64.b64decode(picture.uri.split(",")[1]))))
        assert (pixels[0, 0], pixels.sum()) == (255, 255)
        assert (picture.width, picture.height) == (width, height)
        assert (picture.frames[0].left, picture.frames[0].top) == (0, 0)
    assert (planes["coronal"].number, planes["sagittal"].number) == (4, 5)
    assert (planes["coronal"].ends, planes["sagittal"].ends) == (("R", "L"), ("A", "P"))


def test_every_slice_of_a_region_can_be_scrolled_to(output):
    reel = page(output, "SUBJ_000").split('class="reel"')[1:]
    slices = [re.findall(r"<figcaption>slice (\d+) of 12<", each) for each in reel]
    # Boxes from 1 to 8, and from 0 to 8 of both regions of QSM, are counted from 1.
    assert slices == [[str(z) for z in range(2, 9)], [str(z) for z in range(1, 9)]]


def test_pictures_of_a_huge_matrix_shrink_and_nothing_in_them_moves(tmp_path):
    """A picture has at most 640 pixels a side; sizes in mm and contours are those of the volume."""
    array = np.zeros((1400, 1000, 1), np.float32)
    array[700:, 500:] = 1  # right, anterior
    affine = np.diag([0.2, 0.2, 2, 1])
    volume = Volume(path=Path("huge"), stored=array, affine=affine)
    seen = Volume(path=Path("mask"), stored=array.astype(np.uint8), affine=affine)
    picture = draw_slice(volume, seen, 0, nuclei={"SN": (1, 2)}, boxes={}, window=(0, 1))
    content = base64.b64decode(picture.uri.split(",")[1])
    pixels = np.asarray(Pixels.open(io.BytesIO(content)))
    assert pixels.shape == (457, 640)
    assert (picture.width, picture.height) == (280, 200)
    assert pixels[:228, :319].min() == 255
    assert pixels[230:, 321:].max() == 0
    points = np.array(re.findall(r"([\d.]+) ([\d.]+)", picture.outlines[0].path), dtype=float)
    np.testing.assert_allclose(points.max(0), (140, 100), atol=0.01)


def test_grey_survives_what_is_not_finite():
    pixels = grey(np.array([[np.nan, -np.inf, 0.0, 5.0, 20.0]]), (0, 10))
    assert pixels.tolist() == [[0, 0, 0, 128, 255]]


def test_published_values_are_read_from_their_texts():
    found = {
        column: list(published_values(reference))
        for column, published in references().items()
        for reference in published[:1]
    }
    unread = {column for column, values in found.items() if not values}
    assert unread == {"nm_contrast_ratio_right", "nm_contrast_ratio_left"}  # of two volunteers
    assert found["volume_mm3_CN_right"] == [("both", 3360, 3360, 3360)]
    assert found["nm_volume_mm3_left"] == [("hc", 322, 297, 347)]
    assert found["nigrosome_fraction_left"] == [
        ("hc", 0.107, 0.060, 0.216),
        ("pd", 0, 0, 0.0023),
    ]


def test_strips_place_values_in_proportion():
    values = {"nm_volume_mm3_left": 272.0, "nm_volume_mm3_right": None}
    rows = biomarker_rows(values, CHALLENGE_IMAGES)
    row = next(row for row in rows["SN"] if row.name == "Neuromelanin volume")
    right, left = row.lanes
    assert right.at is None
    mark = left.marks[0]  # 322, 297 to 347
    assert left.at < mark.low < mark.at < mark.high <= 100
    assert mark.low - left.at == pytest.approx(mark.at - mark.low, abs=0.05)  # both 25 mm3
    assert mark.text == "HC 322 (297 to 347)"
    assert row.in_numbers == ["HC 322 (297 to 347)"]  # the same for both sides
    sides = next(row for row in rows["SN"] if row.name == "Mean susceptibility").in_numbers
    assert [line.split(":")[0] for line in sides] == ["right", "left"]
    assert all("HC" in line and "PD" in line for line in sides)
    asymmetric = biomarker_rows({"asymmetry_volume_mm3_SN": -0.25}, CHALLENGE_IMAGES)["SN"][0]
    assert asymmetric.asymmetry == -0.25


@pytest.mark.parametrize("own", [{}, {"nm_volume_mm3_right": 9e3, "nm_volume_mm3_left": 1.0}])
def test_a_strip_has_the_axis_of_what_was_published_whoever_is_measured(own):
    rows = biomarker_rows(own, CHALLENGE_IMAGES)
    row = next(row for row in rows["SN"] if row.name == "Neuromelanin volume")
    assert [text for _, text in row.ticks] == ["100", "200", "300", "400", "500"]
    assert [at for at, _ in row.ticks] == [0, 25, 50, 75, 100]
    assert row.lanes[0].marks[0].at == pytest.approx(100 * (322 - 100) / 400, abs=0.01)
    beyond = [(lane.at, lane.beyond) for lane in row.lanes]
    assert beyond == ([(100, "high"), (0, "low")] if own else [(None, ""), (None, "")])


def test_every_strip_holds_its_published_values_between_few_round_ticks():
    for rows in biomarker_rows({}, CHALLENGE_IMAGES).values():
        for row in (row for row in rows if row.published):
            numbers = [float(text.replace("−", "-")) for _, text in row.ticks]
            assert 3 <= len(numbers) <= 6
            assert numbers == sorted(numbers)
            assert min(numbers) >= 0 or "ppb" in row.unit
            for mark in (mark for lane in row.lanes for mark in lane.marks):
                assert 0 <= mark.low <= mark.at <= mark.high <= 100


def test_a_cohort_page_shows_figures_models_and_folds(tmp_path):
    truth = np.arange(40) % 2
    rng = np.random.default_rng(0)
    probs = [np.clip(rng.normal(0.35 + 0.3 * truth, 0.2), 0, 1) for _ in range(2)]
    folders = [write_predictions(tmp_path / n, p) for n, p in zip("ab", probs, strict=True)]
    labels = tmp_path / "labels.csv"
    labels.write_text("".join(f"S{i:02d},{label}\n" for i, label in enumerate(truth)))
    folder = evaluate(folders[0], labels, against=folders[1], names=["A", EVIL])
    html = (folder / "report.html").read_text()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert html.count("data:image/svg+xml") == 5
    assert f"{metrics['roc_auc']['value']:.3f} ROC AUC" in words(html)
    assert f"{metrics['against']['roc_auc']['value']:.3f}" in html
    assert metrics["comparison"]["accuracy"]["verdict"] in html
    assert "<script" not in html
    folds = [diagnosis_metrics(probs[0][k::2], np.array([0, 1] * 10)) for k in range(2)]
    summary = {name: {"mean": 0.123, "sd": 0.045} for name in folds[0]}
    content = {"folds": folds, "summary": summary, "overall": folds[0], "note": "Chosen so."}
    html = write_cohort_report(folder, crossval=content).read_text()
    assert "Fold 0 Fold 1 Mean (SD)" in words(html)
    assert "0.123 (0.045)" in words(html)
    assert "trained on it. Chosen so." in words(html)


def test_a_cross_validation_gets_its_page(tmp_path):
    path = write_cross_validation(tmp_path)
    assert path == tmp_path / "evaluation" / "report.html"
    text = words(path.read_text())
    assert "Cross-validation of mrn" in text
    assert "Fold 0 Fold 1" in text
    assert "predicted by a network that was not trained on it" in text


def test_the_command_names_the_index(cohort, tmp_path, capsys, monkeypatch):
    folder = write_output(tmp_path / "out", [record(cohort, "SUBJ_000")])
    monkeypatch.setattr("sys.argv", ["mrn", "report", str(folder), str(cohort)])
    cli.main()
    assert f"reports (research use only): {folder / 'index.html'}" in capsys.readouterr().out


# ---- calibrated probabilities and sets


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (["PD"], "only PD fits at 90 %"),
        (["HC", "PD"], "uncertain: HC and PD fit at 90 %"),
        ([], "unlike the training: no class fits at 90 %"),
    ],
)
def test_pages_show_the_calibrated_probability_and_the_set_in_words(
    cohort, tmp_path, members, said
):
    calibrated = {"prob_pd_calibrated": 0.61, "prob_pd_calibrated_folds": [0.55, 0.67]}
    own = record(cohort, "SUBJ_000", **calibrated, set=members, set_level=0.9)
    folder = write_output(tmp_path / "out", [own, record(cohort, "SUBJ_001", prob_pd=0.2)])
    write_reports(folder, cohort)
    text = words(page(folder, "SUBJ_000"))
    assert "P(PD), calibrated 0.61 the network's own P(PD) is 0.70, above the threshold" in text
    assert "Folds 0.55 to 0.67" in text
    assert said in text
    assert "No diagnosis; research use only." in text
    assert "Shapley values of the network's own P(PD): from 0.50" in text
    listed = words((folder / "index.html").read_text())
    assert "P(PD), calibrated of all subjects" in listed
    assert f"0.61 {said}" in listed
    plain = words(page(folder, "SUBJ_001"))
    assert "calibrated" not in plain
    assert "at 90 %" not in plain


def test_pages_of_a_score_show_its_interval(cohort, tmp_path):
    target = Score(name="updrs", unit="points", range=[0, 60])
    own = {"updrs": 40.0, "updrs_folds": [38.0, 42.0], "updrs_calibrated": 33.5}
    own |= {"updrs_low": 21.25, "updrs_high": 45.0, "set_level": 0.9}
    row = record(cohort, "SUBJ_000", **own)
    for name in ("class", "fold_agreement"):
        del row[name]
    folder = write_output(tmp_path / "out", [row], explained=())
    (folder / "predictions.csv").write_text("subject,status,updrs\nSUBJ_000,ok,40\n")
    write_target(folder, target)
    write_reports(folder, cohort)
    text = words(page(folder, "SUBJ_000"))
    assert "33.50 on a scale from 0 to 60; the network's own updrs (points) is 40.00" in text
    assert "21.25 to 45.00 at 90 %" in text
    assert "The interval of about 90 of 100 subjects holds their updrs (the thin line), if" in text
    assert "33.50 21.25 to 45.00 at 90 %" in words((folder / "index.html").read_text())
