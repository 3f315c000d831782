"""A table of the paper: its runs trained, all rows scored on the same subjects, and written."""

import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mrn_components.app.bundle_run import BundleRun, Run, run_here
from mrn_components.app.paper import Cohort, Row, load_table
from mrn_components.app.reproduce.cohorts import Data, Scale, make_data
from mrn_components.app.reproduce.cost import Cost, cost_of
from mrn_components.app.reproduce.plan import Plan, Planner
from mrn_components.app.reproduce.report import Report, Score, score_rows
from mrn_components.data import load_subjects
from mrn_components.system.files import write_text


def reproduce(
    table: int | str,
    *,
    scale: Scale = "small",
    output: str | Path = "runs/tables",
    seeds: Sequence[int] = (1,),
    rows: Sequence[str] | None = None,
    jobs: int | None = None,
    bundles: str = "bundles",
    dataset_dir: str | None = None,
    test_dir: str | None = None,
    effect: float = 1.0,
    **overrides: Any,
) -> Path:
    """Train and score a table of the paper, beside the paper's numbers (research use only).

    A second call goes on where the first stopped. Every run has a folder of its own in
    ``output/runs``, which rows and tables that train the same share. The table is
    ``output/tableN-SCALE.md`` (N is what ``--table`` names); ``.csv`` holds its numbers,
    ``-pairs.csv`` the difference of every two rows, and ``-costs.csv``, of peers and future, what
    each row costs.

    Args:
        table: number of the table, 1 to 9; or losses, what the paper leaves open of them; peers,
            what a user would pick instead; future, what the paper leaves to future work.
        scale: small trains the ``small.yaml`` of the bundles on phantoms; paper trains the
            paper's configuration on your data.
        output: folder of the tables and the runs; finished runs are not repeated.
        seeds: training seeds, e.g. 1,2,3; a seed also splits the folds.
        rows: names of the rows, e.g. "['DINOv2','DINOv2 + FFA']"; None takes all. The row that
            others are compared with comes along if it is trained already.
        jobs: runs at the same time; None is one a CPU core at the small scale, else one.
        bundles: folder of the bundles.
        dataset_dir: subjects to train on, at the scale "paper".
        test_dir: subjects to score on, at the scale "paper".
        effect: disease effect of the phantoms, in times the published one.
        overrides: config keys and their values, for every row, e.g. --epochs 5.

    Returns:
        The path of the table.

    Raises:
        ValueError: for arguments that name nothing.
        RuntimeError: if runs failed; names them, their last messages and their logs. The table of
            the other rows is written.
    """
    if not seeds or (jobs is not None and jobs < 1):
        raise ValueError(f"seeds must name at least one and jobs be >= 1, got {seeds} and {jobs}.")
    content = load_table(table)
    chosen = content.selected(rows)
    ours = [row for row in chosen if row.ours and row.scale in (None, scale)]
    output = Path(output).resolve()
    planner = Planner(
        bundles=Path(bundles),
        folder=output / "runs",
        cache_dir=output / "cache",
        scale=scale,
        overrides=overrides,
    )
    for row in ours:
        if row.regression is None:
            planner.arguments(row)  # a key that the bundle does not know ends here, before any work
    cohorts: list[Cohort] = ["true", *(row.cohort for row in ours)]
    data = make_data(scale, output / "data", cohorts, (dataset_dir, test_dir), effect)
    plans = {
        row.name: [planner.plan(row, seed, data[row.cohort]) for seed in seeds]
        for row in ours
        if row.cohort in data
    }
    asked = [row.name for row in chosen if rows is None or row.name in rows]
    runs: dict[Path, Run] = {}  # a run that several rows share has the first one's name
    for plan in chain.from_iterable(plans[name] for name in asked if name in plans):
        runs |= {run.folder: run for run in plan.runs if run.folder not in runs}
    print(f"Table {content.name}: {len(runs)} runs in {output / 'runs'}", flush=True)
    # small.yaml computes on one thread; several runs on one GPU would share its memory.
    usual = os.cpu_count() or 1 if scale == "small" else max(torch.cuda.device_count(), 1)
    failures = run_here(list(runs.values()), jobs or usual)
    scores = _score(ours, plans)
    report = Report(
        table=content,
        rows=[row for row in chosen if row.name in {*asked, *scores}],
        scores=scores,
        setting=_setting(scale, effect, data["true"], ours),
        seeds=seeds,
        unscored={
            row.name: "a run failed" if row.cohort in data else "made of phantoms only"
            for row in ours
        }
        | {row.name: f"at the scale {row.scale} only" for row in chosen if row not in ours},
        costs=_costs(plans) if content.cost else {},
    )
    path = output / f"table{content.name}-{scale}.md"
    write_text(path, report.markdown())
    write_text(path.with_suffix(".csv"), report.csv())
    write_text(path.with_name(f"{path.stem}-pairs.csv"), report.pairs_csv())
    if content.cost:
        write_text(path.with_name(f"{path.stem}-costs.csv"), report.costs_csv())
    print(report.markdown())
    if failures:
        raise RuntimeError(
            f"{len(failures)} of {len(runs)} runs failed; mend the cause and type the same command "
            "again, finished runs stay as they are:\n" + "\n".join(failures)
        )
    return path


def _score(rows: Sequence[Row], plans: dict[str, list[Plan]]) -> dict[str, dict[str, Score]]:
    """Score the rows whose runs are all done, those of one cohort on the same resamples."""
    scores: dict[str, dict[str, Score]] = {}
    for cohort in dict.fromkeys(row.cohort for row in rows):
        of_rows = {row.name: plans.get(row.name, []) for row in rows if row.cohort == cohort}
        done = {name: of for name, of in of_rows.items() if of and all(map(_is_done, of))}
        if not done:
            continue
        subjects = next(iter(done.values()))[0].data.test_subjects()
        names = [subject["subject"] for subject in subjects]
        prob_pd = {}
        for name, of in done.items():
            of_seeds = [plan.prob_pd() for plan in of]
            prob_pd[name] = np.array([[prob[subject] for subject in names] for prob in of_seeds])
        scores |= score_rows(prob_pd, np.array([subject["label"] for subject in subjects]))
    return scores


def _costs(plans: dict[str, list[Plan]]) -> dict[str, Cost]:
    """What the network of each row costs whose first run is done."""
    costs = {}
    for name, (plan, *_) in plans.items():
        run = plan.runs[0]
        if isinstance(run, BundleRun) and run.state() == "done":
            costs[name] = cost_of(run, plan.data.test_subjects()[0])
    return costs


def _is_done(plan: Plan) -> bool:
    return all(run.state() == "done" for run in plan.runs)


def _setting(scale: Scale, effect: float, data: Data, rows: Sequence[Row]) -> str:
    counts = [len(load_subjects(data.training)), len(data.test_subjects())]
    what = f"phantoms, disease effect x {effect:g}" if scale == "small" else "your data"
    folds = "five folds" if any(row.ensemble for row in rows) else "fold 0"
    return f"{what}, {folds} of {counts[0]} subjects; {counts[1]} test subjects, scale {scale}"
