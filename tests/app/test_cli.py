"""The ``mrn`` command as a user types it."""

import subprocess
import sys
from pathlib import Path

import pytest

import mrn_components
from mrn_components.app import cli

ROOT = Path(__file__).parent.parent.parent


def mrn(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["mrn", *arguments])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # main replaces it
    cli.main()
    return capsys.readouterr().out


def test_version(monkeypatch, capsys):
    assert mrn(monkeypatch, capsys, "version").strip() == mrn_components.__version__


def test_components_lists_the_register(monkeypatch, capsys):
    lines = mrn(monkeypatch, capsys, "components").strip().splitlines()
    assert [line.split()[0] for line in lines] == mrn_components.__all__
    assert all(len(line.split()) > 2 for line in lines)


@pytest.mark.parametrize("option", ["--subject", "--workesr=1", "--no-such"])
def test_a_misspelt_option_is_refused_before_anything_is_done(
    monkeypatch, capsys, tmp_path, option
):
    with pytest.raises(ValueError, match=rf"{option}: `mrn phantom` has no such .*--subjects"):
        mrn(monkeypatch, capsys, "phantom", str(tmp_path / "cohort"), option, "2")
    assert list(tmp_path.iterdir()) == []


def test_phantom_makes_a_cohort(monkeypatch, capsys, tmp_path):
    out = tmp_path / "cohort"
    options = ["--subjects", "2", "--view", "midbrain", "--workers", "1"]
    assert "2 synthetic subjects" in mrn(monkeypatch, capsys, "phantom", str(out), *options)
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == [
        "PHAN1_000",
        "PHAN1_001",
    ]


@pytest.mark.parametrize("names", ["MRN,baseline", "mrn-1,base line", "1,2"])
def test_evaluate_prints_the_table_and_reads_names_as_typed(monkeypatch, capsys, tmp_path, names):
    table = tmp_path / "predictions.csv"
    table.write_text("subject,prob_pd,label\nS0,0.1,0\nS1,0.4,1\nS2,0.6,0\nS3,0.9,1\n")
    options = ["--against", str(table), "--names", names, "--output", str(tmp_path / "out")]
    out = mrn(monkeypatch, capsys, "evaluate", str(table), str(table), *options)
    assert "accuracy           0.500  0.150 to 0.850 (Wilson)" in out
    assert " minus ".join(names.split(",")) in out
    assert out.splitlines()[-1] == f"metrics and figures: {tmp_path / 'out'}"


def test_inspect_passes_our_bundle_and_ends_with_3_for_another(monkeypatch, capsys, tmp_path):
    assert "is data, as far as `mrn` uses it" in mrn(
        monkeypatch, capsys, "inspect", str(ROOT / "bundles" / "mrn")
    )
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "inference.json").write_text('{"x": {"_target_": "os.system"}}')
    with pytest.raises(SystemExit) as end:
        mrn(monkeypatch, capsys, "inspect", str(tmp_path))
    assert end.value.code == 3
    out = capsys.readouterr().out
    assert "configs/inference.json: x#_target_: 'os.system': no part that a bundle may" in out
    assert "2 problems: do not run" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            ["mrn", "predict", "COHORT", "out", "--bundle", "nothing"],
            "error: nothing is no bundle: it has no configs/*.yaml or .json. Name a bundle",
        ),
        (
            ["mrn", "evaluate", "nowhere.csv", "labels.csv"],
            "error: nowhere.csv is not there; `mrn predict INPUT OUTPUT` writes",
        ),
        (
            ["run", "bundles/mrn/configs/train.yaml", "--dataset_dir", "nowhere"],
            "mrn phantom",
        ),
        (
            ["run", "bundles/mrn/configs/train.yaml", "--lerning_rate", "3"],
            "error: --lerning_rate: the config has no 'lerning_rate'.",
        ),
        (
            ["run", "bundles/mrn/configs/train.yaml", "--encoder_weights", "no.pth"],
            "--encoder_weights PATH",
        ),
        (
            ["run", "bundles/mrn/configs/train.yaml"],  # no network here
            "--encoder_weights PATH",
        ),
        (
            ["run", "bundles/mrn/configs/inference.yaml", "--ckpt_path", "no.pt"],
            "error: no.pt is not there. Train first",
        ),
    ],
    ids=[
        "no bundle",
        "no predictions",
        "no data",
        "misspelt",
        "no weight file",
        "no network",
        "no checkpoint",
    ],
)
def test_a_slip_ends_in_one_message(command, message, cohort, tmp_path):
    """Missing data, weights, network or key: the last line says what to type, no traceback."""
    if command[0] == "run":
        _, config, *options = command
        command = ["monai.bundle", "run", "--config_file", str(ROOT / config), *options]
        command += ["--bundle_root", str(tmp_path)]
        if "--dataset_dir" not in options:
            command += ["--dataset_dir", str(cohort)]
    else:
        command = ["mrn_components.app.cli", *command[1:]]
        command = [word.replace("COHORT", str(cohort)) for word in command]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", *command],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"HF_HUB_OFFLINE": "1", "PATH": "", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr, done.stderr
    assert message in done.stderr.strip().splitlines()[-1]
