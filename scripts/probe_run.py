"""Ask a trained run what it uses, and what it makes of images with other voxels.

    python scripts/probe_run.py regions RUN DATA
    python scripts/probe_run.py shapley RUN DATA
    python scripts/probe_run.py voxels RUN DATA --subjects 12

DATA are labelled subjects in the challenge's folders, with masks; RUN tells HC from PD.
``regions`` gives every subject one subject's region and prints how far the ROC AUC falls.
``shapley`` prints each region's mean Shapley value of HC and of PD, compared with zeros and with
the references in the weights, how well the values tell the classes, and the same with the region of
a subject of the other class. ``voxels`` resamples images and masks and prints how far P(PD) moves,
and how many are flagged.
"""

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel
import numpy as np
from nibabel.affines import rescale_affine, voxel_sizes
from nibabel.processing import resample_from_to
from sklearn.metrics import roc_auc_score

from mrn_components.app.predict import inference_workflow, predict
from mrn_components.app.predict.classifier import Classifier
from mrn_components.app.roi_game import roi_shapley
from mrn_components.data import load_subjects
from mrn_components.data.predictions import read_predictions
from mrn_components.data.tables import files_of
from mrn_components.networks.masking import StateMode

DONORS = 2  # first subjects, whose regions the others get
# Sides of the voxels, of which None stays: pixels from right to left, from front to back; slices.
VOXELS = ((0.5, 2.0, None), (2.0, 0.5, None), (0.67, 1.34, None), (None, None, 1.0))


def main() -> None:
    """Parse the command line and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("probe", choices=("regions", "shapley", "voxels"))
    for name in ("run", "data"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--subjects", type=int, default=12, help="of voxels: the first ones")
    args = parser.parse_args()
    if args.probe == "regions":
        print(replace_regions(args.run, args.data))
    elif args.probe == "shapley":
        print(explain_regions(args.run, args.data))
    else:
        print(resample_images(args.run, args.data, args.subjects))


def replace_regions(run: Path, data: Path) -> str:
    """A row a region: the ROC AUC with each donor's region for everybody, and the mean fall."""
    classifier, crops, labels = cropped(run, data)

    def auc(changed: list) -> float:
        answers = [classifier.classify(classifier.ask(each)) for each in changed]
        return roc_auc_score(labels, [answer["prob_pd"] for answer in answers])

    whole = auc(crops)
    lines = [f"{len(crops)} subjects, ROC AUC {whole:.3f}", "", "| region | ROC AUC | fall |"]
    lines.append("|---|---|---|")
    for roi in classifier.rois:
        falls = [auc([with_region(each, donor, roi) for each in crops]) for donor in crops[:DONORS]]
        each = ", ".join(f"{value:.3f}" for value in falls)
        lines.append(f"| {roi} | {each} | {whole - np.mean(falls):.3f} |")
    return "\n".join(lines)


def explain_regions(run: Path, data: Path) -> str:
    """A row a region: mean Shapley values of HC and PD, and how well a value alone tells them."""
    classifier, crops, labels = cropped(run, data)
    others = []  # of each subject the next one of the other class, in a circle
    for number, label in enumerate(labels):
        after = [*range(number + 1, len(labels)), *range(number)]
        others.append(next(i for i in after if labels[i] != label))

    def explained(mode: StateMode, changed: list) -> list[dict[str, float]]:
        states = [classifier.states(classifier.ask(each), mode) for each in changed]
        lead = classifier.target.lead
        return [roi_shapley(each[lead], tuple(classifier.rois)) for each in states]

    own = [explained(mode, crops) for mode in ("voxels", "reference")]
    head = "| region |" + "".join(
        f" {name}: HC, PD | ROC AUC |" for name in ("zeros", "references", "exchanged")
    )
    lines = [f"{len(crops)} subjects", "", head, "|---|---|---|---|---|---|---|"]
    for roi in classifier.rois:
        pairs = zip(crops, others, strict=True)
        exchanged = [with_region(each, crops[other], roi) for each, other in pairs]
        cells = []
        for found in (*own, explained("reference", exchanged)):
            values = np.array([each[roi] for each in found])
            means = [values[np.equal(labels, label)].mean() for label in (0, 1)]
            cells.append(", ".join(f"{mean:+.3f}" for mean in means))
            cells.append(f"{roc_auc_score(labels, values):.3f}")
        lines.append(f"| {roi} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cropped(run: Path, data: Path) -> tuple[Classifier, list[dict], list[int]]:
    """The network of a run, and the crops and labels of labelled subjects."""
    with TemporaryDirectory() as folder:
        classifier = Classifier(inference_workflow(str(data), folder, bundle=str(run)))
    subjects = load_subjects(data)
    labels = [subject.pop("label") for subject in subjects]
    return classifier, [classifier.crop(subject) for subject in subjects], labels


def with_region(crops: dict, donor: dict, roi: str) -> dict:
    """Crops with one region of another subject."""
    return crops | {key: donor[key] for key in (roi, f"mask_{roi}")}


def resample_images(run: Path, data: Path, count: int) -> str:
    """A row a size of voxels: the greatest and the mean move of P(PD), and who is flagged."""
    subjects = load_subjects(data)[:count]
    lines = ["| voxels, mm | greatest move | mean move | over 0.05 | of these flagged |"]
    lines.append("|---|---|---|---|---|")
    with TemporaryDirectory() as folder:
        names = ("given", *map(str, range(len(VOXELS))))
        found = []
        for name, sides in zip(names, ((None,) * 3, *VOXELS), strict=True):
            for subject in subjects:
                for path in map(Path, files_of(subject).values()):
                    resample(path, sides, Path(folder, name, subject["subject"], path.name))
            out = Path(folder, f"{name}-predicted")
            found.append(read_predictions(predict(Path(folder, name), out, bundle=run)))
            if name == "given":
                continue
            moves = {key: abs(value - found[0][key]) for key, value in found[-1].items()}
            far = [key for key, move in moves.items() if move > 0.05]
            records = [(out / "subjects" / key / "prediction.json").read_text() for key in far]
            flagged = sum(bool(json.loads(record)["flags"]) for record in records)
            shown = " x ".join("as given" if side is None else f"{side:g}" for side in sides)
            values = np.array([*moves.values()])
            lines.append(
                f"| {shown} | {values.max():.3f} | {values.mean():.3f} | {len(far)} | {flagged} |"
            )
    return "\n".join(lines)


def resample(source: Path, sides: tuple[float | None, ...], target: Path) -> None:
    """Write an image with linear, a mask with nearest interpolation."""
    image = nibabel.load(source)
    now = voxel_sizes(image.affine)
    new = [old if side is None else side for side, old in zip(sides, now, strict=True)]
    shape = np.ceil(np.array(image.shape) * now / new).astype(int)
    affine = rescale_affine(image.affine, image.shape, new, shape)
    is_mask = "mask" in source.name
    values = np.asarray(image.dataobj, dtype=np.float32)
    plain = nibabel.Nifti1Image(values, image.affine)
    resampled = resample_from_to(plain, (shape, affine), order=0 if is_mask else 1)
    values = resampled.get_fdata(dtype=np.float32)
    target.parent.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(values.astype(np.uint8) if is_mask else values, affine).to_filename(target)


if __name__ == "__main__":
    main()
