"""What an evaluation leaves behind: predictions.csv and, where labels are known, metrics."""

import csv
import io
import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ignite import distributed as idist
from ignite.engine import Engine, Events
from torch import Tensor

from mrn_components.metrics import diagnosis_metrics, format_metrics
from mrn_components.system.files import write_text

_logger = logging.getLogger(__name__)


class PredictionsHandler:
    """Write every subject's P(PD), and the metrics of the cohort if it is labelled.

    ``predictions.csv`` has one row a subject, sorted, and these columns:

    - ``subject``, ``prob_pd`` (0 to 1), ``class`` (1, PD, where P(PD) is above 0.5; else 0, HC);
    - of an ensemble, ``prob_pd_fold0``, ``prob_pd_fold1``, ...; ``fold_agreement``, the share of
      folds whose class is the ensemble's; ``fold_std``, the standard deviation of the folds' P(PD);
    - with test-time augmentation, ``tta_std``, the standard deviation of the views' P(PD);
    - ``trained_on``, 1 for a training subject of the weights, else 0;
    - with the fallback of ``ROICropd``, ``missing_rois``, the masked ROIs with ";" between them,
      and ``flags``, what to know about the crops, with "; " between the texts;
    - ``label`` where known.

    ``metrics.json`` holds what ``diagnosis_metrics`` returns, ``metrics.txt`` a table of it. Of
    several processes the first writes the subjects of all.

    Args:
        output_dir: folder of the files; each appears whole or not at all.
        labelled: whether the subjects have labels, and metrics are wanted.
        seed: seed of the bootstrap intervals.
        trained_on: the subjects that the weights were trained on.
    """

    def __init__(
        self,
        *,
        output_dir: str,
        labelled: bool = False,
        seed: int = 1,
        trained_on: Collection[str] = (),
    ) -> None:
        self.output_dir = Path(output_dir)
        self.labelled = labelled
        self.seed = seed
        self.trained_on = trained_on
        self._rows: dict[str, dict[str, Any]] = {}  # subject: {column: value}

    def attach(self, engine: Engine) -> None:
        """Subscribe to an evaluator with ``decollate=False`` and ``DiagnosisOutputd`` behind it."""
        engine.add_event_handler(Events.STARTED, self.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def clear(self, _engine: Engine) -> None:
        """Forget the subjects of an earlier evaluation."""
        self._rows.clear()

    def collect(self, engine: Any) -> None:
        """Take the batch's probabilities."""
        output, batch = engine.state.output, engine.state.batch
        for index, subject in enumerate(batch["subject"]):
            row: dict[str, Any] = {**probability_columns(output, index)}
            row["trained_on"] = int(subject in self.trained_on)
            for column, separator in (("missing_rois", ";"), ("flags", "; ")):
                if column in batch:
                    row[column] = separator.join(batch[column][index])
            if self.labelled:
                row["label"] = int(output["label"][index])
            self._rows[subject] = row

    def write(self, _engine: Engine) -> None:
        """Write the files."""
        of_all_ranks: Any = idist.all_gather(dict(self._rows))
        for rows in of_all_ranks:
            self._rows.update(rows)
        if idist.get_rank() > 0:
            return
        self._rows = dict(sorted(self._rows.items()))  # the intervals depend on the order
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        columns = next(iter(self._rows.values()), {})
        writer.writerow(["subject", *columns])
        for subject, row in self._rows.items():
            cells = [f"{cell:.6f}" if isinstance(cell, float) else cell for cell in row.values()]
            writer.writerow([subject, *cells])
        path = self.output_dir / "predictions.csv"
        write_text(path, table.getvalue())
        _logger.info("%d predictions are in %s (research use only)", len(self._rows), path)
        if self.labelled:
            self._write_metrics()

    def _write_metrics(self) -> None:
        prob_pd = [row["prob_pd"] for row in self._rows.values()]
        labels = [int(row["label"]) for row in self._rows.values()]
        metrics = diagnosis_metrics(prob_pd, labels, seed=self.seed)
        table = f"{len(labels)} subjects\n{format_metrics(metrics)}"
        write_text(self.output_dir / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        write_text(self.output_dir / "metrics.txt", table + "\n")
        _logger.info(table)


def probability_columns(output: Mapping[str, Tensor], index: int) -> dict[str, float | int]:
    """The columns of ``predictions.csv`` from ``prob_pd`` to ``tta_std`` of one subject.

    Args:
        output: what ``DiagnosisOutputd`` makes of a batch.
        index: of the subject in the batch.
    """
    prob_pd = float(output["prob_pd"][index])
    row: dict[str, float | int] = {"prob_pd": prob_pd, "class": int(prob_pd > 0.5)}
    if "prob_pd_folds" in output:
        row |= _fold_columns(output["prob_pd_folds"][index], row["class"])
    if "prob_pd_views" in output:
        row["tta_std"] = float(output["prob_pd_views"][index].std(correction=0))
    return row


def _fold_columns(prob_pd: Tensor, decision: float) -> dict[str, float | int]:
    """Columns of the folds' P(PD) (F,)."""
    columns = {f"prob_pd_fold{fold}": prob for fold, prob in enumerate(prob_pd.tolist())}
    agreement = ((prob_pd > 0.5) == bool(decision)).float().mean()
    return columns | {
        "fold_agreement": float(agreement),
        "fold_std": float(prob_pd.std(correction=0)),
    }
