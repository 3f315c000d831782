"""Fixtures of every test that reads data."""

import logging
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from forks import Forks
from tiny_cohort import make_subject

from mrn_components.regions.roi import ROI

# A shell that starts the tests in the background has Ctrl-C ignored, in all their processes too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def seed() -> None:
    """The same random numbers in every run of a test, alone or among others.

    A test that needs no MONAI, or no torch, does not wait for it.
    """
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  what libraries draw from
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
    if "monai.utils" in sys.modules:
        sys.modules["monai.utils"].set_determinism(seed=0)


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    """Take back what ``mrn`` does to the logs of its process, where a test calls it in this one."""
    yield
    for name in (None, *logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        for handler in [*logger.handlers]:
            if type(handler).__module__ == "mrn_components.system.logs":
                logger.removeHandler(handler)
    logging.root.setLevel(logging.WARNING)


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


@pytest.fixture(scope="session", autouse=True)
def forks() -> Iterator[Forks]:
    """What forks processes; made before anything trains."""
    forks = Forks()
    yield forks
    forks.close()


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``evaluate`` draw nothing: most of its time, where a test looks at numbers alone."""
    monkeypatch.setattr("mrn_components.app.evaluate.write_figures", lambda *_: None)
