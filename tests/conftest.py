"""Fixtures of every test that reads data."""

import multiprocessing
import os
import signal
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from tiny_cohort import make_subject

from mrn_components.regions.roi import ROI

# A shell that starts the tests in the background has Ctrl-C ignored, in all their processes too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def seed() -> None:
    """The same random numbers in every run of a test, alone or among others."""
    # Here, so that pytest's process that only hands out tests does not wait for MONAI.
    from monai.utils import set_determinism

    set_determinism(seed=0)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten subjects, five of each class; read-only by convention (copy it to change it)."""
    root = tmp_path_factory.mktemp("cohort")
    rows = []
    for number in range(10):
        name = f"SUBJ_{number:03d}"
        make_subject(root / name, label=number % 2, seed=number)
        rows.append(f"{name},{number % 2}")
    (root / "train_cases.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture
def rois() -> dict[str, ROI]:
    """The paper's four regions, small."""
    return {
        "nm": ROI(image="nm", nuclei=["SN"], size=28),
        "qsm1": ROI(image="qsm", nuclei=["CN", "PUT", "GP", "TH"], size=42),
        "qsm2": ROI(image="qsm", nuclei=["STN", "SN", "RN"], size=28),
        "qsm3": ROI(image="qsm", nuclei=["DN"], size=28),
    }


@pytest.fixture
def processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ForkServerContext:
    """Forks of a process that imported torch and trained nothing: torch trains in no others."""
    folders = (Path(__file__).parent, request.path.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, folders)), prepend=os.pathsep)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([request.module.__name__])
    return context
