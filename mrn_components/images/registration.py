"""Rigid alignment of two images of one head, by mutual information.

No voxel is resampled: what is found is where an image lies in the world of another one. SimpleITK,
which comes with nnU-Net, does the search; it takes half a second to import.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813  as all of its documentation writes it
from scipy import ndimage

from mrn_components.images.alignment import Alignment
from mrn_components.images.volume import Volume

_NEAR_MM = 55.0  # about the nuclei: the brainstem, the basal ganglia and the cisterns
_ROOM_MM = 20.0  # that the other image shows beyond it, to move in
_DEEP_MM = 45.0  # about the nuclei, for the last shift,
_RIM_MM = 4.0  # and so far from the outline of the brain
_BINS = 32
_SAMPLES = 50_000  # voxels that are compared in a step
_GRID_MM = 1.5  # of the points that are compared in the last shift
_WINDOW = (1.0, 99.0)  # percentiles where values are cut, so that the few bins hold the rest
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's world, of NIfTI's

# Blur and distance of the voxels, the longest step of the search, all in mm; the finer looks near
# the nuclei alone, where the images must agree.
_COARSE = ((3.0, 4.0, 2.0), (1.0, 1.3, 1.0))
_FINE = (0.5, 0.0, 0.5)


def align(
    moving: Volume,
    fixed: Volume,
    *,
    near: np.ndarray,
    through: Volume | None = None,
    begin: np.ndarray | None = None,
) -> Alignment:
    """Find where an image lies in the world of another one, up to a rotation and a shift.

    All that both show is compared first, blurred, then what lies within 55 mm of a point. It is
    the voxels of ``moving`` that are compared, so that it may be a thin or tilted slab, and those
    outside the other's field of view do not count.

    Args:
        moving: the image that may lie elsewhere.
        fixed: the other one.
        near: point in the world of ``fixed``, in mm, about which they should agree.
        through: a third image of this head, which shares more with either than they do.
        begin: what ``matrix`` of another alignment is, (4, 4): the search begins there, without its
            coarsest level. None begins where the files say, and once more without that level where
            it led astray, so that the images agree less than before.

    Raises:
        ValueError: for images that do not overlap, or show nothing to compare.
    """
    chain = [fixed, *([] if through is None else [through]), moving]
    matrix, place = np.eye(4), near
    for to, of in pairwise(chain):
        link = _register(of, to, place, begin)
        matrix, place = matrix @ link, _at(np.linalg.inv(link), place)
    with _explained(moving, fixed):
        before, after = (_cost(moving, fixed, m, place) for m in (np.eye(4), matrix))
    if after >= before and begin is None:
        return align(moving, fixed, near=near, through=through, begin=np.eye(4))
    return Alignment(matrix=matrix, cost_before=before, cost_after=after)


def _register(
    of: Volume, to: Volume, near: np.ndarray, begin: np.ndarray | None = None
) -> np.ndarray:
    """Find the map (4, 4) from the world of an image to that of another."""
    matrix = np.eye(4) if begin is None else begin
    with _explained(of, to):
        for blur, step, longest in _COARSE[begin is not None :]:
            mine, other = _image(of, blur, step), _image(to, blur, step)
            matrix = _search(mine, other, matrix, longest, _metric(mine, None, sampled=True))
        blur, step, longest = _FINE
        place = _at(np.linalg.inv(matrix), near)
        mine = _image(of, blur, step, place, _NEAR_MM)
        mask = sitk.Cast(_distance(mine, place) < _NEAR_MM, sitk.sitkUInt8)
        other = _image(to, blur, step, near, _NEAR_MM + _ROOM_MM)
        matrix = _search(mine, other, matrix, longest, _metric(mine, mask, sampled=True))
        return _shift(of, to, near, matrix)


def _shift(of: Volume, to: Volume, near: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Improve the shift of a map alone, by what lies inside the brain, as sharp as it is.

    The outline of the brain, cut out of QSM, tells how an image is turned. But a slab shows more of
    it below the nuclei than above, which draws the shift to one side.
    """
    place = _at(np.linalg.inv(matrix), near)
    mine = _image(of, 0.0, 0.0, place, _DEEP_MM)
    other = _image(to, 0.0, 0.0, near, _DEEP_MM + _ROOM_MM)
    deep = sitk.Resample(_inside(other), mine, _transform(matrix, mine), sitk.sitkNearestNeighbor)
    deep *= sitk.Cast(_distance(mine, place) < _DEEP_MM, sitk.sitkUInt8)
    if not sitk.GetArrayViewFromImage(deep).any():
        return matrix
    method = _metric(mine, deep, sampled=False)
    method.SetOptimizerWeights([0.0] * 3 + [1.0] * 3)  # of angles, of shifts
    # Points anywhere between the slices of both: the more voxels of one lie on those of the other,
    # the less interpolation blurs them, which is no matter of how well they agree.
    count = int(2 * _DEEP_MM / _GRID_MM)
    origin = _at(_LPS, place) - (count - 1) / 2 * _GRID_MM
    method.SetVirtualDomain(
        [count] * 3, origin.tolist(), [_GRID_MM] * 3, np.eye(3).ravel().tolist()
    )
    return _search(mine, other, matrix, 0.5, method)


def _inside(image: Any) -> Any:
    """Return 1 where a voxel of an image of ITK lies 4 mm within the brain, outside of which is 0.

    A value may be 0 by chance, so that one voxel of twenty around it may.
    """
    shown = (sitk.GetArrayViewFromImage(image) != 0).astype(np.float32)
    size = np.maximum(np.rint(2 * _RIM_MM / np.array(image.GetSpacing()[::-1])), 1).astype(int)
    share = ndimage.uniform_filter(shown, tuple(size.tolist()), mode="nearest")
    mask = sitk.GetImageFromArray((share > 0.95).astype(np.uint8))
    mask.CopyInformation(image)
    return mask


def _search(mine: Any, other: Any, matrix: np.ndarray, longest: float, method: Any) -> np.ndarray:
    """Improve the map (4, 4) between the worlds of two images of ITK."""
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=longest,
        minStep=0.01,
        numberOfIterations=60,
        relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-8,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    transform = _transform(matrix, mine)
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(mine, other)
    return _matrix(transform)


def _cost(moving: Volume, fixed: Volume, matrix: np.ndarray, place: np.ndarray) -> float:
    """Compare what the images show near a point of the moving one."""
    blur, step, _ = _FINE
    mine = _image(moving, blur, step, place, _NEAR_MM)
    mask = sitk.Cast(_distance(mine, place) < _NEAR_MM, sitk.sitkUInt8)
    method = _metric(mine, mask, sampled=False)
    method.SetInitialTransform(_transform(matrix, mine))
    return float(method.MetricEvaluate(mine, _image(fixed, blur, step)))


def _metric(mine: Any, mask: Any, *, sampled: bool) -> Any:
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetInterpolator(sitk.sitkLinear)
    # By default ITK follows gradients of images that it blurs by the thickness of a slice, and they
    # lead past what agrees best.
    method.MetricUseMovingImageGradientFilterOff()
    if mask is not None:
        method.SetMetricFixedMask(mask)
    if sampled:
        count = mine.GetNumberOfPixels()
        if mask is not None:
            count = int(sitk.GetArrayViewFromImage(mask).sum())
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentage(min(1.0, _SAMPLES / max(count, 1)), 1)
    return method


def _image(
    volume: Volume,
    blur_mm: float,
    step_mm: float,
    near: np.ndarray | None = None,
    radius_mm: float = 0.0,
) -> Any:
    """Return what ITK compares of a volume: blurred, every n-th voxel, all or what is near."""
    box, affine = _box(volume, near, radius_mm), volume.affine.copy()
    affine[:3, 3] = _at(affine, np.array([axis.start for axis in box]))
    voxels = np.nan_to_num(volume.values(box), nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)
    if (shown := voxels[voxels != 0]).size:  # 0 is the outside of the brain in QSM
        voxels = np.clip(voxels, *np.percentile(shown, _WINDOW))
    spacing = volume.spacing_mm
    voxels = ndimage.gaussian_filter(voxels, blur_mm / spacing, truncate=3.0)
    every = np.maximum(np.rint(step_mm / spacing), 1).astype(int)
    image = sitk.GetImageFromArray(voxels[tuple(slice(None, None, n) for n in every)].T)
    lps = _LPS @ affine
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetSpacing((spacing * every).tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    return image


def _box(volume: Volume, near: np.ndarray | None, radius_mm: float) -> tuple[slice, ...]:
    """Return the part of a volume that holds a sphere; a ValueError says that none does."""
    if near is None:
        return tuple(slice(0, length) for length in volume.shape)
    inverse = np.linalg.inv(volume.affine)
    reach = radius_mm * np.linalg.norm(inverse[:3, :3], axis=1)
    middle = _at(inverse, near)
    start = np.clip(np.floor(middle - reach), 0, volume.shape).astype(int)
    stop = np.clip(np.ceil(middle + reach) + 1, 0, volume.shape).astype(int)
    if (stop - start).min() < 1:
        raise ValueError(f"{volume.path.name} shows nothing within {radius_mm:.0f} mm of it")
    return tuple(map(slice, start.tolist(), stop.tolist()))


def _distance(image: Any, place: np.ndarray) -> Any:
    """Return how far every voxel of an image of ITK lies from a point of NIfTI's world, in mm."""
    source = sitk.PhysicalPointSource(
        sitk.sitkVectorFloat32,
        image.GetSize(),
        image.GetOrigin(),
        image.GetSpacing(),
        image.GetDirection(),
    )
    x, y, z = _at(_LPS, place).tolist()
    axes = (sitk.VectorIndexSelectionCast(source, axis) - at for axis, at in enumerate((x, y, z)))
    return sitk.Sqrt(sum(axis * axis for axis in axes))


def _transform(matrix: np.ndarray, image: Any) -> Any:
    """Return ITK's transform of a map of NIfTI's worlds, turning about the image's middle."""
    lps = _LPS @ matrix @ _LPS
    middle = np.array(
        image.TransformContinuousIndexToPhysicalPoint([n / 2 for n in image.GetSize()])
    )
    transform = sitk.Euler3DTransform()
    transform.SetCenter(middle.tolist())
    transform.SetMatrix(lps[:3, :3].ravel().tolist(), 1e-5)
    transform.SetTranslation((_at(lps, middle) - middle).tolist())
    return transform


def _matrix(transform: Any) -> np.ndarray:
    """Return the map (4, 4) of NIfTI's worlds that a transform of ITK stands for."""
    lps, middle = np.eye(4), np.array(transform.GetCenter())
    lps[:3, :3] = np.reshape(transform.GetMatrix(), (3, 3))
    lps[:3, 3] = middle + transform.GetTranslation() - lps[:3, :3] @ middle
    return _LPS @ lps @ _LPS


def _at(matrix: np.ndarray, point: np.ndarray) -> np.ndarray:
    return matrix[:3, :3] @ point + matrix[:3, 3]


@contextmanager
def _explained(of: Volume, to: Volume) -> Iterator[None]:
    """Let ITK compute the same bits every time, and say in our words what it cannot compare."""
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # several add up in any order
    try:
        yield
    except RuntimeError as error:
        raise ValueError(
            f"{of.path.name} and {to.path.name} cannot be aligned, because they do not overlap or "
            "show nothing to compare; look at their affines."
        ) from error
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
