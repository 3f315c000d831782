"""The tokens of a frozen encoder, computed before a run needs them."""

import logging
import time
from collections.abc import Sequence
from typing import Any

from ignite import distributed as idist
from ignite.engine import Engine, Events

from mrn_components.data.tokens import TokenDataset

logger = logging.getLogger(__name__)


class TokenCacheHandler:
    """Encode the subjects before the first epoch; several processes share the work.

    It waits for the epoch, because a resumed run reads the weights of a random encoder before.

    Args:
        datasets: the data sets to encode.
    """

    def __init__(self, *, datasets: Sequence[TokenDataset]) -> None:
        self.datasets = datasets
        self.encoded = False

    def attach(self, engine: Engine) -> None:
        """Subscribe to the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.encode)

    def encode(self, _engine: Any) -> None:
        """Encode what the cache lacks."""
        if self.encoded:
            return
        started, rank, count = time.monotonic(), idist.get_rank(), idist.get_world_size()
        for dataset in self.datasets:
            dataset.encode(slice(rank, None, count))
        idist.barrier()
        self.encoded = True
        subjects = sum(len(dataset) for dataset in self.datasets)
        seconds = time.monotonic() - started
        logger.info("Tokens of %d subjects are in the cache (%.0f s)", subjects, seconds)
