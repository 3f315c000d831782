"""One seed an epoch, so that a resumed run repeats an uninterrupted one."""

from typing import Any

import numpy as np
from ignite import distributed as idist
from ignite.engine import Engine, Events
from ignite.utils import manual_seed
from monai.data.utils import set_rnd


class SeedHandler:
    """Seed every epoch from (seed, epoch, rank).

    Ignite makes an epoch's loader iterator after EPOCH_STARTED, so the order of the subjects and
    the seeds of the workers follow from it as well.

    Args:
        dataset: the training data set, whose MONAI random transforms keep states of their own.
        seed: seed of the run. Paper: 1 (section 4.1.1).
    """

    def __init__(self, *, dataset: Any, seed: int = 1) -> None:
        self.dataset = dataset
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Subscribe to the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.reseed)

    def reseed(self, engine: Any) -> None:
        """Seed torch, NumPy, ``random`` and the random transforms for the epoch.

        Raises:
            ValueError: for a loader that keeps its workers, whose random states cannot be seeded.
        """
        if getattr(engine.data_loader, "persistent_workers", False):
            raise ValueError(
                "the data loader has persistent_workers=True, so its workers cannot be seeded anew "
                "each epoch; set persistent_workers to False."
            )
        entropy = (self.seed, engine.state.epoch, idist.get_rank())
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        manual_seed(seed)
        set_rnd(self.dataset, seed)
