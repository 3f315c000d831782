"""DICOM studies written from NIfTI-like volumes, as scanners write them."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

MR = "1.2.840.10008.5.1.4.1.1.4"
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
