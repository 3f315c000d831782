"""The commands of processes that train a bundle and that predict with it."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue

from mrn_components.bundle import bundle_config


def find_config(bundle: Path, name: str) -> Path:
    """A config by its name in the bundle's ``configs`` or by its path.

    Raises:
        FileNotFoundError: if neither is there.
    """
    for path in (bundle / "configs" / name, Path(name)):
        if path.is_file():
            return path.resolve()
    return bundle_config(bundle, name.removesuffix(".yaml")).resolve()


def train_command(
    configs: Sequence[Path], overrides: Mapping[str, Any], processes: int = 1
) -> list[str]:
    """``python -m monai.bundle run``, or the same by ``torchrun`` for several processes."""
    python = [sys.executable, "-W", "ignore", "-m"]
    if processes > 1:
        python += ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"]
    files = repr([str(config) for config in configs])
    return [*python, "monai.bundle", "run", "--config_file", files, *flags(overrides)]


def mrn_command(verb: str, *arguments: str, **options: Any) -> list[str]:
    """``mrn VERB ARGUMENTS --OPTIONS`` of the Python that runs this."""
    python = [sys.executable, "-W", "ignore", "-m", "mrn_components.app.cli"]
    return [*python, verb, *arguments, *flags(options)]


def flags(values: Mapping[str, Any]) -> list[str]:
    """``--key value`` of each, as fire, MONAI and ``mrn`` read them; a word stays as it is."""
    return [part for key, value in values.items() for part in (f"--{key}", _word(value))]


def _word(value: Any) -> str:
    plain = str(value)
    return plain if DefaultParseValue(plain) == value else repr(value)
