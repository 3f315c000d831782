#!/usr/bin/env python
"""Pack a bundle into one zip that needs neither this repository nor an installed mrn-components.

    python scripts/pack_bundle.py mrn --run bundles/mrn/runs/fold0   # what a training run made
    python scripts/pack_bundle.py mrn                                # bundles/mrn/models/model.pt
    python scripts/pack_bundle.py mrn --random_weights               # untrained, to try it out

The zip holds the bundle with its weights (also as safetensors), JSON beside every YAML, the package
mrn_components, requirements.txt, large_files.yml and hashes of all files. It is proved before it is
kept: unpacked elsewhere, it predicts synthetic subjects by Python without this package.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.bundle import ConfigParser
from packaging.requirements import Requirement
from safetensors.torch import save_file

from mrn_components.app.merging import copy_weights
from mrn_components.bundle import bundle_config, mark_run, unfrozen_config
from mrn_components.data.ledger import RECORDS, read_record
from mrn_components.system.files import replacing
from mrn_components.system.hashes import LARGE_FILES, file_hash, write_hashes

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "mrn-components"
_SKIP = shutil.ignore_patterns("__pycache__", "cache", "runs", "eval", "models")


def assemble(name: str, folder: Path, args: argparse.Namespace) -> None:
    """Make the bundle's folder with all that goes into the zip.

    Args:
        name: of the bundle in ``bundles/``.
        folder: where, not yet there.
        args: of the command line.
    """
    shutil.copytree(ROOT / "bundles" / name, folder, ignore=_SKIP)
    shutil.copytree(ROOT / "mrn_components", folder / "mrn_components", ignore=_SKIP)
    if args.run is not None:
        take_configs(args.run, folder / "configs")
    write_marks(folder / "configs")
    write_twins(folder / "configs")
    write_metadata(folder, args.metrics)
    take_weights(folder, args)
    write_hashes(folder)


def take_configs(run: Path, configs: Path) -> None:
    """Put the configs that a run was trained with, and that predict with it, in the bundle's place.

    Folders of this machine (``--dataset_dir /data/patients``) are nobody else's: they stay out.

    Raises:
        FileNotFoundError: if ``run`` is no folder of a run.
    """
    for name in ("train", "inference"):
        own = ConfigParser.load_config_file(str(configs / f"{name}.yaml"))
        config = ConfigParser.load_config_file(str(bundle_config(run, name)))
        if name == "inference":
            config = unfrozen_config(config)  # `take_weights` merges adapters
        for key, value in config.items():
            if _names_folder(value):
                config[key] = own.get(key)
        text = yaml.safe_dump(config, sort_keys=False, width=100)
        (configs / f"{name}.yaml").write_text(f"# As run {run.name} was trained.\n{text}")
    for plan in (run / "configs").glob("plan_*.json"):  # of nnU-Net
        shutil.copyfile(plan, configs / plan.name)


def _names_folder(value: Any) -> bool:
    """Whether a value of a config holds an absolute path."""
    if isinstance(value, dict | list):
        return any(map(_names_folder, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and Path(value).is_absolute()


def write_marks(configs: Path) -> None:
    """Mark the complete configs as those of this zip, so that they never find another's weights."""
    paths = [configs / "train.yaml", configs / "inference.yaml"]
    contents = [ConfigParser.load_config_file(str(path)) for path in paths]
    mark_run(contents)
    for path, content in zip(paths, contents, strict=True):
        line = f"bundle_root: {json.dumps(content['bundle_root'])}"
        text = path.read_text()
        path.write_text(re.sub(r"^bundle_root:.*(?:\n .*)*", line, text, flags=re.MULTILINE))


def write_twins(configs: Path) -> None:
    """Write JSON beside every YAML: ``monai.bundle.load`` and federated learning read no other."""
    for path in sorted(configs.glob("*.yaml")):
        config = ConfigParser.load_config_file(str(path))
        path.with_suffix(".json").write_text(json.dumps(config, indent=2) + "\n")


def write_metadata(folder: Path, metrics: Path | None) -> None:
    """Complete the metadata, and write the packages that it names into ``requirements.txt``."""
    path = folder / "configs" / "metadata.json"
    content = json.loads(path.read_text())
    content["required_packages_version"].pop(PACKAGE, None)  # it is in the bundle
    if metrics is not None:
        content["eval_metrics"]["measured"] = json.loads(metrics.read_text())
    path.write_text(json.dumps(content, indent=2) + "\n")
    (folder / "requirements.txt").write_text("\n".join(requirements(content)) + "\n")


def requirements(content: Mapping[str, Any]) -> list[str]:
    """The pins of a bundle's metadata, as the Model Zoo's CI installs them."""
    pins = {
        "monai": content["monai_version"],
        "torch": content["pytorch_version"],
        "numpy": content["numpy_version"],
        **content["required_packages_version"],
    }
    return [f"{name}=={version}" for name, version in pins.items()]


def weight_files(folder: Path) -> dict[str, dict[str, str]]:
    """Return the names of a bundle's weight files, and what chooses the network of each.

    Args:
        folder: of the bundle; one whose config has an ``image`` has a network for each image.
    """
    parser = ConfigParser(ConfigParser.load_config_file(str(bundle_config(folder, "inference"))))
    if "image" not in parser:
        return {"model.pt": {}}
    files = {}
    for image in parser["images"]:
        parser.update({"bundle_root": str(folder), "image": image})
        files[Path(parser.get_parsed_content("ckpt_path")).name] = {"image": image}
    return files


def take_weights(folder: Path, args: argparse.Namespace) -> None:
    """Put weights that fit the networks into ``models/``, and name them in ``large_files.yml``.

    Raises:
        FileNotFoundError: if there are none.
        ValueError: if they are of another network.
    """
    (folder / "models").mkdir()
    source = args.weights or (args.run or ROOT / "bundles" / args.name) / "models"
    if not args.random_weights and not (source / "model.pt").is_file():
        raise FileNotFoundError(
            f"{source}/model.pt is not there; name a training run by --run, a folder of weights by "
            "--weights, or try the packing with --random_weights."
        )
    for file, overrides in weight_files(folder).items():
        target = folder / "models" / file
        if args.random_weights:
            torch.save(build_network(folder, overrides).state_dict(), target)
        elif (source / file).is_file():
            copy_weights(source / file, target, args.run or folder)
            check_weights(target, build_network(folder, overrides), source / file)
    for path in [] if args.random_weights else source.glob("model_fold*.pt"):  # of an ensemble
        copy_weights(path, folder / "models" / path.name, args.run or folder)
    for path in sorted((folder / "models").glob("*.pt")):
        save_safetensors(path)
    entries = [
        {
            "path": f"models/{path.name}",
            "url": f"{args.url.rstrip('/')}/{path.name}" if args.url else "",
            "hash_type": "sha256",
            "hash_val": file_hash(path),
        }
        for path in sorted((folder / "models").iterdir())
    ]
    (folder / LARGE_FILES).write_text(yaml.safe_dump({"large_files": entries}, sort_keys=False))


def build_network(folder: Path, overrides: Mapping[str, Any]) -> torch.nn.Module:
    """The network of a bundle's inference config."""
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    parser.update({"bundle_root": str(folder), **overrides})
    return parser.get_parsed_content("network_def")


def check_weights(path: Path, network: torch.nn.Module, source: Path) -> None:
    """Refuse weights of another network.

    Raises:
        ValueError: naming the run as the way out.
    """
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except RuntimeError as error:
        reason = " ".join(str(error).split()[:24])  # one of perhaps hundreds of tensors
        raise ValueError(
            f"{source} does not fit the bundle's network ({reason} ...); if a run trained it with "
            "other settings, name the run's folder by --run."
        ) from error


def save_safetensors(checkpoint: Path) -> None:
    """Write the tensors of a checkpoint beside it, with the records that it carries."""
    weights = torch.load(checkpoint, map_location="cpu", weights_only=True)
    records = {
        name.removesuffix(".json"): json.dumps(record)
        for name in RECORDS
        if (record := read_record(checkpoint, name)) is not None
    }
    save_file(
        {name: tensor.contiguous().clone() for name, tensor in weights.items()},
        checkpoint.with_suffix(".safetensors"),
        {"format": "pt", **records},
    )


def write_zip(folder: Path, path: Path) -> None:
    """Zip ``folder`` under its own name; the same files give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished, zipfile.ZipFile(unfinished, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                entry = zipfile.ZipInfo(f"{folder.name}/{file.relative_to(folder).as_posix()}")
                is_weights = file.parent.name == "models"  # which do not shrink
                entry.compress_type = zipfile.ZIP_STORED if is_weights else zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16
                entry.file_size = file.stat().st_size
                with archive.open(entry, "w") as to, file.open("rb") as source:
                    shutil.copyfileobj(source, to)


def prove(path: Path, folder: Path) -> None:
    """Unpack the zip into the empty ``folder`` and predict synthetic subjects with it.

    Python runs without its site-packages: it sees links to the packages that requirements.txt
    names, to what these require, and nothing else.

    Raises:
        RuntimeError: with the end of the output, if it does not work.
    """
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    bundle = folder / path.stem
    site = link_packages(
        (bundle / "requirements.txt").read_text().split(), folder / "site-packages"
    )
    if run(["-c", "import mrn_components"], folder, site).returncode == 0:
        raise RuntimeError(f"{PACKAGE} is visible without the bundle, so nothing would be proved.")
    cohort, results = folder / "cohort", folder / "results"
    for command in (
        [
            *["-m", "mrn_components.app.cli", "phantom", str(cohort)],
            *["--subjects", "2", "--view", "midbrain", "--workers", "1"],
        ],
        [
            *["-m", "monai.bundle", "run", "--config_file", "configs/inference.yaml"],
            *["--dataset_dir", str(cohort), "--output_dir", str(results), "--num_workers", "0"],
        ],
    ):
        done = run(command, bundle, site)
        if done.returncode:
            raise RuntimeError(
                f"the packed bundle fails in `python {' '.join(command)}`:\n{done.stdout[-3000:]}"
            )
    files = sorted(str(file.relative_to(results)) for file in results.rglob("*") if file.is_file())
    if not files:
        raise RuntimeError(f"the packed bundle wrote nothing:\n{done.stdout[-3000:]}")
    print(f"Proved: unpacked elsewhere, without {PACKAGE}, it wrote {', '.join(files)}")


def run(arguments: list[str], folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in ``folder`` with the packages in ``site`` alone."""
    return subprocess.run(
        [sys.executable, "-S", "-s", "-W", "ignore", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def link_packages(required: list[str], site: Path) -> Path:
    """Fill ``site`` with links to the installed files of packages and of what they require."""
    site.mkdir()
    todo, done = [Requirement(line) for line in required], set()
    while todo:
        requirement = todo.pop()
        key = (requirement.name.lower(), *sorted(requirement.extras))
        try:
            package = metadata.distribution(requirement.name)
        except metadata.PackageNotFoundError:
            continue  # what really lacks shows when the bundle runs
        if key in done:
            continue
        done.add(key)
        for file in package.files or ():
            link = site / file.parts[0]
            if file.parts[0] != ".." and not link.exists():
                link.symlink_to(Path(str(package.locate_file(file.parts[0]))))
        for line in package.requires or ():
            child = Requirement(line)
            extras = [{"extra": extra} for extra in (*requirement.extras, "")]
            if child.marker is None or any(child.marker.evaluate(extra) for extra in extras):
                todo.append(child)
    return site


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = sorted(path.name for path in (ROOT / "bundles").iterdir() if path.is_dir())
    parser.add_argument("name", choices=names)
    parser.add_argument("--run", type=Path, help="folder of the training run to pack")
    parser.add_argument("--weights", type=Path, help="folder of weights to pack instead")
    parser.add_argument("--random_weights", action="store_true", help="weights never trained")
    parser.add_argument("--metrics", type=Path, help="metrics.json of `mrn evaluate`, for the card")
    parser.add_argument("--url", default="", help="where the weights will be downloaded from")
    parser.add_argument("--output", type=Path, help="the zip; default dist/NAME.zip")
    parser.add_argument("--no_proof", action="store_true", help="do not run the packed bundle")
    args = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", category=UserWarning)
    path = args.output or ROOT / "dist" / f"{args.name}.zip"
    with tempfile.TemporaryDirectory() as temporary:
        assemble(args.name, Path(temporary) / args.name, args)
        packed = Path(temporary) / "zip" / f"{args.name}.zip"
        write_zip(Path(temporary) / args.name, packed)
        if not args.no_proof:
            (proof := Path(temporary) / "proof").mkdir()
            prove(packed, proof)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(packed, path)
    print(f"{path}: {path.stat().st_size / 2**20:.0f} MB, sha256 {file_hash(path)}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"{error}")
