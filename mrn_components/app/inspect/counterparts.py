"""What a foreign bundle is compared with: the inference configs that come with this package."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

from mrn_components.app.ensemble import ensemble_config
from mrn_components.app.installed import installed_bundles
from mrn_components.bundle import bundle_config
from mrn_components.system.plain_data import read_plain


def counterparts(theirs: Mapping[str, Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the installed bundles that an inference config may be of, and theirs.

    Where it names its bundle, that one is yielded, else all. For an ensemble ours is one too, of as
    many networks.
    """
    root = theirs.get("bundle_root")
    name = root.get("name") if isinstance(root, Mapping) else None
    bundles = installed_bundles()
    for bundle in [path for path in bundles if path.name == name] or bundles:
        ours = deepcopy(_inference(bundle))  # else one bundle's data would stay for the next
        network, paths = theirs.get("network"), theirs.get("ckpt_path")
        of_folds = isinstance(network, Mapping) and "num_folds" in network
        if of_folds and isinstance(paths, list) and {"network", "checkpoint"} <= ours.keys():
            ours = ensemble_config(ours, len(paths))
        yield bundle, ours


@lru_cache
def _inference(bundle: Path) -> dict[str, Any]:
    return read_plain(bundle_config(bundle, "inference"))
