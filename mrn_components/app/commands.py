"""The commands of processes that train a bundle and that predict with it."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue

from mrn_components.bundle import bundle_config

_PYTHON = [sys.executable, "-W", "ignore", "-m"]


def find_config(bundle: Path, name: str) -> Path:
    """A config by its name in the bundle's ``configs`` or by its path; one must be there."""
    for path in (bundle / "configs" / name, Path(name)):
        if path.is_file():
            return path.resolve()
    return bundle_config(bundle, name.removesuffix(".yaml")).resolve()


def train_command(
    configs: Sequence[Path], overrides: Mapping[str, Any], processes: int = 1
) -> list[str]:
    """``python -m monai.bundle run``, or the same by ``torchrun`` for several processes."""
    several = ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"]
    python = [*_PYTHON, *several] if processes > 1 else _PYTHON
    files = repr([str(config) for config in configs])
    return [*python, "monai.bundle", "run", "--config_file", files, *flags(overrides)]


def mrn_command(verb: str, *arguments: str, **options: Any) -> list[str]:
    """``mrn VERB ARGUMENTS --OPTIONS`` of the Python that runs this."""
    return [*_PYTHON, "mrn_components.app.cli", verb, *arguments, *flags(options)]


def flags(values: Mapping[str, Any]) -> list[str]:
    """``--key value`` of each, as fire, MONAI and ``mrn`` read them; a word stays as it is."""
    words = []
    for key, value in values.items():
        plain = str(value)
        words += [f"--{key}", plain if DefaultParseValue(plain) == value else repr(value)]
    return words
