"""One bundle of the networks of several runs (section 4.1.2)."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from mrn_components.app.calibration import CALIBRATION, describe_calibration, fit_calibration
from mrn_components.bundle import NETWORK_BLOCKS, bundle_config, mark_run
from mrn_components.system.files import existing_file, replacing_hashed, write_json
from mrn_components.system.plain_data import differences


def save_ensemble(
    runs: Sequence[Path], output_dir: Path, *, out_of_fold: Path | None = None
) -> Path:
    """Copy the networks of finished runs into one bundle that averages their probabilities.

    ``models/foldN.pt`` are the weights of the runs, in their order, and ``configs/inference.json``
    predicts with all of them. ``models/calibration.json`` is what out-of-fold predictions say of
    the probabilities. The folder appears whole or not at all; an earlier ensemble there is
    replaced.

    Args:
        runs: folders of runs, each with ``configs/inference.json`` and ``models/model.pt``.
        output_dir: folder of the bundle.
        out_of_fold: ``out_of_fold.csv`` of the cross-validation whose folds the runs are, in their
            order; None for a bundle without a calibration.

    Raises:
        DataLeakageError: if a network was trained on a subject of its fold.
        ValueError: for no run, or runs whose network, ROIs or preprocessing differ.
        FileNotFoundError: if a run is not finished.
        FileExistsError: if ``output_dir`` holds something else than an ensemble.
    """
    if not runs:
        raise ValueError("save_ensemble runs must name at least one run, got none.")
    first = output_dir / "models" / "fold0.pt"
    if output_dir.exists() and any(output_dir.iterdir()) and not first.is_file():
        raise FileExistsError(
            f"{output_dir} is there and no ensemble; name a new folder, or move it away."
        )
    configs = [ConfigParser.load_config_file(str(bundle_config(run, "inference"))) for run in runs]
    models = [str(run / "models" / "model.pt") for run in runs]
    weights = [existing_file(path=path, hint="Finish this run first.") for path in models]
    _check_same(runs, configs)
    config = ensemble_config(configs[0], len(runs))
    fitted = None
    if out_of_fold is not None:
        fitted = describe_calibration(
            fit_calibration(out_of_fold, [Path(file) for file in weights])
        )
    mark_run([config], output_dir)
    temporary = output_dir.with_name(f".unfinished.{os.getpid()}.{output_dir.name}")
    try:
        _write(temporary, config, weights, runs[0] / "configs")
        if fitted is not None:
            write_json(temporary / "models" / CALIBRATION, fitted)
        if output_dir.exists():
            shutil.rmtree(output_dir)
        temporary.rename(output_dir)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return output_dir


def _check_same(runs: Sequence[Path], configs: Sequence[Mapping[str, Any]]) -> None:
    """Refuse runs that cannot share one config."""
    if missing := sorted({"network", "checkpoint"} - set(configs[0])):
        raise ValueError(
            f"{bundle_config(runs[0], 'inference')} has no {missing}, which an ensemble replaces; "
            "add what the bundle's own configs/inference.yaml has."
        )
    for run, config in zip(runs[1:], configs[1:], strict=True):
        for key in NETWORK_BLOCKS:
            for path, mine, first in differences(config.get(key), configs[0].get(key), key):
                raise ValueError(
                    f"{run} has {path} {mine}, and {runs[0]} has {first}; an ensemble needs runs "
                    "of one network, the same ROIs and the same preprocessing."
                )


def ensemble_config(config: Mapping[str, Any], num_folds: int) -> dict[str, Any]:
    """An inference config with the overlay ``ensemble.yaml`` of the bundles applied to it."""
    return {
        **config,
        "ckpt_path": [f"$@bundle_root + '/models/fold{fold}.pt'" for fold in range(num_folds)],
        "network": {
            "_target_": "mrn_components.FoldEnsemble",
            "network": config["network"],
            "num_folds": "$len(monai.utils.ensure_tuple(@ckpt_path))",
        },
        "checkpoint": {
            "_target_": "mrn_components.FoldCheckpointLoader",
            "network": "@network",
            "paths": "@ckpt_path",
            "map_location": "@device",
        },
    }


def _write(
    folder: Path, config: Mapping[str, Any], weights: Sequence[str], first_configs: Path
) -> None:
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    for companion in first_configs.iterdir():  # overlays, metadata, logging set-up
        if companion.stem not in ("train", "inference"):
            shutil.copyfile(companion, folder / "configs" / companion.name)
    write_json(folder / "configs" / "inference.json", config)
    for fold, path in enumerate(weights):
        with replacing_hashed(folder / "models" / f"fold{fold}.pt") as weights_file:
            shutil.copyfile(path, weights_file)
