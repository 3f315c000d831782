"""What an evaluation leaves behind: predictions.csv and, where labels are known, metrics."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ignite import distributed as idist
from ignite.engine import Engine, Events

from mrn_components.data.predictions import PREDICTIONS, prediction, write_predictions
from mrn_components.data.target import HC_PD, Target
from mrn_components.metrics import format_metrics
from mrn_components.system.errors import FailedSubjectsError
from mrn_components.system.files import write_json, write_text
from mrn_components.system.logs import keep_notices

_METRICS = ("metrics.json", "metrics.txt")

_logger = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class PredictionsHandler:
    """Write what is predicted of every subject, and the metrics of the cohort if it is labelled.

    ``predictions.csv`` has one row a subject, sorted, with the columns that ``data.predictions``
    describes. A subject whose prediction is no finite number fails: its row says why, no metrics
    are written, and the evaluation ends in an error when all others are predicted.

    ``metrics.json`` holds the target's metrics, such as ``diagnosis_metrics`` of HC and PD, and
    ``metrics.txt`` a table of it. Of several processes the first writes the subjects of all.

    Args:
        output_dir: folder of the files; each appears whole or not at all.
        target: what is predicted.
        labelled: whether the subjects have labels, and metrics are wanted.
        seed: seed of the bootstrap intervals.
        trained_on: the subjects that the weights were trained on.

    Raises:
        FailedSubjectsError: at the end, if a prediction is no finite number.
    """

    output_dir: str | Path
    target: Target = HC_PD
    labelled: bool = False
    seed: int = 1
    trained_on: Collection[str] = ()

    def __post_init__(self) -> None:
        self._rows: dict[str, dict[str, Any]] = {}  # subject: {column: value}

    def attach(self, engine: Engine) -> None:
        """Subscribe to an evaluator with ``decollate=False`` and ``DiagnosisOutputd`` behind it."""
        engine.add_event_handler(Events.STARTED, self.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def clear(self, _engine: Engine) -> None:
        """Forget the subjects of an earlier evaluation, and say where this one writes."""
        self._rows.clear()
        keep_notices(self.output_dir)

    def collect(self, engine: Any) -> None:
        """Take the batch's predictions."""
        output, batch = engine.state.output, engine.state.batch
        for index, subject in enumerate(batch["subject"]):
            row: dict[str, Any] = {"subject": subject}
            try:
                row |= prediction(self.target, output, index)
            except ValueError as error:
                row |= {"status": "failed", "error": str(error)}
            row["trained_on"] = int(subject in self.trained_on)
            row |= {key: batch[key][index] for key in ("missing_rois", "flags") if key in batch}
            if self.labelled:
                row["label"] = self.target.shown(float(output["label"][index]))
            self._rows[subject] = row

    def write(self, _engine: Engine) -> None:
        """Write the files."""
        of_all_ranks: Any = idist.all_gather(dict(self._rows))
        for rows in of_all_ranks:
            self._rows.update(rows)
        if idist.get_rank() > 0:
            return
        self._rows = dict(sorted(self._rows.items()))  # the intervals depend on the order
        rows = list(self._rows.values())
        path = Path(self.output_dir, PREDICTIONS)
        write_predictions(path, rows, self.target)
        _logger.info("%d predictions are in %s (research use only)", len(self._rows), path)
        errors = {row["subject"]: row["error"] for row in rows if "error" in row}
        if errors:
            for name in _METRICS:  # of an earlier evaluation
                Path(self.output_dir, name).unlink(missing_ok=True)
            lines = "\n".join(f"  {subject}: {error}" for subject, error in errors.items())
            raise FailedSubjectsError(
                f"{len(errors)} of {len(rows)} subjects failed; the others are in {path}.\n{lines}"
            )
        if self.labelled:
            self._write_metrics(rows)

    def _write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        columns = self.target.columns
        values = [[row[column] for column in columns] for row in rows]
        labels = [self.target.parse(row["label"]) for row in rows]
        predicted = np.array(values) if len(columns) > 1 else np.array(values)[:, 0]
        metrics = self.target.metrics(predicted, labels, self.seed)
        table = f"{len(labels)} subjects\n{format_metrics(metrics)}"
        write_json(Path(self.output_dir, _METRICS[0]), metrics)
        write_text(Path(self.output_dir, _METRICS[1]), table + "\n")
        _logger.info(table)
