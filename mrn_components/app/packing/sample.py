"""Two synthetic subjects in a packed bundle, and what its weights say of them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from monai.bundle import ConfigWorkflow

from mrn_components.data.predictions import PREDICTIONS
from mrn_components.data.tables import read_rows
from mrn_components.phantom import make_cohort

SAMPLE = "sample"
_SEED = 7777  # of no cohort that anybody trains on


class SampleRun(NamedTuple):
    """What a bundle's inference made of its sample."""

    table: list[dict[str, str]]  # rows of predictions.csv; none of a bundle that makes masks
    gpu: str  # that it ran on; "" for a CPU
    gpu_mb: int  # the most memory of it


def make_sample(folder: Path) -> None:
    """Write the sample, in the challenge's layout."""
    make_cohort(folder / SAMPLE, subjects=2, seed=_SEED, view="midbrain", workers=1)


def run_sample(folder: Path) -> SampleRun:
    """Predict the sample by the bundle's own config, in this process."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    with TemporaryDirectory() as output, _without_notes():
        workflow = ConfigWorkflow(
            config_file=str(folder / "configs" / "inference.json"),
            workflow_type="infer",
            logging_file=False,
            bundle_root=str(folder),
            dataset_dir=str(folder / SAMPLE),
            output_dir=output,
            num_workers=0,
        )
        workflow.initialize()
        workflow.run()
        table = Path(output, PREDICTIONS)
        rows = [dict(row) for _, row in read_rows(table, ())] if table.is_file() else []
    if not on_gpu:
        return SampleRun(rows, "", 0)
    return SampleRun(
        rows, torch.cuda.get_device_name(), round(torch.cuda.max_memory_allocated() / 2**20)
    )


@contextmanager
def _without_notes() -> Iterator[None]:
    """Log warnings alone: notes would name the temporary folder, which is gone when one reads."""
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
