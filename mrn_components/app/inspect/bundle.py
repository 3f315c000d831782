"""Everything in a bundle that is not data, and the installed config with its data in it."""

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mrn_components.app.inspect.archive import archive_problems, unpack_bundle
from mrn_components.app.inspect.compare import Comparison, Difference, compare, strange_words
from mrn_components.app.inspect.contents import content_differences
from mrn_components.app.inspect.counterparts import counterparts
from mrn_components.bundle import RunArguments, bundle_config
from mrn_components.system.errors import UntrustedBundleError
from mrn_components.system.plain_data import CONFIGS, read_plain

_logger = logging.getLogger(__name__)
_TRUST = "If you have read them and trust who made the bundle, add --trust_bundle True."


def inspect(bundle: str | Path) -> str:
    """Say what in a bundle is not data or was changed, without running any of it.

    Compares it with the installed bundle. Ends with 3 if prediction would refuse it, or a training
    from it would run something else. A guard, not a sandbox: see SECURITY.md.

    Args:
        bundle: folder of a bundle or of a training run, or a bundle's zip file.

    Raises:
        SystemExit: if it is not data; what differs is printed.
    """
    found = inspect_bundle(bundle)
    for difference in found:
        print(difference)
    if count := sum(difference.effect != "ours is used" for difference in found):
        print(f"{count} problems: do not run {bundle} unless you trust who made it.")
        raise SystemExit(UntrustedBundleError.exit_code)
    return f"{bundle} is data, as far as `mrn` uses it (SECURITY.md)."


def inspect_bundle(path: str | Path) -> list[Difference]:
    """List what in a bundle is not data; nothing of it is built, imported or unpickled.

    The bundle is a folder, that of a training run or a zip file, or else a FileNotFoundError.
    """
    path = Path(path)
    if not path.is_file():
        return list(_differences(path, str(path)))
    if problems := archive_problems(path):
        return [Difference(path.name, "", problem) for problem in problems]
    with TemporaryDirectory() as folder:
        try:
            root = unpack_bundle(path, Path(folder))
        except ValueError as error:
            return [Difference(path.name, "", str(error))]
        return list(_differences(root, str(path)))


def check_data(path: str | Path) -> None:
    """Refuse a bundle that is not data, of which no zip may be made, by an UntrustedBundleError."""
    if found := [each for each in inspect_bundle(path) if each.effect == "refused"]:
        raise _untrusted(Path(path), found, "A packed bundle holds data alone: take these out.")


def open_bundle(
    path: str | Path, overrides: Mapping[str, Any], trust: bool = False
) -> tuple[Path, dict[str, Any]]:
    """Find the inference config that predicts with a bundle.

    It is the installed one, into which the data of the bundle's own are put: no expression of the
    bundle is ever evaluated. A trusted bundle is used with its own config as it stands.

    Args:
        path: folder of a bundle, or of a training run.
        overrides: config keys and values of the user, who may name files, but no other parts.
        trust: use the bundle in spite of what differs, which is logged.

    Returns:
        A config file, and what to put into it: ``overrides`` and the bundle's folder included.

    Raises:
        UntrustedBundleError: naming what differs.
        FileNotFoundError: if ``path`` is no bundle.
        ValueError: for an override that the config does not know.
    """
    root = Path(path)
    found = [each for each in inspect_bundle(root) if each.effect == "refused"]
    trusted = trust is True  # no text, such as "false"
    if found and not trusted:
        raise _untrusted(root, found)
    file, settings = bundle_config(root, "inference"), {}
    if not trusted:
        bundle, config, result = _closest(read_plain(file), file.name)
        file = bundle_config(bundle, "inference")
        installed = read_plain(file)
        config = {**config, **result.settings}
        settings = {key: value for key, value in config.items() if value != installed.get(key)}
    given = RunArguments((file,), {**settings, **overrides}).typed().overrides
    overrides = {key: given[key] for key in overrides}  # no is False
    typed = list(_typed_differences(file, settings, overrides))
    if typed and not trusted:
        raise _untrusted(root, typed)
    if found or typed:
        _logger.warning("%s is trusted in spite of %d differences", path, len(found) + len(typed))
    return file, {**settings, "bundle_root": str(path), **overrides}


def _untrusted(root: Path, found: list[Difference], advice: str = _TRUST) -> UntrustedBundleError:
    listed = "\n".join(f"  {difference}" for difference in found[:20])
    return UntrustedBundleError(
        f"{root} is not data alone, or was changed; nothing of it was run:\n{listed}\n"
        f"`mrn inspect {root}` lists all. {advice}"
    )


def _closest(theirs: Mapping[str, Any], file: str) -> tuple[Path, dict[str, Any], Comparison]:
    """Compare a config with the installed one that it differs least from."""
    compared = [(path, ours, compare(theirs, ours, file)) for path, ours in counterparts(theirs)]
    # Of bundles that could both be meant, that of which least is replaced.
    counts = [
        (sum(effect == "refused" for *_, effect in found), len(found), len(settings))
        for *_, (settings, found) in compared
    ]
    return compared[counts.index(min(counts))]


def _typed_differences(
    file: Path, settings: Mapping[str, Any], overrides: Mapping[str, Any]
) -> Iterator[Difference]:
    """What the user's own words would build or evaluate besides what the config does."""
    config = RunArguments((file,), settings).merged()
    changed = RunArguments((file,), {**settings, **overrides}).merged()
    for key in {re.split("#|::", key.lstrip("+"))[0]: None for key in overrides}:
        if key in changed:  # monai.bundle.run has sections of its own
            for where, what in strange_words(key, changed[key], config, paths=True):
                yield Difference("--", where, what)


def _differences(root: Path, name: str) -> Iterator[Difference]:
    files = [root / "configs" / f"inference{suffix}" for suffix in CONFIGS]
    if not any(file.is_file() for file in files):
        raise FileNotFoundError(
            f"{name} is no bundle: it has no configs/inference.yaml or .json. Name a bundle "
            "(bundles/mrn), its zip file, or the folder of a training run."
        )
    installed: list[Path] = []
    for file in filter(Path.exists, files):
        where = f"configs/{file.name}"
        try:
            bundle, _, result = _closest(read_plain(file), where)
        except ValueError as error:
            yield Difference(where, "", str(error))
        else:
            installed.append(bundle)
            yield from result.found
    yield from content_differences(root, installed)
