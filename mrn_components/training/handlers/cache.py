"""What a training keeps of its subjects while it runs."""

import shutil
from pathlib import Path
from typing import Any

from ignite import distributed as idist
from ignite.engine import Engine, Events


class CacheHandler:
    """Remove the cache in a run's own folder when the training ends.

    The crops of patients are no part of a bundle that is shared. A cache elsewhere, which other
    runs may find, stays; a run that was killed keeps its own until it goes on.

    Args:
        cache_dir: folder of the cache; None for no cache.
        output_dir: folder of the run.
    """

    def __init__(self, *, cache_dir: str | Path | None, output_dir: str | Path) -> None:
        folder = None if cache_dir is None else Path(cache_dir).resolve()
        inside = folder is not None and Path(output_dir).resolve() in folder.parents
        self.folder = folder if inside else None

    def attach(self, engine: Engine) -> None:
        """Subscribe to the trainer; last, since others look at the subjects once more."""
        engine.add_event_handler(Events.COMPLETED, self.clear)

    def clear(self, _engine: Any = None) -> None:
        """Remove the folder once no process reads it."""
        idist.barrier()
        if self.folder is not None and idist.get_rank() == 0:
            shutil.rmtree(self.folder, ignore_errors=True)
