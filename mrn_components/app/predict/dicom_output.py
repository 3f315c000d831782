"""Masks and biomarkers as DICOM objects in the study of the input: a SEG an image and one SR."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mrn_components
from mrn_components.app.records import Record, mask_file
from mrn_components.biomarkers import Biomarker, biomarkers_of
from mrn_components.data import Subject
from mrn_components.data.dicom import Sources
from mrn_components.data.series import lacking_package, pydicom_module
from mrn_components.images.image import Image
from mrn_components.images.volume import Volume, read_volume
from mrn_components.regions.drawn import read_file
from mrn_components.system.files import replacing

_logger = logging.getLogger(__name__)

FOLDER = "dicom"
_NOTE = "RESEARCH USE ONLY"
_SCHEME = "99MRN"  # of codes that no standard has
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's axes from those of NIfTI, and back
_MODEL = {"manufacturer": "mrn-components", "manufacturer_model_name": f"MRN, {_NOTE.lower()}"}
_SERIES = 9000  # number of the first series that is written
# SNOMED CT; pydicom's dictionary has no others of ours.
_NUCLEI = {
    "CN": ("11000004", "Caudate nucleus"),
    "PUT": ("89278009", "Putamen"),
    "GP": ("14738005", "Globus pallidus"),
    "TH": ("42695009", "Thalamus"),
    "SN": ("70007007", "Substantia nigra"),
}
_SIDE_CODES = {"right": ("24028007", "Right"), "left": ("7771000", "Left")}
_UNITS = {
    "mm3": ("mm3", "cubic millimeter"),
    "ppb": ("[ppb]", "part per billion"),
    "ppm": ("[ppm]", "part per million"),
    "arbitrary": ("[arb'U]", "arbitrary unit"),
}


def highdicom_module() -> Any:
    """Import highdicom, or say how it is installed."""
    try:
        import highdicom
        import highdicom.seg
        import highdicom.sr
    except ImportError as error:
        raise lacking_package("highdicom") from error
    logging.getLogger("highdicom").setLevel(logging.WARNING)  # it tells of each attribute
    return highdicom


def check_sources(sources: Sources, layout: str) -> None:
    """Refuse, by a ValueError, to write into studies where there are none, or without highdicom."""
    if not sources:
        raise ValueError(
            f"--dicom True writes into the studies of the input, and INPUT is no DICOM ({layout}); "
            "name a folder of DICOM studies, or leave it out."
        )
    highdicom_module()


def clear_study(output_dir: Path, subject: str) -> None:
    """Remove the objects of an earlier prediction of a subject."""
    for path in (output_dir / FOLDER / subject).glob("*.dcm"):
        path.unlink()


def write_studies(
    output_dir: Path,
    records: Sequence[Record],
    subjects: Sequence[Subject],
    sources: Sources,
    images: Mapping[str, Image],
) -> list[str]:
    """Write ``dicom/SUBJECT/{NM_seg,QSM_seg,biomarkers_sr}.dcm`` of the subjects with masks.

    Returns:
        Why some could not be written, a line a subject.
    """
    by_name = {subject["subject"]: subject for subject in subjects}
    problems = []
    for record in records:
        name = record["subject"]
        if record["status"] == "failed" or not record["mask_source"]:
            continue
        try:
            _write_study(output_dir, record, by_name[name], sources.get(name, {}), images)
        except Exception as error:  # whatever a scanner's header brings about
            _logger.debug("subject %s", name, exc_info=True)
            problems.append(f"{name}: no DICOM of its masks: {error}")
    return problems


def _write_study(
    output_dir: Path,
    record: Record,
    subject: Subject,
    files: Mapping[str, Sequence[Path]],
    images: Mapping[str, Image],
) -> None:
    pydicom = pydicom_module()
    folder = output_dir / FOLDER / record["subject"]
    evidence, segmentations = [], {}
    for number, (name, image) in enumerate(images.items()):
        made = mask_file(output_dir, record["subject"], image)
        path = made if made.is_file() else subject.get(image.mask_name)
        if name in files and name in record["mask_source"] and path is not None:
            source = [pydicom.dcmread(file) for file in files[name]]
            automatic = record["mask_source"][name] != "given"
            one = {image.name: image}
            mask = read_volume(path) if automatic else read_file(image.mask_name, path, one)[0]
            segmentation = segment_objects(
                source, mask, image, automatic=automatic, number=_SERIES + number
            )
            if segmentation is not None:
                _save(segmentation, folder / f"{image.file}_seg.dcm")
                evidence += [*source, segmentation]
                segmentations[name] = segmentation
    if segmentations:
        report = report_objects(evidence, segmentations, record["biomarkers"], images)
        _save(report, folder / "biomarkers_sr.dcm")


def _save(dataset: Any, path: Path) -> None:
    with replacing(path) as temporary:
        dataset.save_as(temporary)


def segment_objects(
    source: Sequence[Any], mask: Volume, image: Image, *, automatic: bool, number: int
) -> Any | None:
    """Return a mask as a DICOM segmentation of its series, a segment a nucleus and side.

    Args:
        source: the datasets of the series, of one frame each or one of all.
        mask: on the grid of the series, in any order of the axes.
        image: what the ids of the mask are.
        automatic: whether a program drew it.
        number: of the new series.

    Returns:
        The segmentation; None of an empty mask.

    Raises:
        ValueError: for a mask on another grid.
    """
    hd, uid = highdicom_module(), pydicom_module().uid.generate_uid
    grid = hd.get_volume_from_series(source) if len(source) > 1 else _frames(hd, source[0])
    ids = _on_grid(mask, grid.affine, grid.spatial_shape)
    there = [number for number in sorted(image.ids) if (ids == number).any()]
    if not there:
        return None
    table = np.zeros(256, np.uint8)
    table[there] = np.arange(1, len(there) + 1)
    described = [
        _segment(hd, place, *image.ids[number], automatic=automatic)
        for place, number in enumerate(there, start=1)
    ]
    frame = grid.frame_of_reference_uid
    return hd.seg.Segmentation(
        source_images=source,
        pixel_array=hd.Volume(table[ids], grid.affine, "PATIENT", frame_of_reference_uid=frame),
        segmentation_type="BINARY",
        segment_descriptions=described,
        series_instance_uid=uid(),
        series_number=number,
        sop_instance_uid=uid(),
        instance_number=1,
        **_MODEL,
        software_versions=mrn_components.__version__,
        device_serial_number="0",
        content_label="RESEARCH",
        content_description=f"Nuclei on {image.title}, {_NOTE.lower()}",
        series_description=f"MRN nuclei on {image.title}, {_NOTE}",
    )


def _frames(hd: Any, dataset: Any) -> Any:
    """Return the volume of a file that holds all slices."""
    return hd.image.Image.from_dataset(dataset).get_volume()


def _on_grid(mask: Volume, affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return a mask's ids on the axes of its series: slices, rows, columns."""
    step = np.linalg.inv(mask.affine) @ _LPS @ affine  # from voxels of the series to the mask's
    turn = np.rint(step[:3, :3]).astype(int)
    order = np.abs(turn).argmax(axis=0)
    if sorted(order) != [0, 1, 2] or not np.allclose(step[:3, :3], turn, atol=0.01):
        raise ValueError(f"{mask.path.name} does not lie on the axes of its series")
    ids = mask.ids.transpose(order)
    flips = [turn[order[axis], axis] < 0 for axis in range(3)]
    ids = np.flip(ids, tuple(axis for axis in range(3) if flips[axis]))
    first = np.where([turn[axis].min() < 0 for axis in range(3)], np.array(mask.shape) - 1, 0)
    if ids.shape != tuple(shape) or not np.allclose(step[:3, 3], first, atol=0.05):
        raise ValueError(f"{mask.path.name} has another place or size than its series")
    return np.ascontiguousarray(ids)


def _segment(hd: Any, number: int, nucleus: str, side: str, *, automatic: bool) -> Any:
    concept = hd.sr.CodedConcept
    kind = _nucleus(hd, nucleus)
    algorithm = hd.AlgorithmIdentificationSequence(
        name="mrn predict",
        family=concept("123109", "DCM", "Artificial Intelligence"),
        version=mrn_components.__version__,
        source="mrn-components",
    )
    segment = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=f"{side} {nucleus}",
        segmented_property_category=concept("123037004", "SCT", "Anatomical Structure"),
        segmented_property_type=kind,
        algorithm_type="AUTOMATIC" if automatic else "MANUAL",
        algorithm_identification=algorithm if automatic else None,
        tracking_uid=pydicom_module().uid.generate_uid(),
        tracking_id=f"{side} {nucleus}",
    )
    modifier = [concept(_SIDE_CODES[side][0], "SCT", _SIDE_CODES[side][1])]
    kinds = segment.SegmentedPropertyTypeCodeSequence
    kinds[0].SegmentedPropertyTypeModifierCodeSequence = modifier
    return segment


def _nucleus(hd: Any, nucleus: str) -> Any:
    if nucleus in _NUCLEI:
        value, meaning = _NUCLEI[nucleus]
        return hd.sr.CodedConcept(value, "SCT", meaning)
    return hd.sr.CodedConcept(nucleus[:16], _SCHEME, f"Nucleus {nucleus}"[:64])


def report_objects(
    evidence: Sequence[Any],
    segmentations: Mapping[str, Any],
    biomarkers: Mapping[str, float | None],
    images: Mapping[str, Image],
) -> Any:
    """Return biomarkers as a structured report (TID 1500) that refers to the segments.

    Args:
        evidence: the datasets of the images, and the segmentations.
        segmentations: by image.
        biomarkers: what ``measure_nuclei`` returned.
        images: what was measured.
    """
    hd, uid = highdicom_module(), pydicom_module().uid.generate_uid
    concept = hd.sr.CodedConcept
    device = hd.sr.ObserverContext(
        observer_type=concept("121007", "DCM", "Device"),
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=uid(), name=f"mrn-components, {_NOTE}"
        ),
    )
    families = [one for one in biomarkers_of(images) if one.image in segmentations]
    groups = []
    for name, segmentation in segmentations.items():
        own = [one for one in families if one.image == name and "{side}" in one.pattern]
        for number, (nucleus, side) in _segments(segmentation, images[name]).items():
            measurements = [
                _measurement(hd, family, value)
                for family in own
                if nucleus in family.nuclei
                if (value := biomarkers.get(family.column(nucleus, side))) is not None
            ]
            if measurements:
                groups.append(_group(hd, segmentation, number, (nucleus, side), measurements))
    groups += _compared(hd, families, biomarkers)
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=device),
        procedure_reported=concept("24590-2", "LN", "MR Brain"),
        imaging_measurements=groups,
        title=concept("126000", "DCM", "Imaging Measurement Report"),
    )
    return hd.sr.Comprehensive3DSR(
        evidence=evidence,
        content=report,
        series_instance_uid=uid(),
        series_number=_SERIES + len(images),
        sop_instance_uid=uid(),
        instance_number=1,
        manufacturer=_MODEL["manufacturer"],
        series_description=f"MRN biomarkers, {_NOTE}",
    )


def _segments(segmentation: Any, image: Image) -> dict[int, tuple[str, str]]:
    """Return {number of the segment: (nucleus, side)}."""
    by_label = {f"{side} {nucleus}": (nucleus, side) for nucleus, side in image.ids.values()}
    return {
        int(one.SegmentNumber): by_label[one.SegmentLabel] for one in segmentation.SegmentSequence
    }


def _group(
    hd: Any, segmentation: Any, number: int, key: tuple[str, str], measurements: Sequence[Any]
) -> Any:
    """Return what was measured in a segment."""
    nucleus, side = key
    laterality = hd.sr.CodedConcept(_SIDE_CODES[side][0], "SCT", _SIDE_CODES[side][1])
    segment = segmentation.SegmentSequence[number - 1]
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(segment.TrackingUID, segment.TrackingID),
        referenced_segment=hd.sr.ReferencedSegment.from_segmentation(segmentation, number),
        finding_type=_nucleus(hd, nucleus),
        finding_sites=[hd.sr.FindingSite(_nucleus(hd, nucleus), laterality=laterality)],
        measurements=measurements,
    )


def _compared(
    hd: Any, families: Sequence[Biomarker], biomarkers: Mapping[str, float | None]
) -> list[Any]:
    """Return what compares the sides, which belongs to no segment."""
    uid = pydicom_module().uid.generate_uid
    return [
        hd.sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=hd.sr.TrackingIdentifier(uid(), family.column(nucleus)),
            finding_type=_nucleus(hd, nucleus),
            finding_sites=[hd.sr.FindingSite(_nucleus(hd, nucleus))],
            measurements=[_measurement(hd, family, value)],
        )
        for family in families
        if "{side}" not in family.pattern
        for nucleus in family.nuclei
        if (value := biomarkers.get(family.column(nucleus))) is not None
    ]


def _measurement(hd: Any, family: Biomarker, value: float) -> Any:
    unit, meaning = _UNITS.get(family.unit, ("1", "no units"))
    if family.kind == "volume":
        name = hd.sr.CodedConcept("118565006", "SCT", "Volume")
    else:
        words = family.pattern.replace("_{nucleus}", "").replace("_{side}", "")
        name = hd.sr.CodedConcept(f"{family.kind[:7]}_{family.image}"[:16], _SCHEME, words[:64])
    code = hd.sr.CodedConcept(unit, "UCUM", meaning)
    return hd.sr.Measurement(name=name, value=float(value), unit=code)
