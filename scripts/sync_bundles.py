"""Copy the blocks that configs share from bundles/mrn into the others.

A block stands between ``# >>> shared: NAME`` and ``# <<< shared``.

    python scripts/sync_bundles.py           # write them into every other config that has them
    python scripts/sync_bundles.py --check   # write nothing; name what differs and exit with 1

The block of a name is that of bundles/mrn/configs/train.yaml, or else of the inference.yaml there,
or else of an overlay there.
"""

import argparse
import re
import sys
from pathlib import Path

BUNDLES = Path(__file__).resolve().parent.parent / "bundles"
_BLOCK = re.compile(
    r"^ *# >>> shared: (?P<name>\w+)\n(?P<text>.*?)^ *# <<< shared$", re.MULTILINE | re.DOTALL
)


def blocks(config: str) -> dict[str, str]:
    """The shared blocks of a config's text, fences included."""
    return {match["name"]: match[0] for match in _BLOCK.finditer(config)}


def synced(config: str, source: dict[str, str]) -> str:
    """The config's text with its shared blocks as in ``source``.

    Raises:
        ValueError: for a block that ``source`` does not have.
    """
    if unknown := blocks(config).keys() - source:
        raise ValueError(
            f"blocks {sorted(unknown)} stand in no config of bundles/mrn, which has "
            f"{sorted(source)}; write them there first."
        )
    return _BLOCK.sub(lambda match: source[match["name"]], config)


def sync(bundles: Path, *, check: bool) -> list[str]:
    """Copy the blocks of ``bundles/mrn`` into the other configs.

    Args:
        bundles: folder of the bundles.
        check: write nothing.

    Returns:
        "bundle/configs/file: block" of every block that differed.
    """
    first = [bundles / "mrn" / "configs" / f"{name}.yaml" for name in ("train", "inference")]
    overlays = sorted(set(first[0].parent.glob("*.yaml")).difference(first))
    source: dict[str, str] = {}
    for path in [*first, *overlays]:
        source = blocks(path.read_text()) | source
    differing = []
    for path in sorted(bundles.glob("*/configs/*.yaml")):
        old = path.read_text()
        new = synced(old, source)
        fresh = blocks(new)
        differing += [
            f"{path.relative_to(bundles)}: {name}"
            for name, text in blocks(old).items()
            if text != fresh[name]
        ]
        if new != old and not check:
            path.write_text(new)
    return differing


def main() -> int:
    """Run the command; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 on difference")
    check = parser.parse_args().check
    differing = sync(BUNDLES, check=check)
    for block in differing:
        print(f"{block} differs from bundles/mrn" if check else f"{block} rewritten")
    if check and differing:
        print("Run python scripts/sync_bundles.py.")
    return int(check and bool(differing))


if __name__ == "__main__":
    sys.exit(main())
