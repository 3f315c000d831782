"""Everything in a bundle that could run when the bundle is used."""

import configparser
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import all_suffixes
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from monai.bundle import ConfigParser
from torch.serialization import get_unsafe_globals_in_checkpoint

import mrn_components
from mrn_components.app.inspect.archive import archive_problems, unpack_bundle
from mrn_components.app.inspect.configs import config_problems, metadata_problems
from mrn_components.system.errors import UntrustedBundleError
from mrn_components.system.hashes import verify_hashes

_logger = logging.getLogger(__name__)
_CONFIGS = (".json", ".yaml", ".yml")
_WEIGHTS = (".bin", ".ckpt", ".pt", ".pth")
# A FileHandler with a format of the bundle's own would write any text to any file.
_LOG_CLASSES = ("StreamHandler", "NullHandler", "Formatter")
_LOG_ARGUMENTS = ("()", "(sys.stdout,)", "(sys.stderr,)")


@dataclass(frozen=True)
class Problem:
    """Something in a bundle that may run code, or is not what was packed.

    Args:
        file: path in the bundle; "--" for an override from the command line.
        where: id in a config, else empty.
        what: what stands there and what is wrong with it.
    """

    file: str
    where: str
    what: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.where, self.what) if part)


def inspect(bundle: str | Path) -> str:
    """Say what in a bundle could run code or was changed, without running any of it.

    Ends with 3 if there is something. A guard, not a sandbox: see SECURITY.md.

    Args:
        bundle: folder of a bundle or of a training run, or a bundle's zip file.

    Returns:
        That there is nothing.

    Raises:
        SystemExit: if there is something, which is printed.
    """
    problems = inspect_bundle(bundle)
    if problems:
        print(*problems, sep="\n")
        print(f"{len(problems)} problems: do not run {bundle} unless you trust who made it.")
        raise SystemExit(UntrustedBundleError.exit_code)
    return f"{bundle} builds and computes only what is known to be harmless (SECURITY.md)."


def inspect_bundle(path: str | Path, overrides: Mapping[str, Any] | None = None) -> list[Problem]:
    """Look for what could run when a bundle is used; nothing of it is built, imported or unpickled.

    Args:
        path: folder of a bundle or of a training run, or a bundle's zip file.
        overrides: config keys and values that it is to be used with.

    Returns:
        The problems; empty if the bundle uses only what the allow-lists hold.

    Raises:
        FileNotFoundError: if ``path`` is no bundle.
    """
    path = Path(path)
    if not path.is_file():
        return list(_bundle_problems(path, overrides or {}))
    if problems := archive_problems(path):
        return [Problem(path.name, "", problem) for problem in problems]
    with TemporaryDirectory() as folder:
        root = unpack_bundle(path, Path(folder))
        return list(_bundle_problems(root, overrides or {}, name=str(path)))


def require_trusted(
    path: str | Path, overrides: Mapping[str, Any] | None = None, trust: bool = False
) -> None:
    """Refuse a bundle with problems; call it before anything of the bundle is built.

    Args:
        path: as of ``inspect_bundle``.
        overrides: as of ``inspect_bundle``.
        trust: use it in spite of its problems, which are logged.

    Raises:
        UntrustedBundleError: naming the problems.
        FileNotFoundError: if ``path`` is no bundle.
    """
    problems = inspect_bundle(path, overrides)
    if problems and trust:
        _logger.warning("%s is trusted in spite of %d problems", path, len(problems))
    elif problems:
        listed = "\n".join(f"  {problem}" for problem in problems[:20])
        raise UntrustedBundleError(
            f"{path} could run code of its own, or was changed; nothing of it was run:\n{listed}\n"
            f"`mrn inspect {path}` lists all {len(problems)} problems. If you have read them and "
            "trust who made the bundle, add --trust_bundle True."
        )


def _bundle_problems(
    root: Path, overrides: Mapping[str, Any], name: str | None = None
) -> Iterator[Problem]:
    configs = sorted(
        file for file in (root / "configs").rglob("*") if file.suffix.lower() in _CONFIGS
    )
    if not configs:
        raise FileNotFoundError(
            f"{name or root} is no bundle: it has no configs/*.yaml or .json. Name a bundle "
            "(bundles/mrn), its zip file, or the folder of a training run."
        )
    for changed, what in verify_hashes(root).items():
        yield Problem(changed, "", what)
    yield from _code_problems(root)
    absolute = {file.resolve() for file in configs}
    for file in configs:
        yield from _config_file_problems(root, file, absolute)
    for where, what in config_problems(overrides, absolute):
        yield Problem("--", where, what)
    others = [file for part in ("configs", "models") for file in (root / part).rglob("*")]
    for file in sorted(others):
        found = _logging_problem(file) if file.suffix == ".conf" else None
        if file.suffix in _WEIGHTS:
            found = _weights_problem(file)
        if found is not None:
            yield Problem(file.relative_to(root).as_posix(), "", found)


def _code_problems(root: Path) -> Iterator[Problem]:
    """Python files: MONAI puts a bundle's folder before the installed packages on the path."""
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            folders.clear()  # a link that leads round
            continue
        seen.add(real)
        for name in sorted(files):
            if name.endswith(tuple(all_suffixes())):
                file = Path(folder, name).relative_to(root)
                if not _is_ours(root, file):
                    what = "Python code, which an import may run"
                    yield Problem(file.as_posix(), "", what)


def _is_ours(root: Path, file: Path) -> bool:
    """Whether a file is a copy of one of the package that runs this, as packed bundles hold."""
    installed = Path(mrn_components.__file__).parent.parent / file
    of_package = file.parts[0] == "mrn_components" and file.suffix == ".py"
    return (
        of_package and installed.is_file() and installed.read_bytes() == (root / file).read_bytes()
    )


def _config_file_problems(root: Path, file: Path, configs: set[Path]) -> Iterator[Problem]:
    name = file.relative_to(root).as_posix()
    try:
        config = ConfigParser.load_config_file(str(file))
    except (ValueError, OSError, RecursionError, yaml.YAMLError) as error:
        yield Problem(name, "", f"it cannot be read ({type(error).__name__})")
        return
    is_metadata = name == "configs/metadata.json"
    found = metadata_problems(config) if is_metadata else config_problems(config, configs)
    for where, what in found:
        yield Problem(name, where, what)


def _logging_problem(file: Path) -> str | None:
    """What is wrong with a logging.conf, whose classes and arguments Python evaluates."""
    parser = configparser.ConfigParser()
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
        for section in parser.sections():
            name = parser.get(section, "class", fallback="NullHandler").removeprefix("logging.")
            arguments = parser.get(section, "args", fallback="()").replace(" ", "")
            if name not in _LOG_CLASSES or arguments not in _LOG_ARGUMENTS:
                return f"[{section}] may only log to the console, got {name}{arguments}"
            if parser.has_option(section, "kwargs"):
                return f"[{section}] may have no kwargs"
    except (configparser.Error, ValueError, OSError) as error:
        return f"it cannot be read ({type(error).__name__})"
    return None


def _weights_problem(file: Path) -> str | None:
    """What is wrong with a file of weights; reads what it would import, and imports nothing."""
    try:
        unsafe = get_unsafe_globals_in_checkpoint(file)
    except Exception as error:  # whatever a broken pickle brings about
        return f"it is no checkpoint of tensors ({type(error).__name__})"
    return f"it would run {', '.join(sorted(unsafe))}" if unsafe else None
