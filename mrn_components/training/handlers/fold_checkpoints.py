"""Weights of an ensemble."""

from collections.abc import Sequence
from typing import Any

from ignite.engine import Engine
from monai.handlers import CheckpointLoader
from monai.utils import ensure_tuple

from mrn_components.networks.ensemble import FoldEnsemble
from mrn_components.system.files import existing_file

_HINT = "Train this fold first, or name the weights by --ckpt_path \"['FILE','FILE']\"."


class FoldCheckpointLoader:
    """Read the weights of every fold of an ensemble when the engine starts.

    Args:
        network: the ensemble.
        paths: a file of weights for each of its folds, in their order; one file for one fold.
        map_location: as of ``torch.load``.

    Raises:
        ValueError: if there are not as many files as folds.
        FileNotFoundError: if a file is missing.
    """

    def __init__(
        self,
        *,
        network: FoldEnsemble,
        paths: str | Sequence[str],
        map_location: Any = None,
    ) -> None:
        files = [existing_file(path=str(path), hint=_HINT) for path in ensure_tuple(paths)]
        if len(files) != len(network.folds):
            raise ValueError(
                "FoldCheckpointLoader paths must name one file for each of the "
                f"{len(network.folds)} folds, got {files}; make network#num_folds their number."
            )
        self.loaders = [
            CheckpointLoader(file, {"network": fold}, map_location=map_location)
            for file, fold in zip(files, network.folds, strict=True)
        ]

    def attach(self, engine: Engine) -> None:
        """Subscribe to an evaluator."""
        for loader in self.loaders:
            loader.attach(engine)
