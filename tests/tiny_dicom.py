"""DICOM studies written from NIfTI-like volumes, as scanners write them."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_series(
    folder: Path,
    voxels: np.ndarray,
    affine: np.ndarray,
    *,
    study: Dataset,
    number: int,
    description: str,
    types=("ORIGINAL", "PRIMARY", "M", "ND"),
    slopes=(1.0,),
    inter: float = 0.0,
    **fields,
) -> list[Path]:
    """Write voxels (X, Y, Z) as a file a slice; slopes are taken in turn, as Philips has them.

    Columns run along the first axis and rows along the second, so that both are DICOM's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lps = RAS_TO_LPS @ affine
    steps = np.linalg.norm(lps[:3, :3], axis=0)
    axes = lps[:3, :3] / steps
    uid = generate_uid()
    paths = []
    for z in range(voxels.shape[2]):
        slope = slopes[z % len(slopes)]
        stored = np.rint((voxels[:, :, z] - inter) / slope)
        assert np.abs(stored).max() < 2**15
        one = Dataset()
        one.update(study)
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = MR
        one.SOPInstanceUID = generate_uid()
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        one.Modality, one.SeriesInstanceUID, one.SeriesNumber = "MR", uid, number
        one.SeriesDescription, one.ProtocolName = description, description
        one.ImageType, one.InstanceNumber, one.AcquisitionNumber = list(types), z + 1, 1
        one.SeriesDate, one.SeriesTime = "20240102", "101112"
        one.ImagePositionPatient = [float(f"{v:.6f}") for v in (lps @ [0, 0, z, 1])[:3]]
        directions = [*axes[:, 0], *axes[:, 1]]
        one.ImageOrientationPatient = [float(f"{value:.8f}") for value in directions]
        one.PixelSpacing = [float(f"{steps[1]:.6f}"), float(f"{steps[0]:.6f}")]
        one.SliceThickness = one.SpacingBetweenSlices = float(f"{steps[2]:.6f}")
        one.Rows, one.Columns = voxels.shape[1], voxels.shape[0]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
        one.RescaleSlope, one.RescaleIntercept = f"{slope:.10g}", f"{inter:.10g}"
        one.EchoTime, one.RepetitionTime, one.MagneticFieldStrength = 5.0, 30.0, 3.0
        for name, value in fields.items():
            setattr(one, name, value)
        one.PixelData = stored.astype("<i2").T.tobytes()  # rows of columns
        path = folder / f"{number:02d}_{z:03d}.dcm"
        one.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def write_enhanced(
    path: Path,
    voxels: np.ndarray,
    affine: np.ndarray,
    *,
    study: Dataset,
    number: int,
    description: str,
    types=("ORIGINAL", "PRIMARY", "M", "NONE"),
    slopes=(1.0,),
    unit: str = "US",
) -> Path:
    """Write voxels (X, Y, Z) as one file of the class Enhanced MR, a frame a slice.

    Several slopes are taken in turn, and stand with each frame; one stands with all.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lps = RAS_TO_LPS @ affine
    steps = np.linalg.norm(lps[:3, :3], axis=0)
    axes = lps[:3, :3] / steps
    one = Dataset()
    one.update(study)
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = ENHANCED_MR
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    one.Modality, one.SeriesInstanceUID, one.SeriesNumber = "MR", generate_uid(), number
    one.SeriesDescription, one.ProtocolName = description, description
    one.ImageType, one.InstanceNumber, one.AcquisitionNumber = list(types), 1, 1
    one.SeriesDate, one.SeriesTime = "20240102", "101112"
    one.ContentDate, one.ContentTime = "20240102", "101112"
    one.ContentQualification, one.ResonantNucleus = "RESEARCH", "1H"
    one.MagneticFieldStrength, one.BurnedInAnnotation = 3.0, "NO"
    one.LossyImageCompression, one.PresentationLUTShape = "00", "IDENTITY"
    one.Rows, one.Columns, one.NumberOfFrames = voxels.shape[1], voxels.shape[0], voxels.shape[2]
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
    organization, index = Dataset(), Dataset()
    organization.DimensionOrganizationUID = generate_uid()
    index.DimensionOrganizationUID = organization.DimensionOrganizationUID
    index.DimensionIndexPointer, index.FunctionalGroupPointer = 0x00209057, 0x00209111
    one.DimensionOrganizationSequence, one.DimensionIndexSequence = [organization], [index]
    one.DimensionOrganizationType = "3D"
    shared = Dataset()
    shared.PixelMeasuresSequence = [
        _item(
            PixelSpacing=[float(f"{steps[1]:.6f}"), float(f"{steps[0]:.6f}")],
            SliceThickness=float(f"{steps[2]:.6f}"),
            SpacingBetweenSlices=float(f"{steps[2]:.6f}"),
        )
    ]
    directions = [float(f"{value:.8f}") for value in (*axes[:, 0], *axes[:, 1])]
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=directions)]
    shared.MREchoSequence = [_item(EffectiveEchoTime=5.0)]
    shared.MRTimingAndRelatedParametersSequence = [_item(RepetitionTime=30.0, FlipAngle=15.0)]
    shared.MRImageFrameTypeSequence = [
        _item(
            FrameType=list(types),
            PixelPresentation="MONOCHROME",
            VolumetricProperties="VOLUME",
            VolumeBasedCalculationTechnique="NONE",
            ComplexImageComponent="MAGNITUDE",
            AcquisitionContrast="UNKNOWN",
        )
    ]
    scales = [
        _item(RescaleIntercept="0", RescaleSlope=f"{slope:.10g}", RescaleType=unit)
        for slope in slopes
    ]
    if len(slopes) == 1:
        shared.PixelValueTransformationSequence = scales
    one.SharedFunctionalGroupsSequence = [shared]
    frames = []
    stored = np.empty(voxels.shape)
    for z in range(voxels.shape[2]):
        place = [float(f"{value:.6f}") for value in (lps @ [0, 0, z, 1])[:3]]
        content = _item(
            StackID="1",
            InStackPositionNumber=z + 1,
            DimensionIndexValues=[z + 1],
            FrameAcquisitionNumber=1,
        )
        frame = _item(FrameContentSequence=[content])
        frame.PlanePositionSequence = [_item(ImagePositionPatient=place)]
        if len(slopes) > 1:
            frame.PixelValueTransformationSequence = [scales[z % len(slopes)]]
        stored[:, :, z] = np.rint(voxels[:, :, z] / slopes[z % len(slopes)])
        frames.append(frame)
    one.PerFrameFunctionalGroupsSequence = frames
    assert np.abs(stored).max() < 2**15
    one.PixelData = stored.astype("<i2").T.tobytes()  # frames of rows of columns
    one.save_as(path, enforce_file_format=True)
    return path


def _item(**fields) -> Dataset:
    item = Dataset()
    for name, value in fields.items():
        setattr(item, name, value)
    return item


def make_study(patient: str, date: str = "20240102", vendor: str = "SIEMENS") -> Dataset:
    """What all files of a study share."""
    study = Dataset()
    study.PatientID, study.PatientName = patient, f"Name^{patient}"
    study.PatientBirthDate, study.PatientSex = "19600101", "O"
    study.StudyInstanceUID, study.FrameOfReferenceUID = generate_uid(), generate_uid()
    study.StudyDate, study.StudyTime, study.StudyID = date, "101010", "1"
    study.AccessionNumber, study.ReferringPhysicianName = "A1", ""
    study.Manufacturer, study.ManufacturerModelName = vendor, "Model"
    study.PositionReferenceIndicator, study.PatientPosition = "", "HFS"
    return study
