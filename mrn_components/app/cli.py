"""The ``mrn`` command: parse, call, print."""

import signal
import sys
from collections.abc import Callable, Sequence
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, Literal

import fire

import mrn_components
from mrn_components.system.errors import end_by_signal, install_messages


def phantom(
    output: str,
    *,
    subjects: int = 20,
    seed: int = 1,
    effect: float = 1.0,
    view: Literal["brain", "midbrain"] = "brain",
    workers: int | None = None,
) -> None:
    """Make a synthetic cohort in the layout of the challenge.

    Args:
        output: folder of the cohort.
        subjects: number of subjects, half of them PD.
        seed: the same seed makes the same subjects.
        effect: size of the disease effect; 1 is as published, 0 makes a null cohort.
        view: brain (300 x 300 x 70 voxels) or midbrain (a smaller field of view).
        workers: processes; default one a CPU core.
    """
    from mrn_components.phantom import make_cohort

    path = make_cohort(
        Path(str(output)), subjects=subjects, seed=seed, effect=effect, view=view, workers=workers
    )
    print(f"{subjects} synthetic subjects are in {path}")


def components() -> None:
    """List every name that a config may use as ``_target_: mrn_components.NAME``."""
    width = max(map(len, mrn_components.__all__))
    for name in mrn_components.__all__:
        summary = (getattr(mrn_components, name).__doc__ or "").strip().splitlines()
        print(f"{name:{width}}  {summary[0] if summary else ''}")


def check(
    data: str,
    *,
    labels: str | None = None,
    json: str | None = None,
    workers: int | None = None,
) -> None:
    """List every fault of a data set, each with what was found, what was expected, and the fix.

    Ends with 0 if there is no error, 1 if there are some, 2 if there is nothing to check.

    Args:
        data: folder of subjects in the challenge's layout, one subject, or a JSON datalist.
        labels: csv or JSON datalist of the diagnoses, absolute or relative to DATA.
        json: file for the report, for machines.
        workers: processes; default one a CPU core.
    """
    from mrn_components.app.check import check as run

    try:
        report = run(
            str(data),
            labels=None if labels is None else str(labels),
            json_file=None if json is None else str(json),
            workers=workers,
        )
    except (OSError, ValueError) as error:
        sys.stderr.write(f"\nerror: {error}\n")
        sys.exit(2)
    print(report.to_text())
    sys.exit(report.exit_code)


def predict(
    input: str,  # noqa: A002  `mrn predict INPUT OUTPUT` reads as users write it
    output: str,
    *,
    bundle: str = "bundles/mrn",
    segmentation: str = "bundles/segmentation",
    nm_filter: str | None = None,
    abstain: bool = True,
    resume: bool = False,
    report: bool = False,
    trust_bundle: bool = False,
    **overrides: Any,
) -> None:
    """Write P(PD), masks and flags of every subject to OUTPUT (research use only).

    Exit codes: 1 some subjects failed, the others are predicted; 2 input or settings are wrong;
    3 the bundle is not trusted.

    Args:
        input: a subject's folder {NM,QSM[,NM_mask,QSM_mask]}.nii.gz; a folder of such folders; a
            JSON datalist; or a BIDS directory (*_Chimap, and NM by nm_filter).
        output: folder of the results: predictions.csv, manifest.json, subjects/.
        bundle: a bundle with weights, or the folder of a training run.
        segmentation: bundle that makes the masks of subjects without.
        nm_filter: glob of the NM images' names in BIDS, e.g. "*acq-NM*".
        abstain: give no P(PD) where the NM region or more than one region is missing.
        resume: skip the subjects that are done; with other files, weights or settings none is.
        report: write index.html and a page a subject too; asks the network some 28 times more.
        trust_bundle: run a bundle that `mrn inspect` objects to.
        overrides: config keys, e.g. --ckpt_path FILE, --precision fp32, --tta True.
    """
    from mrn_components.app.predict import predict as run

    path = run(
        str(input),
        str(output),
        bundle=str(bundle),
        segmentation=str(segmentation),
        nm_filter=nm_filter,
        abstain=abstain,
        resume=resume,
        report=report,
        trust_bundle=trust_bundle,
        **overrides,
    )
    print(f"predictions: {path}")


def evaluate(
    predictions: str,
    labels: str,
    *,
    against: str | None = None,
    output: str | None = None,
    names: str | Sequence[str] | None = None,
    partial: bool = False,
    seed: int = 1,
) -> None:
    """Score predictions of labelled subjects, and compare two models (research use only).

    Args:
        predictions: predictions.csv, or the folder that holds it.
        labels: csv of rows SUBJECT,0|1; a JSON datalist; or a table with a column label.
        against: predictions of another model for the same subjects.
        output: folder of metrics and figures; default evaluation/ beside the predictions.
        names: names of the models, e.g. MRN,baseline.
        partial: evaluate the subjects that all tables name, instead of refusing others.
        seed: seed of the bootstrap.
    """
    from mrn_components.app.evaluate import evaluate as run

    if names is not None:  # fire reads A,B as a tuple, and a-1,b as a string
        names = names.split(",") if isinstance(names, str) else [str(name) for name in names]
    folder = run(
        str(predictions),
        str(labels),
        against=None if against is None else str(against),
        output=None if output is None else str(output),
        names=names,
        partial=partial,
        seed=seed,
    )
    print((folder / "metrics.txt").read_text(encoding="utf-8"))
    print(f"metrics and figures: {folder}")


def crossval(
    dataset: str,
    output: str,
    *,
    bundle: str = "bundles/mrn",
    folds: int = 5,
    configs: str | Sequence[str] = (),
    fold: int | None = None,
    executor: Literal["local", "slurm"] = "local",
    jobs: int = 1,
    processes: int = 1,
    slurm: dict[str, Any] | None = None,
    **overrides: Any,
) -> None:
    """Train and score every fold; the same command again goes on where it stopped.

    Args:
        dataset: folder of subjects in the challenge's layout, with masks; or a JSON datalist.
        output: folder of the folds, out_of_fold.csv and crossval.json.
        bundle: the bundle to train.
        folds: number of folds.
        configs: overlays of the bundle, e.g. small.yaml.
        fold: train only this one, from 0.
        executor: local, or slurm for a job a fold.
        jobs: folds to train here at the same time.
        processes: processes a fold, with --configs multi_gpu_train.yaml.
        slurm: parameters of the jobs, e.g. "{'slurm_partition': 'gpu', 'gpus_per_node': 1}".
        overrides: config keys, e.g. --epochs 100.
    """
    from mrn_components.app.crossval import crossval as run

    path = run(
        str(dataset),
        str(output),
        bundle=str(bundle),
        num_folds=folds,
        configs=configs.split(",") if isinstance(configs, str) else configs,
        fold=fold,
        executor=executor,
        jobs=jobs,
        processes=processes,
        slurm=slurm,
        **overrides,
    )
    print(f"cross-validation: {path} (research use only)")


def contributions(
    input: str,  # noqa: A002
    output: str,
    *,
    bundle: str = "bundles/mrn",
    labels: str | None = None,
    mask_mode: Literal["voxels", "noise", "mean", "token"] = "voxels",
    **overrides: Any,
) -> None:
    """Write what each ROI adds to P(PD): Shapley values, and with labels the paper's Table 4.

    Args:
        input: folder of subjects in the challenge's layout, with masks; or a JSON datalist.
        output: folder of the results.
        bundle: a bundle with weights, or the folder of a training run.
        labels: csv or JSON datalist of the diagnoses, absolute or relative to INPUT.
        mask_mode: hide an ROI's voxels by zeros, noise or their mean, or its token.
        overrides: config keys, e.g. --ckpt_path FILE, --precision fp32.
    """
    from mrn_components.app.contributions import contributions as run

    path = run(
        str(input), str(output), bundle=str(bundle), labels=labels, mask_mode=mask_mode, **overrides
    )
    print(f"contributions: {path}")
    if (path.parent / "table.md").is_file():
        print((path.parent / "table.md").read_text(encoding="utf-8"))


def reproduce(
    *,
    table: int,
    scale: Literal["small", "paper"] = "small",
    output: str = "runs/tables",
    seeds: int | Sequence[int] = 1,
    rows: str | Sequence[str] | None = None,
    jobs: int | None = None,
    bundles: str = "bundles",
    dataset_dir: str | None = None,
    test_dir: str | None = None,
    effect: float = 3.0,
    **overrides: Any,
) -> None:
    """Train and score a table of the paper, beside the paper's numbers (research use only).

    Args:
        table: number of the table, 1 to 9.
        scale: small (phantoms, on a CPU) or paper (your data).
        output: folder of the tables and the runs; finished runs are not repeated.
        seeds: training seeds, e.g. 1,2,3.
        rows: names of rows, in quotes and brackets: "['DINOv2','DINOv2 + FFA']"; default all.
        jobs: runs at the same time.
        bundles: folder of the bundles.
        dataset_dir: subjects to train on, at the scale paper.
        test_dir: subjects to score on, at the scale paper.
        effect: disease effect of the phantoms, in times the published one.
        overrides: config keys for every row, e.g. --epochs 5.
    """
    from mrn_components.app.reproduce import reproduce as run

    path = run(
        table,
        scale=scale,
        output_dir=str(output),
        seeds=[seeds] if isinstance(seeds, int) else list(seeds),
        rows=[rows] if isinstance(rows, str) else rows,
        jobs=jobs,
        bundles=str(bundles),
        dataset_dir=dataset_dir,
        test_dir=test_dir,
        effect=effect,
        **overrides,
    )
    print(f"table: {path}")


def biomarkers(
    input: str,  # noqa: A002
    output: str,
) -> None:
    """Measure each nucleus without a network: volume, iron, neuromelanin (research use only).

    Writes biomarkers.csv, a row a subject, and biomarkers.md, which explains its columns.

    Args:
        input: folder of subjects in the challenge's layout, with masks; or a JSON datalist.
        output: folder of the results.
    """
    from mrn_components.app.biomarkers import measure_subjects

    path, errors = measure_subjects(str(input), str(output))
    print(f"biomarkers: {path} (research use only)")
    if errors:
        lines = [f"  {subject}: {error}" for subject, error in errors.items()]
        print(f"{len(errors)} subjects failed:\n" + "\n".join(lines), file=sys.stderr)
        raise SystemExit(1)


def evaluate_masks(
    masks: str,
    dataset: str,
    *,
    output: str | None = None,
    partial: bool = False,
    seed: int = 1,
) -> None:
    """Compare segmented masks with drawn ones: Dice, Hausdorff distances and volumes.

    Args:
        masks: folder of SUBJECT/{NM,QSM}_mask.nii.gz or _pred.nii.gz, or OUTPUT of mrn predict.
        dataset: subjects with drawn masks, in the challenge's layout; or a JSON datalist.
        output: folder of masks.csv, masks.json and masks.md; default evaluation/ in MASKS.
        partial: score the masks that are there, instead of refusing when some are missing.
        seed: seed of the bootstrap.
    """
    from mrn_components.app.evaluate_masks import evaluate_masks as run

    folder = run(
        str(masks),
        str(dataset),
        output=None if output is None else str(output),
        partial=partial,
        seed=seed,
    )
    print((folder / "masks.md").read_text(encoding="utf-8"))
    print(f"scores of the masks: {folder}")


def challenge(
    inputs: str,
    outputs: str,
    *,
    format: Literal["docker", "email", "baseline"] = "docker",  # noqa: A002
    bundle: str = "bundles/mrn",
    segmentation: str = "bundles/segmentation",
    **overrides: Any,
) -> None:
    """Answer the challenge's cases in the organisers' files, every one (research use only).

    Exit code 1: some cases are answered without a prediction, and named.

    Args:
        inputs: folder of ID/{NM,QSM}.nii.gz; only read.
        outputs: folder of the answers, and of nothing else.
        format: docker (PD_pred.txt), email (label_predict.csv) or baseline (pred.csv).
        bundle: a bundle with weights, or the folder of a training run.
        segmentation: bundle that makes the masks.
        overrides: config keys, e.g. --ckpt_path FILE, --tta True.
    """
    from mrn_components.app.challenge import challenge as run

    path = run(
        str(inputs),
        str(outputs),
        format=format,
        bundle=str(bundle),
        segmentation=str(segmentation),
        **overrides,
    )
    print(f"answers: {path}")


def report(output: str, input: str) -> None:  # noqa: A002
    """Write a page a subject and OUTPUT/index.html of what `mrn predict INPUT OUTPUT` left.

    Without --report that leaves no Shapley values and occlusion maps, and the pages say so.

    Args:
        output: folder of the predictions.
        input: folder or datalist that was predicted, for the images.
    """
    from mrn_components.app.report.reports import write_reports

    print(f"reports: {write_reports(str(output), str(input))} (research use only)")


def inspect(bundle: str) -> None:
    """Say what in a bundle is not data or was changed, without running any of it.

    Compares it with the installed bundle. Ends with 3 if prediction would refuse it, or a training
    from it would run something else. A guard, not a sandbox: see SECURITY.md.

    Args:
        bundle: folder of a bundle or of a training run, or a bundle's zip file.
    """
    from mrn_components.app.inspect import inspect_bundle

    found = inspect_bundle(str(bundle))
    for difference in found:
        print(difference)
    if count := sum(difference.effect != "ours is used" for difference in found):
        print(f"{count} problems: do not run {bundle} unless you trust who made it.")
        raise SystemExit(3)
    print(f"{bundle} is data, as far as `mrn` uses it (SECURITY.md).")


def version() -> None:
    """Print the version."""
    print(mrn_components.__version__)


def main() -> None:
    """Entry point of the ``mrn`` command."""
    install_messages()
    signal.signal(signal.SIGTERM, end_by_signal)
    commands: list[Callable[..., Any]]
    commands = [phantom, components, predict, evaluate, contributions, crossval, reproduce, version]
    commands += [check, inspect, biomarkers, evaluate_masks, challenge, report]
    by_name = {command.__name__: command for command in commands}
    if len(sys.argv) > 1 and sys.argv[1] in by_name:
        check_options(by_name[sys.argv[1]], sys.argv[2:])
    fire.Fire(by_name, name="mrn")


def check_options(command: Callable[..., Any], words: Sequence[str]) -> None:
    """Refuse an option that a command does not have; fire says so when the work is done, or never.

    Args:
        command: the function.
        words: what is typed after its name.

    Raises:
        ValueError: naming the option and those there are.
    """
    parameters = signature(command).parameters
    if any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values()):
        return  # keys of a config, which is read later
    for word in words:
        if word == "--":
            return  # what follows is fire's own
        name = word.removeprefix("--").split("=")[0].replace("-", "_")
        known = {name, name.removeprefix("no")} & {*parameters, "help"}
        if word.startswith("--") and not known:
            options = ", ".join(f"--{name}" for name in parameters)
            raise ValueError(
                f"{word}: `mrn {command.__name__}` has no such option; it has {options}."
            )


if __name__ == "__main__":
    main()
