import shlex
from pathlib import Path

import pytest

from mrn_components.app.init import init
from mrn_components.app.installed import installed_bundles

ROOT = Path(__file__).parents[2]


def files_of(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_bundles_are_written_whole_and_once(tmp_path, monkeypatch):
    told = init(tmp_path)
    written = files_of(tmp_path / "bundles")
    assert {path.parts[0] for path in written} == {"mrn", "seres10", "segmentation"}
    tracked = files_of(ROOT / "bundles")
    assert written.items() <= tracked.items()
    of_bundles = ("configs", "docs", "LICENSE")
    assert all(path in written for path in tracked if path.parts[1] in of_bundles)
    assert f"\n  cd {shlex.quote(str(tmp_path))}\n  mrn phantom" in told
    assert "nothing was written" not in told
    first, _, rest = told.partition("\n")
    assert init(tmp_path) == f"{first} (there already; nothing was written)\n{rest}"
    monkeypatch.chdir(tmp_path)
    assert "  cd " not in init()
    assert files_of(tmp_path / "bundles") == written


def test_an_edited_config_stays_and_nothing_is_written(tmp_path):
    edited = tmp_path / "bundles" / "mrn" / "configs" / "train.yaml"
    edited.parent.mkdir(parents=True)
    edited.write_text("epochs: 3\n")
    with pytest.raises(FileExistsError, match=r"1 files .*mrn/configs/train.yaml\. Name another"):
        init(tmp_path)
    assert files_of(tmp_path) == {edited.relative_to(tmp_path): b"epochs: 3\n"}


def test_no_link_that_leads_nowhere_is_followed(tmp_path):
    config = tmp_path / "bundles" / "mrn" / "configs" / "train.yaml"
    config.parent.mkdir(parents=True)
    config.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError, match="is a symbolic link"):
        init(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_what_it_says_to_type_next_is_what_the_bundles_have(tmp_path):
    """The names of the run and of the data in the advice are those of the configs."""
    told = init(tmp_path)
    configs = tmp_path / "bundles" / "mrn" / "configs"
    assert "bundles/mrn/runs/small" in told
    script = (ROOT / "scripts" / "quickstart.sh").read_text()
    quiet = "python -W ignore::UserWarning:monai.bundle.scripts -m monai.bundle run"
    assert quiet in told
    assert quiet in script
    assert "\nrun_name: small\n" in (configs / "small.yaml").read_text()
    assert "\ndataset_dir: data/phantom " in (configs / "train.yaml").read_text()
    assert "mrn phantom data/phantom " in told
    assert installed_bundles()[0].name == "mrn"
