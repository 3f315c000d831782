"""Where the bundles lie that come with the package."""

from pathlib import Path

import mrn_components


def installed_bundles() -> list[Path]:
    """Return the folders of the bundles that come with the package, at least one.

    A wheel has them in the package, a repository beside it; a packed bundle is the one it holds.

    Raises:
        FileNotFoundError: if the installation lacks them.
    """
    package = Path(mrn_components.__file__).resolve().parent
    for folder in (package / "bundles", package.parent / "bundles"):
        if found := sorted(path.parents[1] for path in folder.glob("*/configs/inference.*")):
            return list(dict.fromkeys(found))
    if any(package.parent.glob("configs/inference.*")):
        return [package.parent]
    raise FileNotFoundError(
        f"{package} came without bundles, which foreign ones are compared with; install it anew."
    )
