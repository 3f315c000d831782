"""What a bundle's folder holds besides its inference config: weights, plans, code, odd files."""

import filecmp
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.machinery import all_suffixes
from pathlib import Path
from typing import Any

from monai.bundle import ReferenceResolver
from torch.serialization import get_unsafe_globals_in_checkpoint

import mrn_components
from mrn_components.app.calibration import CALIBRATION, read_calibration
from mrn_components.app.inspect.compare import Difference, Effect
from mrn_components.app.inspect.vocabulary import Vocabulary
from mrn_components.segmentation.plan import read_plan
from mrn_components.system.errors import DamagedFileError
from mrn_components.system.files import WEIGHTS, check_digest
from mrn_components.system.hashes import verify_hashes
from mrn_components.system.plain_data import CONFIGS, read_plain

_MOST_FILES = 200_000  # links can lead anywhere
_PACKAGE = mrn_components.__name__
_CODE = tuple(all_suffixes())


def content_differences(root: Path, installed: Sequence[Path]) -> Iterator[Difference]:
    """Look at all files of a bundle, which is compared with some installed ones; import none."""
    for name, what in verify_hashes(root).items():
        yield Difference(name, "", what)
    for count, file in enumerate(_walk(root)):
        name = file.relative_to(root).as_posix()
        if count == _MOST_FILES:
            yield Difference(name, "", f"the bundle has more than {_MOST_FILES:,} files")
            return
        yield from _file_differences(root, file, name, installed)


def _file_differences(
    root: Path, file: Path, name: str, installed: Sequence[Path]
) -> Iterator[Difference]:
    room = name.split("/")[0]
    if not file.is_file():
        if room in ("configs", "models"):
            yield Difference(name, "", "it is no regular file, or a link that leads nowhere")
    elif room == _PACKAGE:
        twin = Path(mrn_components.__file__).parent / file.relative_to(root / _PACKAGE)
        if not twin.is_file() or not filecmp.cmp(twin, file, shallow=False):
            what = f"not as in the installed {_PACKAGE} {mrn_components.__version__}"
            yield Difference(name, "", what)
    elif name.endswith(_CODE):
        yield Difference(name, "", "Python code, which an import may run")
    elif room == "configs":
        yield from _config_differences(file, name, installed)
    elif name == f"models/{CALIBRATION}":
        try:
            read_calibration(file)
        except ValueError as error:
            yield Difference(name, "", str(error))
    elif room == "models" and file.suffix.lower() in WEIGHTS:
        yield from (Difference(name, "", problem) for problem in _weights_problems(file))


def _walk(root: Path) -> Iterator[Path]:
    """Yield all that is no folder, once, also behind links; folders named as weights too."""
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            folders.clear()  # a link that leads round
            continue
        seen.add(real)
        folders.sort()
        odd = [name for name in folders if name.lower().endswith((*WEIGHTS, *CONFIGS))]
        yield from (Path(folder, name) for name in sorted([*files, *odd]))


def _config_differences(file: Path, name: str, installed: Sequence[Path]) -> Iterator[Difference]:
    """What in a config that prediction does not read would run if somebody trained from it."""
    is_plan = file.name.startswith("plan_") and file.suffix == ".json"
    effect: Effect = "refused" if is_plan else "not predicted with"
    try:
        if is_plan:
            read_plan(file)
        elif file.suffix.lower() in CONFIGS and not name.startswith("configs/inference."):
            is_text = name == "configs/metadata.json"
            known = Vocabulary(paths=True) if is_text else _of_training(tuple(installed))
            for where, what in known.strange(read_plain(file)):
                yield Difference(name, where, what, effect)
        elif file.suffix == ".conf":
            twins = [bundle / "configs" / file.name for bundle in installed]
            if not any(twin.is_file() and filecmp.cmp(twin, file, shallow=False) for twin in twins):
                what = "not as installed: Python evaluates what a set-up of logs names"
                yield Difference(name, "", what, effect)
    except ValueError as error:
        yield Difference(name, "", str(error), effect)


@lru_cache
def _of_training(installed: tuple[Path, ...]) -> Vocabulary:
    """What may stand in a config that prediction does not read: what our configs have."""
    ours: list[Mapping[str, Any]] = []
    for bundle in installed:
        files = sorted((bundle / "configs").iterdir())
        configs = {f.stem: read_plain(f) for f in files if f.suffix in CONFIGS}
        ours += configs.values()
        for overlay in configs.values():
            ours += _overlaid(overlay, configs.get("train", {}))
    registered = [f"{_PACKAGE}.{name}" for name in mrn_components.__all__]
    return Vocabulary(*ours, parts=registered, paths=True)


def _overlaid(overlay: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each part of a config to which an overlay gives an argument, with this alone."""
    for key, value in overlay.items():
        *above, name = ReferenceResolver.split_id(str(key).lstrip("+"))
        part: Any = config
        for step in above:
            part = part.get(step) if isinstance(part, Mapping) else None
        if above and isinstance(part, Mapping) and isinstance(part.get("_target_"), str):
            yield {"_target_": part["_target_"], name: value}


def _weights_problems(file: Path) -> Iterator[str]:
    """What is wrong with a file of weights; nothing that it names is imported."""
    try:
        check_digest(file)
        if not zipfile.is_zipfile(file):
            yield "it has no checksums (torch's old format): read it safely, and save it anew"
        if unsafe := get_unsafe_globals_in_checkpoint(file):
            yield f"it would run {', '.join(sorted(unsafe))}"
    except DamagedFileError as error:
        yield str(error)
    except Exception as error:  # whatever a broken pickle brings about
        yield f"it is no checkpoint of tensors ({type(error).__name__})"
