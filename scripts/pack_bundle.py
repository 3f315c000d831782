#!/usr/bin/env python
"""Pack a bundle into one zip that needs neither this repository nor an installed mrn-components.

    python scripts/pack_bundle.py mrn --run bundles/mrn/runs/fold0   # what a training run made
    python scripts/pack_bundle.py mrn                                # bundles/mrn/models/model.pt
    python scripts/pack_bundle.py mrn --random_weights               # untrained, to try it out

The zip holds the weights, the configs that they were trained with (YAML with the bundle's comments,
and JSON), what these need of the package mrn_components, requirements.txt, two synthetic subjects,
large_files.yml and hashes of all files. Its card and metadata are written from the weights and
their records. It is proved before it is kept: unpacked elsewhere, a Python without this package
does what the card says, and the sample gets the same probabilities.
"""

import argparse
import shutil
import tempfile
import warnings
import zipfile
from pathlib import Path

from mrn_components.system.errors import install_messages
from mrn_components.system.logs import start_logs

if __name__ == "__main__":  # before the imports of which torch warns
    install_messages()
    start_logs()

from mrn_components.app.inspect import check_data
from mrn_components.app.packing.card import numbers_of, study_of, write_readme
from mrn_components.app.packing.configs import take_configs, write_marks, write_twins
from mrn_components.app.packing.evaluation import find_metrics
from mrn_components.app.packing.metadata import RANDOM, UNKNOWN, write_metadata
from mrn_components.app.packing.package import copy_package
from mrn_components.app.packing.proof import prove
from mrn_components.app.packing.sample import SampleRun, make_sample, run_sample
from mrn_components.app.packing.weights import (
    make_random_weights,
    take_weights,
    write_large_files,
)
from mrn_components.system.files import replacing
from mrn_components.system.hashes import file_hash, write_hashes

ROOT = Path(__file__).resolve().parent.parent
NAMES = {  # of zips: what the bundle does with what, as the Model Zoo names its own
    "mrn": "parkinson_qsm_nm_classification",
    "seres10": "parkinson_qsm_nm_seres10_classification",
    "segmentation": "nuclei_qsm_nm_segmentation",
}


def assemble(name: str, folder: Path, args: argparse.Namespace) -> SampleRun | None:
    """Make the bundle's folder with all that goes into the zip.

    Args:
        name: of the bundle in ``bundles/``.
        folder: where, not yet there.
        args: of the command line.

    Returns:
        What the weights say of the sample, if the zip is to be proved.
    """
    if args.run is not None:
        check_data(args.run)
    metrics = None if args.metrics is None else find_metrics(args.metrics)
    bundle = ROOT / "bundles" / name
    shutil.copytree(bundle / "configs", folder / "configs")
    shutil.copyfile(bundle / "LICENSE", folder / "LICENSE")
    if args.run is not None:
        take_configs(args.run, folder / "configs")
    write_marks(folder / "configs")
    write_twins(folder / "configs")
    copy_package(folder)
    run = None if args.random_weights else args.run  # random numbers are of no run
    source = args.weights or (args.run or bundle) / "models"
    if args.random_weights:
        make_random_weights(folder, safetensors=args.safetensors)
    else:
        take_weights(folder, source, run, safetensors=args.safetensors)
    write_large_files(folder, args.url)
    make_sample(folder)
    study = study_of(folder, metrics, source, run)
    numbers = numbers_of(study, metrics, source, run)
    data = args.data or (RANDOM if args.random_weights else UNKNOWN)
    write_metadata(folder, study=study, metrics=numbers, data=data)
    sample = None if args.no_proof else run_sample(folder)
    write_readme(folder, study=study, data=data, numbers=numbers, sample=sample, run=run)
    write_hashes(folder)
    return sample


def write_zip(folder: Path, path: Path) -> None:
    """Zip ``folder`` under its own name; the same files give the same bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                entry = zipfile.ZipInfo(f"{folder.name}/{file.relative_to(folder).as_posix()}")
                is_weights = file.parent.name == "models"  # which do not shrink
                entry.compress_type = zipfile.ZIP_STORED if is_weights else zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16
                entry.file_size = file.stat().st_size
                with archive.open(entry, "w") as to, file.open("rb") as source:
                    shutil.copyfileobj(source, to)


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=sorted(NAMES))
    parser.add_argument("--run", type=Path, help="folder of the training run to pack")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--weights", type=Path, help="folder of weights to pack instead")
    weights.add_argument("--random_weights", action="store_true", help="weights never trained")
    parser.add_argument(
        "--metrics",
        type=Path,
        help="metrics.json of `mrn evaluate`, of predictions by these weights, or masks.json of "
        "`mrn evaluate_masks`; or the folder that holds it",
    )
    parser.add_argument(
        "--data", help='sentence: what was trained on, and its licence ("Phantoms; Apache-2.0.")'
    )
    parser.add_argument("--url", default="", help="where the weights will be downloaded from")
    parser.add_argument("--safetensors", action="store_true", help="the weights in this form, too")
    parser.add_argument(
        "--output", type=Path, help="the zip, after which its folder is named; default in dist/"
    )
    parser.add_argument("--no_proof", action="store_true", help="do not run the packed bundle")
    args = parser.parse_args(arguments)
    if args.random_weights and args.metrics is not None:
        parser.error("--metrics are of trained weights; leave it out with --random_weights")
    path = args.output or ROOT / "dist" / f"{NAMES[args.name]}.zip"
    if path.suffix != ".zip":
        parser.error(f"--output {path} must end with .zip: its folder is named after it")
    warnings.filterwarnings("ignore", category=UserWarning)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / path.stem
        sample = assemble(args.name, folder, args)
        (packed := Path(temporary) / "zip" / path.name).parent.mkdir()
        write_zip(folder, packed)
        if sample is not None:
            (proof := Path(temporary) / "proof").mkdir()
            prove(packed, proof, sample.table)
        with replacing(path) as unfinished:
            shutil.copyfile(packed, unfinished)
    print(f"{path}: {path.stat().st_size / 2**20:.0f} MB, sha256 {file_hash(path)}")
    if args.data is None and not args.random_weights:
        print(f"Its card says: {UNKNOWN} Name them by --data.")


if __name__ == "__main__":
    main()
