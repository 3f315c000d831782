"""The ``mrn`` command as a user types it."""

import inspect
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
from fire.docstrings import parse

import mrn_components
from mrn_components.app import cli
from mrn_components.app.arguments import bind
from mrn_components.system.values import flags, parse_value

ROOT = Path(__file__).parent.parent.parent
NO_WEIGHTS = ["--encoder_weights", "none"]
TABLE = "train_cases.csv"


@pytest.fixture
def mrn(monkeypatch, capsys):
    """The command in this process: what it prints, or the error that it ends with."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["mrn", *arguments])
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # main replaces it
        cli.main()
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("word", ["version", "--version"])
def test_version(word, mrn):
    assert mrn(word).strip() == mrn_components.__version__


def test_components_lists_the_register(mrn):
    *lines, _, hint = mrn("components").strip().splitlines()
    assert [line.split()[0] for line in lines] == mrn_components.__all__
    assert hint.startswith("mrn components NAME: ")
    assert all(len(line.split()) > 2 for line in lines)


def test_help_needs_nothing_heavy_and_tells_every_verb(mrn):
    out = mrn("--help")
    verbs = [line.split()[0] for line in out.splitlines()[2:]]
    assert verbs == list(cli.COMMANDS)
    assert all(len(line.split()) > 3 for line in out.splitlines()[2:] if "version" not in line)
    code = "import sys; from mrn_components.app.cli import overview; overview();"
    code += "print({'torch', 'monai'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("verb", cli.COMMANDS)
def test_the_help_of_a_verb_is_its_docstring_and_its_options(verb, mrn):
    out = mrn(verb, "--help")
    function = cli.function_of(verb)
    assert function.__doc__.splitlines()[0].replace("``", "`") in out
    told = {argument.name: argument.description for argument in parse(function.__doc__).args or ()}
    parameters = inspect.signature(function).parameters
    assert all(len(told[name].split()) > 1 for name in parameters)
    for name, parameter in parameters.items():
        if parameter.default is not parameter.empty:
            default = "" if parameter.default is None else f"  (default: {parameter.default})"
            assert f"  --{name}{default}\n" in out
        elif parameter.kind is not parameter.VAR_KEYWORD:
            assert f"  {name.upper()}\n" in out


def test_every_parameter_of_a_verb_can_be_read():
    """From text, by its annotation; a new type of parameter needs a reader."""
    words = {"bool": "yes", "int": "3", "float": "3", "Mapping": "{'a': 1}", "Literal": "brain"}
    for verb in cli.COMMANDS:
        for name, parameter in inspect.signature(cli.function_of(verb)).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                continue
            assert parameter.annotation is not parameter.empty, (verb, name)
            for word in (*words.values(), *get_args(parameter.annotation)):
                with suppress(ValueError):
                    parse_value(name, str(word), parameter.annotation)
                    break
            else:
                raise AssertionError((verb, name))


def example(
    data: str | Path,
    output: str | Path,
    *,
    labels: str | Path | None = None,
    bundle: str = "bundles/mrn",
    resume: bool = False,
    trust_bundle: bool = False,
    seed: int = 1,
    workers: int | None = None,
    effect: float = 1.0,
    view: Literal["brain", "midbrain"] = "brain",
    seeds: Sequence[int] = (1,),
    rows: Sequence[str] | None = None,
    slurm: Mapping[str, Any] | None = None,
) -> None:
    """Show every kind of argument."""


def free(data: str, *, resume: bool = False, **overrides: Any) -> None:
    """Take any key of a config."""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["77_01", "1e5"], {"data": "77_01", "output": "1e5"}),
        (["a,b", "2024_11_20"], {"data": "a,b", "output": "2024_11_20"}),
        (["None", "True"], {"data": "None", "output": "True"}),
        (["--", "--data", "-x"], {"data": "--data", "output": "-x"}),
        (["--output", "1_0", "(1)"], {"data": "(1)", "output": "1_0"}),
        (["--labels", "0x10", "--bundle=1,2"], {"labels": "0x10", "bundle": "1,2"}),
        (["--bundle", "a=b"], {"bundle": "a=b"}),
        (["--trust_bundle", "false"], {"trust_bundle": False}),
        (["--trust-bundle=NO", "--resume=0"], {"trust_bundle": False, "resume": False}),
        (["--resume"], {"resume": True}),
        (["--noresume"], {"resume": False}),
        (["--resume", "YES"], {"resume": True}),
        (["--resume", "--seed", "1e3"], {"resume": True, "seed": 1000}),
        (["--workers", "none"], {"workers": None}),
        (["--effect", "-1.5", "--view", "midbrain"], {"effect": -1.5, "view": "midbrain"}),
        (["--seeds", "1,2"], {"seeds": [1, 2]}),
        (["--seeds", "3"], {"seeds": [3]}),
        (["--rows", "['DINOv2','DINOv2 + FFA']"], {"rows": ["DINOv2", "DINOv2 + FFA"]}),
        (["--rows", "a-1, b c"], {"rows": ["a-1", "b c"]}),
        (["--rows", "[a-1,1e5"], {"rows": ["a-1", "1e5"]}),
        (["--slurm", "{'gpus_per_node': 1}"], {"slurm": {"gpus_per_node": 1}}),
    ],
    ids=str,
)
def test_arguments_are_read_by_their_type(words, expected):
    given = {"data": "x", "output": "y"}
    bound = bind("example", example, ["x", "y", *words] if words[0][:3] in OPTIONS else words)
    assert bound == given | expected


OPTIONS = ("--l", "--b", "--t", "--r", "--n", "--s", "--w", "--e", "--v")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x"], r"OUTPUT is missing: mrn example DATA OUTPUT"),
        (["x", "y", "extra"], r"'extra' is one argument too many: mrn example DATA OUTPUT"),
        (["x", "y", "--lables", "z"], r"--lables: .* no such option; .* Did you mean --labels"),
        (["x", "y", "--workesr=1"], r"--workesr=1: .* no such option; .* Did you mean --workers"),
        (["x", "y", "--no-such"], r"--no-such: `mrn example` has no such option; it has --data"),
        (["x", "y", "--trust_bundle", "flase"], r"--trust_bundle: 'flase' .* type True or False"),
        (["--resume", "x", "y"], r"--resume: 'x' .* type True or False"),
        (["x", "y", "--resume", "None"], r"--resume: 'None' .* type True or False"),
        (["x", "y", "--seed", "1.5"], r"--seed: '1.5' is not a whole number"),
        (["x", "y", "--seed", "True"], r"--seed: 'True' is not a whole number"),
        (["x", "y", "--effect", "big"], r"--effect: 'big' is not a number"),
        (["x", "y", "--effect", "nan"], r"--effect: 'nan' is not a number"),
        (["x", "y", "--seeds", "1,b"], r"--seeds: 'b' is not a whole number"),
        (["x", "y", "--view", "brian"], r"--view: 'brian' .* brain, midbrain. Did you mean brain"),
        (["x", "y", "--slurm", "gpu"], r"--slurm: 'gpu' is no dict"),
        (["x", "y", "--labels"], r"--labels lacks its value"),
        (["x", "y", "--labels", "--resume"], r"--labels lacks its value"),
    ],
    ids=str,
)
def test_a_slip_is_one_line(words, message):
    with pytest.raises(ValueError, match=message) as caught:
        bind("example", example, words)
    assert "\n" not in str(caught.value)


def test_keys_of_a_config_are_read_as_literals():
    words = ["77_01", "--rois#qsm3#_disabled_", "True", "--betas", "[0.9, 0.99]", "--name=a-b"]
    assert bind("free", free, [*words, "--fast"]) == {
        "data": "77_01",
        "rois#qsm3#_disabled_": True,
        "betas": [0.9, 0.99],
        "name": "a-b",
        "fast": True,
    }


def test_what_one_command_says_to_another_is_read_as_it_was():
    values = {
        "a": "77_01",
        "b": "x y",
        "c": True,
        "d": 1.5,
        "e": [1, "2"],
        "f": None,
        "g": "/1e5",
    }
    assert bind("free", free, ["x", *flags(values)]) == {"data": "x"} | values


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--reprot", r"--reprot: `mrn predict` has no such option, and .* mean --report"),
        ("--ckpt_paht=x", r"--ckpt_paht: .*Did you mean ckpt_path"),
        ("--tta=maybe", r"--tta: 'maybe' .* type True or False"),
        ("--num_workers=many", r"--num_workers: 'many' is not a whole number"),
        ("--device=gpu", r"--device: 'gpu' cannot be used; type cpu"),
        ("--device=cuda:99", r"--device: 'cuda:99' cannot be used; type cpu"),
        ("--rois#qsm4#_disabled_=True", r"--rois#qsm4#_disabled_: rois has no 'qsm4'. .* qsm"),
        ("--rois#qsm3#_disabled_=maybe", r"--rois#qsm3#_disabled_: 'maybe' .* True or False"),
        ("--network_def#res#checkpointing=x", r"checkpointing: 'x' .* type True or False"),
    ],
)
def test_a_slip_of_a_key_is_one_line_before_any_work(option, message, cohort, mrn, tmp_path):
    bundle = ["--bundle", str(ROOT / "bundles" / "mrn")]
    with pytest.raises(ValueError, match=message) as caught:
        mrn("predict", str(cohort), str(tmp_path / "out"), option, *bundle)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_verb_names_the_nearest(mrn):
    with pytest.raises(ValueError, match=r"`mrn` has no command 'evalaute'. Did you mean evaluate"):
        mrn("evalaute")


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("verb", ["evaluate", "check"])
def test_labels_are_as_typed_or_relative_to_the_data(verb, cohort, mrn, tmp_path):
    """One meaning and one message in every verb; two stand for all, which call one function."""
    if verb == "evaluate":
        data = tmp_path / "predictions.csv"
        names = [line.split(",")[0] for line in (cohort / TABLE).read_text().splitlines()]
        rows = [f"{name},0.{number + 1}" for number, name in enumerate(names)]
        data.write_text("subject,prob_pd\n" + "\n".join(rows) + "\n")
        words, folder = [], tmp_path
        shutil.copy(cohort / TABLE, tmp_path)
    else:
        data, words, folder = cohort, ["--labels"], cohort
    for place in (TABLE, str(folder / TABLE)):
        with suppress(SystemExit):
            mrn(verb, str(data), *words, place)
    wrong = str(folder / "no.csv")
    with pytest.raises(FileNotFoundError, match=f"'no.csv' are neither there nor at '{wrong}'"):
        mrn(verb, str(data), *words, "no.csv")


def test_phantom_makes_a_cohort(mrn, tmp_path):
    out = tmp_path / "cohort"
    options = ["--subjects", "2", "--view", "midbrain", "--workers", "1"]
    assert "synthetic subjects: " in mrn("phantom", str(out), *options)
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == [
        "PHAN1_000",
        "PHAN1_001",
    ]


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("names", ["MRN,baseline", "mrn-1,base line", "1,2"])
def test_evaluate_prints_the_table_and_reads_names_as_typed(mrn, tmp_path, names):
    table = tmp_path / "predictions.csv"
    table.write_text("subject,prob_pd,label\nS0,0.1,0\nS1,0.4,1\nS2,0.6,0\nS3,0.9,1\n")
    options = ["--against", str(table), "--names", names, "--output", str(tmp_path / "out")]
    out = mrn("evaluate", str(table), str(table), *options)
    assert "accuracy 0.500 0.150 to 0.850 (Wilson)" in " ".join(out.split())
    assert " minus ".join(names.split(",")) in out
    assert out.splitlines()[-1] == f"metrics and figures: {tmp_path / 'out'}"


def test_inspect_passes_our_bundle_and_ends_with_3_for_another(mrn, capsys, tmp_path):
    assert "is data, as far as `mrn` uses it" in mrn("inspect", str(ROOT / "bundles" / "mrn"))
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "inference.json").write_text('{"x": {"_target_": "os.system"}}')
    with pytest.raises(SystemExit) as end:
        mrn("inspect", str(tmp_path))
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
            "error: nothing is no bundle: it has no configs/inference.yaml or .json. Name a bundle",
        ),
        (
            ["mrn", "evaluate", "nowhere.csv", "labels.csv"],
            "error: nowhere.csv is not there; `mrn predict INPUT OUTPUT` writes",
        ),
        (
            ["run", "bundles/mrn/configs/train.yaml", "--dataset_dir", "nowhere", *NO_WEIGHTS],
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
        (
            ["run", "bundles/mrn/configs/train.yaml", "--device", "cuda:0"],
            "error: --device: 'cuda:0' cannot be used; type cpu (no GPU is here).",
        ),
        (
            ["run", "bundles/mrn/configs/train.yaml", "--epochs", "ten"],
            "error: --epochs: 'ten' is not a whole number",
        ),
        (
            ["run", "bundles/mrn/configs/train.yaml", "--resume", "false"],
            "error: --resume: 'false' is text to monai.bundle; type False.",
        ),
        (
            [
                "run",
                "bundles/mrn/configs/train.yaml",
                "--network_def#res#encoder#name",
                "vit_smal_patch14",
            ],
            "error: SliceEncoder: name 'vit_smal_patch14' is no model of timm. Did you mean vit_",
        ),
        (
            ["run", "bundles/mrn/configs/train.yaml", "--loss", "{'_target_': 'my_lab.X'}"],
            "error: loss: ModuleNotFoundError: Cannot locate class or function path: 'my_lab.X'. "
            "`mrn components` lists ours; the folder of your own must be on PYTHONPATH.",
        ),
        (
            [
                "run",
                "bundles/mrn/configs/train.yaml",
                "--network_def#dropout",
                "@dropuot",
                *NO_WEIGHTS,
            ],
            "error: network_def: ValueError: the referring item `@dropuot` is not defined",
        ),
        (
            [
                "run",
                "bundles/mrn/configs/train.yaml",
                "--network_def#dropout",
                "$1 / 0",
                *NO_WEIGHTS,
            ],
            "error: network_def#dropout: ZeroDivisionError: division by zero",
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
        "no GPU",
        "a word for a number",
        "text for a switch",
        "no such backbone",
        "no such module",
        "no such reference",
        "a faulty expression",
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
        env={
            "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "PATH": "",
            "HOME": str(tmp_path),
            "OMP_NUM_THREADS": "1",
        },
    )
    assert done.returncode == 1 + (message != "--encoder_weights PATH" or "no.pth" in command)
    assert "Traceback" not in done.stderr, done.stderr
    assert message in done.stderr.strip().splitlines()[-1]
