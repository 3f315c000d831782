"""``mrn crossval``: train the folds of a data set, predict each by a network that never saw it."""

import json
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from monai.bundle import ConfigParser

from mrn_components.app.bundle_run import (
    BundleRun,
    attempt,
    find_config,
    mrn_command,
    run_here,
    train_command,
)
from mrn_components.app.ensemble import save_ensemble
from mrn_components.app.learning_curve import learn
from mrn_components.app.out_of_fold import OUT_OF_FOLD, write_out_of_fold, write_page
from mrn_components.bundle import RunArguments, encoder_options, run_encoder
from mrn_components.data import DataLeakageError, Subject
from mrn_components.data.predictions import read_predictions
from mrn_components.data.tables import GROUP, files_of, read_rows
from mrn_components.data.target import read_target
from mrn_components.data.weight_records import KEPT_WEIGHTS, REPRESENTATION, read_record
from mrn_components.system.files import write_json, write_text
from mrn_components.system.values import flags

# Keys of a config that differ between folds or have an argument of their own.
_OWN_KEYS = ("dataset_dir", "output_dir", "num_folds", "fold", "run_name", "ckpt_dir", "resume")
_PREDICT_KEYS = ("cache_dir", "device", "num_workers", "precision")  # that prediction shares
_CHOSEN = (
    "Each fold's epoch was chosen on the subjects that it is scored on, so that the numbers are a "
    "little too good; folds trained with --keep last, mean or teacher choose none."
)
_NOT_CHOSEN = "No epoch was chosen on the subjects that a fold is scored on."


def crossval(
    dataset: str | Path,
    output: str | Path,
    *,
    bundle: str = "bundles/mrn",
    folds: int = 5,
    configs: Sequence[str] = (),
    fold: int | None = None,
    executor: Literal["local", "slurm"] = "local",
    jobs: int = 1,
    processes: int = 1,
    slurm: Mapping[str, Any] | None = None,
    learning_curve: Sequence[float] = (),
    **overrides: Any,
) -> Path:
    """Train and score every fold; the same command again goes on where it stopped.

    Each fold predicts its validation subjects, and is in ``output/foldN``, a bundle of
    its own; ``folds.json`` and the cache are common to all. When every fold is done,
    ``out_of_fold.csv`` has one row a subject and ``crossval.json`` the metrics by fold, their mean
    and deviation, and those of all subjects together; ``evaluation`` has figures and the page
    ``report.html``; ``ensemble`` is a bundle that predicts by the networks of all folds, with
    calibrated predictions, and sets of classes or intervals of a score, by ``out_of_fold.csv``
    (docs/calibration.md).
    By default each fold's epoch is chosen on the subjects that it is scored on, and the page says
    so; ``--keep last``, ``mean`` or ``teacher`` chooses none.

    ``--group_by site`` leaves one site out at a time, or as many as fit where there are more sites
    than folds, and the page and ``evaluation`` have the metrics by site and a test whether sites
    differ. Any column of the datalist, of a csv of labels with the header subject,label,... or of
    ``participants.tsv`` of BIDS will do.

    ``--learning_curve 25,50,75,100`` cross-validates with these percent of each fold's training
    subjects, one after another, in ``output/share025`` and so on; ``learning_curve.csv``, ``.png``
    and ``.svg`` have the metrics.

    Args:
        dataset: folder of subjects in the challenge's layout, with masks; or a JSON datalist.
        output: folder of the folds, out_of_fold.csv and crossval.json.
        bundle: folder of the bundle to train.
        folds: number of folds; no more than groups.
        configs: overlays, by file name in the bundle's ``configs`` or by path, e.g. small.yaml.
        fold: train only this one, from 0; None trains all.
        executor: local trains here, slurm in a job a fold; jobs go on when this process ends.
        jobs: folds to train here at the same time, each on the next GPU if there are several.
        processes: processes a fold, for ``multi_gpu_train.yaml``.
        slurm: parameters of the jobs for submitit's ``update_parameters``, e.g.
            "{'slurm_partition': 'gpu', 'gpus_per_node': 1}".
        learning_curve: percent of the training subjects, above 0 and at most 100.
        overrides: config keys and their values, e.g. --epochs 100.

    Returns:
        The folder of the cross-validation.

    Raises:
        ValueError: for arguments that name nothing, or another cross-validation in the folder.
        RuntimeError: if folds failed; names them, their last messages and their logs.
    """
    if executor not in ("local", "slurm"):
        raise ValueError(f"executor must be 'local' or 'slurm', got {executor!r}.")
    if fold is not None and not 0 <= fold < folds:
        raise ValueError(f"fold must be 0 to {folds - 1}, got {fold}.")
    if jobs < 1 or processes < 1:
        raise ValueError(f"jobs and processes must be >= 1, got {jobs} and {processes}.")
    output = Path(output).resolve()
    if learning_curve:
        each = partial(crossval, dataset, bundle=bundle, folds=folds, configs=configs, fold=fold)
        each = partial(each, executor=executor, jobs=jobs, processes=processes, slurm=slurm)
        return learn(each, output, learning_curve, overrides)
    settings = {
        "dataset_dir": str(Path(dataset).resolve()),
        "bundle": str(Path(bundle).resolve()),
        "num_folds": folds,
        "configs": [str(config) for config in configs],
        "overrides": dict(overrides),
    }
    runs, subjects = plan_folds(settings, output, jobs=jobs, processes=processes)
    chosen = [run for number, run in enumerate(runs) if fold in (None, number)]
    print(", ".join(f"{run.name}: {run.state()}" for run in chosen), flush=True)
    waiting = [run for run in chosen if run.state() != "done"]
    if executor == "slurm":
        failures = submit(waiting, output / "slurm", cluster="slurm", parameters=slurm or {})
    else:
        failures = run_here(waiting, jobs)
    if failures:
        raise RuntimeError(
            f"{len(failures)} of {len(chosen)} folds failed; mend the cause and type the same "
            "command again, finished folds stay as they are:\n" + "\n".join(failures)
        )
    missing = [str(number) for number, run in enumerate(runs) if run.state() != "done"]
    if missing:
        print(f"Folds {', '.join(missing)} are not trained yet. To train them and see the metrics:")
        print(f"  {_command(settings, output)}")
    else:
        grouped = any(GROUP in subject for subject in subjects)
        column = overrides.get("group_by", GROUP) if grouped else None
        print(write_results(runs, subjects, output, column))
        page = write_page(output, Path(bundle).resolve().name, group_by=column)
        print(f"The page of the cohort: {page}")
        ensemble = _save_ensemble(runs, output)
        words = shlex.join(["--bundle", str(ensemble), *flags(run_encoder(runs[0].folder))])
        print(f"The folds together predict by: mrn predict INPUT OUTPUT {words}")
    return output


def plan_folds(
    settings: Mapping[str, Any], output: Path, *, jobs: int = 1, processes: int = 1
) -> tuple[list[BundleRun], list[Subject]]:
    """Check the settings, split the subjects, and prepare the commands of every fold.

    The settings are ``dataset_dir``, ``bundle``, ``num_folds``, ``configs`` and ``overrides``; a
    ``ValueError`` refuses unknown keys, and settings unlike those of an earlier call.
    """
    bundle = Path(settings["bundle"])
    configs = tuple(find_config(bundle, name) for name in ("train", *settings["configs"]))
    for key in sorted({*_OWN_KEYS} & settings["overrides"].keys()):
        raise ValueError(f"--{key}: `mrn crossval` sets it for every fold; leave it out.")
    overrides = {
        "cache_dir": str(output / "cache"),
        "folds#path": str(output / "folds.json"),
        **settings["overrides"],
        "dataset_dir": settings["dataset_dir"],
        "num_folds": settings["num_folds"],
    }
    arguments = RunArguments(configs, overrides).typed()
    overrides, merged = dict(arguments.overrides), arguments.merged()
    parser = ConfigParser(merged)
    _check_settings(settings, output / "settings.json")
    epochs = parser.get_parsed_content("epochs")
    folds = parser.get_parsed_content("folds")["folds"]
    write_text(output / "settings.json", json.dumps(settings, indent=2, default=str) + "\n")
    subjects = parser.get_parsed_content("subjects")
    gpus = torch.cuda.device_count() if jobs > 1 else 0
    options = {key: overrides[key] for key in _PREDICT_KEYS if key in overrides}
    options |= encoder_options(merged)
    options |= {"abstain": False, "trust_bundle": True}  # this command has trained it
    runs = []
    for number, members in enumerate(folds):
        folder = output / f"fold{number}"
        validation = [
            subject | {key: str(path.absolute()) for key, path in files_of(subject).items()}
            for subject in subjects
            if subject["subject"] in members
        ]
        write_json(folder / "validation.json", validation, indent=1)
        tables = str(folder / "validation.json"), str(folder / "out_of_fold")
        own = {"fold": number, "run_name": folder.name, "output_dir": str(folder)}
        runs.append(
            BundleRun(
                name=f"fold {number}",
                folder=folder,
                epochs=epochs,
                train=train_command(configs, overrides | own, processes),
                predict=mrn_command("predict", *tables, bundle=str(folder), **options),
                predictions=folder / "out_of_fold" / "predictions.csv",
                device=number % gpus if gpus > 1 else None,
            )
        )
    return runs, subjects


def submit(
    runs: Sequence[BundleRun],
    folder: Path,
    cluster: Literal["slurm", "local", "debug"],
    parameters: Mapping[str, Any],
) -> list[str]:
    """Run folds as jobs of a cluster, wait for them, and collect the messages of those that fail.

    The folder is for the jobs' own files, on a disk that all machines share; the parameters are
    those of submitit's ``update_parameters``. The default time is a day.
    """
    try:
        import submitit
    except ImportError as error:
        message = "jobs on SLURM need submitit: pip install 'mrn-components[slurm]'."
        raise RuntimeError(message) from error
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    executor.update_parameters(**{"name": "mrn-crossval", "timeout_min": 24 * 60, **parameters})
    jobs = [executor.submit(run.run) for run in runs]
    for run, job in zip(runs, jobs, strict=True):
        print(f"{run.name}: job {job.job_id}", flush=True)
    ended = [attempt(run, job.result) for run, job in zip(runs, jobs, strict=True)]
    return [message for message in ended if message is not None]


def write_results(
    runs: Sequence[BundleRun],
    subjects: Sequence[Subject],
    output: Path,
    group_by: str | None = None,
) -> str:
    """Write ``out_of_fold.csv`` and ``crossval.json``; return a table of the metrics, and a note.

    ``group_by`` is the column that tells the subjects' groups.
    The note tells whether the epochs were chosen on the subjects that a fold is scored on. A
    ``DataLeakageError`` refuses a network that was trained on a subject which it predicts.
    """
    labels = {subject["subject"]: subject["label"] for subject in subjects}
    group_of = {subject["subject"]: subject.get(GROUP) for subject in subjects}
    target = read_target(runs[0].predictions.parent)
    kept = ("subject", *target.columns, "class")
    rows: list[dict[str, Any]] = []
    for fold, run in enumerate(runs):
        try:
            predicted = read_predictions(run.predictions, target)
        except DataLeakageError as error:
            raise DataLeakageError(f"fold {fold}: {error}") from None
        for where, row in read_rows(run.predictions, target.columns):
            name = row["subject"]
            if name not in predicted:
                raise ValueError(f"{where}: {name} has no prediction: {row.get('error', '')}")
            cells = {column: row[column] for column in kept if column in row}
            if group_by is not None:
                cells[group_by] = str(group_of[name])
            label = target.shown(labels[name])
            rows.append({**cells, "fold": fold, "label": label, "value": predicted[name]})
    weights = [read_record(run.folder / "models" / "model.pt", KEPT_WEIGHTS) for run in runs]
    chosen = any(record is None or record["chosen_on_validation"] for record in weights)
    further: dict[str, Any] = {"kept_weights": weights}
    further["note"] = _CHOSEN if chosen else _NOT_CHOSEN
    seen = [read_record(run.folder / "models" / "model.pt", REPRESENTATION) for run in runs]
    if told := [
        f"fold {k}: it {own['groups']}" for k, own in enumerate(seen) if own and "groups" in own
    ]:
        words = f"whether the {group_by} can be told of the training subjects, {'; '.join(told)}."
        further["group_test"] = {"words": words}
    return write_out_of_fold(output, rows, labels, target, further, group_by=group_by)


def _save_ensemble(runs: Sequence[BundleRun], output: Path) -> Path:
    """Make one bundle of the folds, with a calibration."""
    folders = [run.folder for run in runs]
    return save_ensemble(folders, output / "ensemble", out_of_fold=output / OUT_OF_FOLD)


def _check_settings(settings: Mapping[str, Any], path: Path) -> None:
    """Refuse settings that differ from those which a cross-validation was begun with."""
    if not path.is_file():
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    differences = [
        f"{key} was {found.get(key)!r}, is now {value!r}"
        for key, value in json.loads(json.dumps(settings, default=str)).items()
        if found.get(key) != value
    ]
    if differences:
        raise ValueError(
            f"{path.parent} holds a cross-validation with other settings "
            f"({'; '.join(differences)}); repeat them to go on, or name another output folder."
        )


def _command(settings: Mapping[str, Any], output: Path) -> str:
    """What to type for the folds that are left."""
    words = ["--bundle", settings["bundle"], "--folds", str(settings["num_folds"])]
    if settings["configs"]:
        words += ["--configs", ",".join(settings["configs"])]
    words += flags(settings["overrides"])
    return shlex.join(["mrn", "crossval", settings["dataset_dir"], str(output), *words])
