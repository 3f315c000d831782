"""``mrn init``: the bundles that come with the package, laid out where they can be edited."""

import filecmp
import shlex
import shutil
from pathlib import Path

import mrn_components
from mrn_components.app.installed import installed_bundles
from mrn_components.system.files import replacing

_PARTS = ("LICENSE", "configs", "docs")  # of a bundle; models, runs and caches are the user's


def init(folder: str | Path = ".") -> str:
    """Write the bundles that come with this package to DIR/bundles, for their configs to be edited.

    What is there already stays, if it is the same: an edited file is refused.

    Args:
        folder: where to write them; the current folder by default.

    Returns:
        What to type next.

    Raises:
        FileExistsError: naming files there that differ; nothing is written then.
    """
    bundles = Path(folder) / "bundles"
    pairs = {
        bundles / source.relative_to(root.parent): source
        for root in installed_bundles()
        for part in _PARTS
        for source in sorted([root / part, *(root / part).rglob("*")])
        if source.is_file()
    }
    there = {file: source for file, source in pairs.items() if file.exists()}
    changed = [f for f, own in there.items() if not filecmp.cmp(f, own, shallow=False)]
    if changed:
        listed = ", ".join(map(str, changed[:5])) + (", ..." if len(changed) > 5 else "")
        raise FileExistsError(
            f"{len(changed)} files are there and differ from those of mrn-components "
            f"{mrn_components.__version__}: {listed}. Name another folder, or move them away."
        )
    missing = pairs.keys() - there.keys()
    for file in sorted(missing):
        with replacing(file) as unfinished:
            shutil.copyfile(pairs[file], unfinished)
    written = bundles if missing else f"{bundles} (there already; nothing was written)"
    elsewhere = Path(folder).resolve() != Path.cwd()
    change = f"  cd {shlex.quote(str(folder))}\n" if elsewhere else ""
    small = "\"['bundles/mrn/configs/train.yaml','bundles/mrn/configs/small.yaml']\""
    return f"""bundles: {written}

For a first try on synthetic subjects:
{change}  mrn phantom data/phantom --subjects 96 --seed 1 --view midbrain
  python -W ignore::UserWarning:monai.bundle.scripts -m monai.bundle run --config_file {small}
  mrn phantom data/new --subjects 10 --seed 2 --view midbrain
  mrn predict data/new results --bundle bundles/mrn/runs/small --report
For images of your own: mrn check DIR, then train with --dataset_dir DIR."""
