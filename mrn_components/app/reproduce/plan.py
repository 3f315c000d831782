"""The runs of a row: what is trained, on which data, where, and by which commands."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from mrn_components.app.bundle_run import BundleRun, Run, find_config, mrn_command, train_command
from mrn_components.app.ensemble import save_ensemble
from mrn_components.app.paper import Row
from mrn_components.app.predict import predict
from mrn_components.app.predict.manifest import hash_content
from mrn_components.app.reproduce.cohorts import Data, Scale
from mrn_components.app.reproduce.regression import RegressionRun
from mrn_components.app.states import state_name
from mrn_components.bundle import RunArguments, encoder_options, run_encoder
from mrn_components.data.predictions import read_predictions, read_rows

_NUM_FOLDS = 5
# Keys of a config that a run gets from its row, its seed and the data.
_OWN_KEYS = ("cache_dir", "fold", "labels", "num_folds", "output_dir", "run_name", "seed")


@dataclass(frozen=True)
class Plan:
    """The runs of a row with one seed, one a fold for an ensemble, and the subjects to score on."""

    row: Row
    runs: tuple[Run, ...]
    data: Data

    def prob_pd(self) -> dict[str, float]:
        """P(PD) of every test subject, once the runs are done; none may have been trained on."""
        table = self.runs[0].predictions
        if self.row.masked_rois is not None:
            read_predictions(table.with_name("predictions.csv"))  # refuses subjects trained on
            state = state_name(self.row.masked_rois)
            return {row["subject"]: float(row[state]) for _, row in read_rows(table, [state])}
        if self.row.ensemble:
            folder = self.runs[0].folder.with_name(f"{self.runs[0].folder.name}-ensemble")
            bundle = save_ensemble([run.folder for run in self.runs], folder)
            test = str(self.data.test), str(folder / "test")
            own = run_encoder(self.runs[0].folder)
            table = predict(*test, bundle=str(bundle), abstain=False, tta=True, **own)
        return read_predictions(table)


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Turns rows into runs; rows that train the same share a folder."""

    bundles: Path  # folder of the bundles
    folder: Path  # of the runs
    cache_dir: Path  # of the preprocessed subjects
    scale: Scale  # "small" adds the bundle's ``small.yaml``
    overrides: Mapping[str, Any]  # config keys and their values, for every row

    def plan(self, row: Row, seed: int, data: Data) -> Plan:
        """The runs of a row with one seed."""
        if row.regression is not None:
            return Plan(row, (self._regression(row, seed, data),), data)
        folds = range(_NUM_FOLDS) if row.ensemble else [0]
        return Plan(row, tuple(self._run(row, seed, fold, data) for fold in folds), data)

    def arguments(self, row: Row) -> RunArguments:
        """Configs and overrides that make the row, without its data; no unknown override."""
        for key in sorted({*_OWN_KEYS} & self.overrides.keys()):
            raise ValueError(f"--{key}: `mrn reproduce` sets it for every run; leave it out.")
        # The row's overlay comes last: it may change what small.yaml makes small.
        overlays, small = (["small.yaml"], row.small) if self.scale == "small" else ([], {})
        names = ("train", *overlays, *row.configs)
        configs = tuple(find_config(self.bundles / row.bundle, name) for name in names)
        overrides = {**row.overrides, **small, **self.overrides}
        return RunArguments(configs, overrides).typed(source=f"row {row.name!r}: ")

    def _run(self, row: Row, seed: int, fold: int, data: Data) -> BundleRun:
        arguments = self.arguments(row)
        overrides = {
            **arguments.overrides,
            "dataset_dir": str(data.training.absolute()),
            **({} if data.labels is None else {"labels": str(data.labels.absolute())}),
            "seed": seed,
            "fold": fold,
            "num_folds": _NUM_FOLDS,
            "cache_dir": str(self.cache_dir),
        }
        # Named after all that the run does, so that an edited config is another run.
        merged = RunArguments(arguments.config_files, overrides).merged()
        digest = hash_content(merged)[:8]
        folder = self.folder / f"{row.bundle}-{digest}-seed{seed}-fold{fold}"
        overrides |= {"output_dir": str(folder), "run_name": folder.name}
        results = folder / "test"
        options: dict[str, Any] = {"bundle": str(folder), "cache_dir": str(self.cache_dir)}
        options |= {"trust_bundle": True, **encoder_options(merged)}  # this command has trained it
        verb, table = "contributions", "states.csv"
        if row.masked_rois is None:
            verb, table = "predict", "predictions.csv"
            options["abstain"] = False
        return BundleRun(
            name=f"{row.name}, seed {seed}" + f", fold {fold}" * row.ensemble,
            folder=folder,
            epochs=int(ConfigParser(merged).get_parsed_content("epochs")),
            train=train_command(arguments.config_files, overrides),
            predict=mrn_command(verb, str(data.test.absolute()), str(results), **options),
            predictions=results / table,
        )

    def _regression(self, row: Row, seed: int, data: Data) -> RegressionRun:
        kind = dict(row.regression or {})
        digest = hash_content([kind, data, _NUM_FOLDS])[:8]
        return RegressionRun(
            name=f"{row.name}, seed {seed}",
            folder=self.folder / f"{'-'.join(kind.values())}-{digest}-seed{seed}-fold0",
            data=data,
            seed=seed,
            num_folds=_NUM_FOLDS,
            cache_dir=self.cache_dir,
            **kind,
        )
