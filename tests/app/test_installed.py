"""The bundles that come with the package are found wherever it lies."""

from pathlib import Path

import pytest

import mrn_components
from mrn_components.app.installed import installed_bundles

BUNDLES = sorted(path.parent for path in Path(__file__).parents[2].glob("bundles/*/configs"))


def test_a_package_finds_its_bundles_wherever_it_lies(tmp_path, monkeypatch):
    assert installed_bundles() == BUNDLES
    for place in ("wheel/mrn_components/bundles/mrn", "packed"):
        (tmp_path / place / "configs").mkdir(parents=True)
        (tmp_path / place / "configs" / "inference.yaml").touch()
    for package, bundle in (("wheel", "wheel/mrn_components/bundles/mrn"), ("packed", "packed")):
        file = tmp_path / package / "mrn_components" / "__init__.py"
        monkeypatch.setattr(mrn_components, "__file__", str(file))
        assert installed_bundles() == [tmp_path / bundle]
    monkeypatch.setattr(mrn_components, "__file__", str(tmp_path / "x" / "y" / "__init__.py"))
    with pytest.raises(FileNotFoundError, match="install it anew"):
        installed_bundles()
