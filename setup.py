"""What setup.cfg cannot say: the bundles lie beside the package, and come with it."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["mrn_components*"]), "mrn_components.bundles"],
    package_dir={"mrn_components.bundles": "bundles"},
)
