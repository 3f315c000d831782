"""What an evaluation leaves behind: predictions.csv and, where labels are known, metrics."""

import csv
import io
import json
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ignite import distributed as idist
from ignite.engine import Engine, Events

from mrn_components.files import write_text
from mrn_components.metrics import diagnosis_metrics, format_metrics

_logger = logging.getLogger(__name__)


class PredictionsHandler:
    """Write every subject's P(PD), and the metrics of the cohort if it is labelled.

    ``predictions.csv`` has the columns ``subject,prob_pd,class`` (class 1, PD, where P(PD) is
    above 0.5; else 0, HC), ``label`` where known and ``trained_on`` (1 for a training subject of
    the weights, else 0), sorted by subject. ``metrics.json`` holds accuracy, ROC AUC and macro F1
    with 95 % intervals, ``metrics.txt`` a table of them. Of several processes the first writes the
    subjects of all.

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
        self._rows: dict[str, tuple[float, int | None]] = {}  # subject: P(PD), label

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
        prob_pd = engine.state.output["prob_pd"].tolist()
        labels = engine.state.output["label"].tolist() if self.labelled else [None] * len(prob_pd)
        rows = zip(prob_pd, labels, strict=True)
        self._rows.update(zip(engine.state.batch["subject"], rows, strict=True))

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
        writer.writerow(
            ["subject", "prob_pd", "class"] + ["label"] * self.labelled + ["trained_on"]
        )
        for subject, (prob_pd, label) in self._rows.items():
            known = [label] if self.labelled else []
            trained = int(subject in self.trained_on)
            writer.writerow([subject, f"{prob_pd:.6f}", int(prob_pd > 0.5), *known, trained])
        path = self.output_dir / "predictions.csv"
        write_text(path, table.getvalue())
        _logger.info("%d predictions are in %s (research use only)", len(self._rows), path)
        if self.labelled:
            self._write_metrics()

    def _write_metrics(self) -> None:
        prob_pd = [prob for prob, _ in self._rows.values()]
        labels = [label for _, label in self._rows.values() if label is not None]
        metrics = diagnosis_metrics(prob_pd, labels, seed=self.seed)
        table = f"{len(labels)} subjects\n{format_metrics(metrics)}"
        write_text(self.output_dir / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        write_text(self.output_dir / "metrics.txt", table + "\n")
        _logger.info(table)
