"""A wheel holds the bundles: `mrn init` lays them out, and foreign ones are compared with them."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_wheel_alone_is_enough(tmp_path, cohort):
    """In an empty folder, far from the repository: bundles, a training, a prediction, its pages."""
    source = tmp_path / "source"
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in tracked.stdout.split("\0")[:-1]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(source)], check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        held = set(wheel.namelist())
    package = {p.relative_to(source).as_posix() for p in source.glob("mrn_components/**/*.*")}
    configs = {
        f"mrn_components/{p.relative_to(source)}"
        for part in ("configs", "docs")
        for p in source.glob(f"bundles/*/{part}/*")
    }
    assert len(configs) > 20
    assert held >= package | configs

    shutil.rmtree(source)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "installed")
    (empty := tmp_path / "empty").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}

    def call(*words):
        words = [sys.executable, *words]
        subprocess.run(words, cwd=empty, env=environment, check=True, capture_output=True)

    mrn = ("-m", "mrn_components.app.cli")
    call("-c", "import mrn_components as m; assert 'installed' in m.__file__, m.__file__")
    call(*mrn, "init", ".")
    files = "['bundles/mrn/configs/train.yaml','bundles/mrn/configs/small.yaml']"
    few = ("--dataset_dir", str(cohort), "--epochs", "1")
    call("-m", "monai.bundle", "run", "--config_file", files, *few)
    call(*mrn, "predict", str(cohort), "out", "--bundle", "bundles/mrn/runs/small", "--report")
    assert len(list((empty / "out").glob("subjects/*/*.html"))) == 10
    assert (empty / "out" / "index.html").is_file()
