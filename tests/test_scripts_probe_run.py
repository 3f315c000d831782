import re
import runpy
import sys
from pathlib import Path

import pytest
from tiny_run import make_run

from mrn_components.data.weight_records import REFERENCES, append_record

SCRIPT = Path(__file__).parents[1] / "scripts" / "probe_run.py"
ROIS = ["nm", "qsm1", "qsm2", "qsm3"]
ROWS = {"regions": ROIS, "shapley": ROIS, "voxels": ["0.5 x 2", "2 x 0.5"]}


@pytest.fixture
def run(tmp_path):
    run = make_run(tmp_path / "run", seed=0)
    subjects = {"HC": [[0.1] * 128] * 2, "PD": [[-0.1] * 128] * 2}
    append_record(run / "models" / "model.pt", REFERENCES, {"rois": ROIS, "subjects": subjects})
    return run


@pytest.mark.slow
@pytest.mark.parametrize("probe", ROWS)
def test_a_probe_prints_its_table(probe, run, cohort, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["probe", probe, str(run), str(cohort), "--subjects", "2"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    out = capsys.readouterr().out
    for row in ROWS[probe]:
        assert re.search(rf"^\| {row}.* \|( \d\.\d{{3}},?){{1,2}}", out, flags=re.MULTILINE), out
