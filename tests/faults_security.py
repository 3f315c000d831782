"""Builders of the faults of security in faults.yaml.

A builder makes a fault below ``folder`` and yields what the row's command is filled with.
"""

import json
import sys
import zipfile
from contextlib import contextmanager

from attacks import SHELL, foreign_bundle, planted, poison
from tiny_run import make_run


def names(folder, cohort, bundle):
    """What every command may be filled with; an attack would make ``trace``."""
    return {
        "mrn": [sys.executable, "-W", "ignore", "-m", "mrn_components.app.cli"],
        "cohort": [str(cohort)],
        "out": [str(folder / "out")],
        "bundle": [str(bundle)],
    }


@contextmanager
def sound_bundle(folder, cohort):
    """A bundle without faults."""
    yield names(folder, cohort, make_run(folder / "bundle", seed=0))


@contextmanager
def weights_with_code(folder, cohort):
    """Good configs, and a payload for weights."""
    bundle = make_run(folder / "bundle", seed=0)
    poison(bundle / "models" / "model.pt", folder / "trace")
    yield names(folder, cohort, bundle)


@contextmanager
def hidden_target(folder, cohort):
    """An import path that only a reference leads to."""
    config = {"name": "os.system", "x": {"_target_": "@name", "command": SHELL}}
    config["initialize"] = "@x"
    config = planted(config, folder / "trace")
    bundle = foreign_bundle(folder / "bundle", **{"configs/inference.json": json.dumps(config)})
    (bundle / "configs" / "inference.yaml").unlink()
    yield names(folder, cohort, bundle)


@contextmanager
def zip_slip(folder, cohort):
    """A member that would be written beside the folder."""
    with zipfile.ZipFile(folder / "bundle.zip", "w") as file:
        file.writestr("../trace", "x")
    yield names(folder, cohort, folder / "bundle.zip")
