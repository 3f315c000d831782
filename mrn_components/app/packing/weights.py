"""The weights of a packed bundle: checked, named with their hashes, each tensor once."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.bundle import ConfigParser
from monai.utils import ensure_tuple
from safetensors.torch import save_file

from mrn_components.app.calibration import CALIBRATION, read_calibration
from mrn_components.app.packing.configs import parsed, trained_run
from mrn_components.app.packing.merging import copy_weights
from mrn_components.bundle import bundle_config
from mrn_components.data.crop_sizes import check_crop_sizes, crop_sizes
from mrn_components.data.weight_records import CROP_SIZES, RECORDS, append_record, read_record
from mrn_components.system.files import weights_hash, write_text
from mrn_components.system.hashes import LARGE_FILES


def weight_files(folder: Path) -> dict[str, dict[str, str]]:
    """Return the names of a bundle's weight files, and what chooses the network of each.

    Args:
        folder: of the bundle; one whose config has an ``image`` has a network for each image, an
            ensemble has several files of one network.
    """
    parser = ConfigParser(ConfigParser.load_config_file(str(bundle_config(folder, "inference"))))
    if "image" not in parser:
        parser.update({"bundle_root": str(folder)})
        paths = ensure_tuple(parser.get_parsed_content("ckpt_path"))
        return {Path(path).name: {} for path in paths}
    files = {}
    for image in parser["images"]:
        parser.update({"bundle_root": str(folder), "image": image})
        files[Path(parser.get_parsed_content("ckpt_path")).name] = {"image": image}
    return files


def packed_files(folder: Path) -> dict[str, dict[str, str]]:
    """Return what ``weight_files`` does, of the files that are there."""
    files = weight_files(folder).items()
    return {file: chosen for file, chosen in files if (folder / "models" / file).is_file()}


def take_weights(
    folder: Path, source: Path, run: Path | None = None, *, safetensors: bool = False
) -> None:
    """Put weights that fit the networks into ``models/``.

    Args:
        folder: of the packed bundle.
        source: folder of the weights.
        run: folder of the run that trained them, or of the ensemble, if it is known.
        safetensors: write them in this form, too.

    Raises:
        FileNotFoundError: if there are none.
        ValueError: if they are damaged, of another network, or of crops of another size.
    """
    (folder / "models").mkdir()
    files = weight_files(folder)
    # Of several images that of model.pt is enough, which other programs take.
    needed = ["model.pt"] if "model.pt" in files else list(files)
    missing = [file for file in needed if not (source / file).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{source}/{missing[0]} is not there; name a training run by --run, a folder of "
            "weights by --weights, or try the packing with --random_weights."
        )
    trained = folder if run is None else trained_run(run)
    for file, overrides in files.items():
        target = folder / "models" / file
        if (source / file).is_file():
            copy_weights(source / file, target, trained)
            check_weights(target, build_network(folder, overrides), source / file)
    made = [folder / "models" / file for file in packed_files(folder)]
    calibration = source / CALIBRATION
    # A calibration names the hashes of its weights, to which no record can be added.
    _say_sizes(folder, made, of_run=run is not None and not calibration.is_file())
    if calibration.is_file() and _is_of(calibration, made):
        shutil.copyfile(calibration, folder / "models" / CALIBRATION)
    for path in made if safetensors else []:
        save_safetensors(path)


def make_random_weights(folder: Path, *, safetensors: bool = False) -> None:
    """Put weights that nobody trained into ``models/``."""
    (folder / "models").mkdir()
    for file, overrides in weight_files(folder).items():
        torch.save(build_network(folder, overrides).state_dict(), folder / "models" / file)
        if safetensors:
            save_safetensors(folder / "models" / file)


def _is_of(calibration: Path, files: list[Path]) -> bool:
    """Whether a calibration was fitted to these weights, which merged adapters are not."""
    return set(read_calibration(calibration).weights) == set(map(weights_hash, files))


def write_large_files(folder: Path, url: str) -> None:
    """Write ``large_files.yml``, from which MONAI downloads what a repository does not hold."""
    entries = [
        {
            "path": f"models/{path.name}",
            "url": f"{url.rstrip('/')}/{path.name}" if url else "",
            "hash_type": "sha256",
            "hash_val": weights_hash(path),
        }
        for path in sorted((folder / "models").iterdir())
    ]
    write_text(folder / LARGE_FILES, yaml.safe_dump({"large_files": entries}, sort_keys=False))


def _say_sizes(folder: Path, files: list[Path], *, of_run: bool) -> None:
    """Refuse weights of another size of crops, and let those of an earlier run say theirs."""
    parser = parsed(folder)
    if "rois" not in parser:
        return
    rois = parser.get_parsed_content("rois")
    check_crop_sizes(rois=rois, ckpt_paths=files)
    for path in files if of_run else []:
        if read_record(path, CROP_SIZES) is None:
            append_record(path, CROP_SIZES, crop_sizes(rois))


def build_network(folder: Path, overrides: Mapping[str, Any]) -> torch.nn.Module:
    """Build the network of a bundle's inference config."""
    network: torch.nn.Module = parsed(folder, **overrides).get_parsed_content("network_def")
    return network


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
    """Write the tensors of a checkpoint beside it, with the records that it carries.

    A tensor of several names, as nnU-Net's networks have them, is written once; the metadata has
    its other names, as ``safetensors.torch.load_model`` expects them.
    """
    weights = torch.load(checkpoint, map_location="cpu", weights_only=True)
    first: dict[tuple[Any, ...], str] = {}
    names = {name: first.setdefault(_place(tensor), name) for name, tensor in weights.items()}
    records = {
        name.removesuffix(".json"): json.dumps(record)
        for name in RECORDS
        if (record := read_record(checkpoint, name)) is not None
    }
    save_file(
        {name: weights[name].contiguous().clone() for name in first.values()},
        checkpoint.with_suffix(".safetensors"),
        {
            "format": "pt",
            **{name: kept for name, kept in names.items() if name != kept},
            **records,
        },
    )


def _place(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Return what tells tensors apart that share no memory."""
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype
