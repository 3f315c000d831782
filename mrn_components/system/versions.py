"""The versions that results rest on."""

import platform
from importlib.metadata import version

import mrn_components


def versions_with(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of Python, of this package and of further ones, by name."""
    own = {"python": platform.python_version(), "mrn_components": mrn_components.__version__}
    return own | {name: version(name) for name in packages}
