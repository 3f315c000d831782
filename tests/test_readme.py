"""What the README and the pages of ``docs/`` tell a user to type can be typed."""

import re
import shlex
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from mrn_components.app import cli
from mrn_components.app.arguments import bind
from mrn_components.bundle import check_key

ROOT = Path(__file__).parent.parent
TRAIN = ConfigParser.load_config_file(str(ROOT / "bundles" / "mrn" / "configs" / "train.yaml"))
PAGES = {
    str(file.relative_to(ROOT)): file.read_text("utf-8")
    for file in [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
    if file.name not in ("log.md", "decisions.md")  # what was typed once
}
PAPER_SIZE = re.compile(r"train\.yaml(?!.*small\.yaml)")


def found(pattern):
    return [
        pytest.param(page, one, id=f"{page}: {one}")
        for page, text in PAGES.items()
        for one in dict.fromkeys(re.findall(pattern, text, flags=re.MULTILINE))
    ]


def commands():
    """Every command of a block of bash, with the comment above it, for a page."""
    for page, text in PAGES.items():
        for block in re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL):
            comment = ""
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("#"):
                    comment += line
                elif words := shlex.split(line, comments=True):
                    yield pytest.param(words, comment, id=f"{page}: {line}")
                else:
                    comment = ""


def options(words):
    return [word.removeprefix("--") for word in words if word.startswith("--")]


@pytest.mark.parametrize(("command", "comment"), commands())
def test_commands_name_programs_files_and_options_that_exist(command, comment):
    if command[0] == "mrn":
        bind(command[1], cli.function_of(command[1]), command[2:])
    elif command[0].startswith("scripts/"):
        assert (ROOT / command[0]).stat().st_mode & 0o100
    elif "monai.bundle" in command:
        text = " ".join(command)
        files = re.findall(r"bundles/[\w/]+\.yaml", text)
        assert all((ROOT / file).is_file() for file in files)
        known = ConfigParser.load_config_file(str(ROOT / files[0])) if files else TRAIN
        for key in options(command[command.index("run") :]):
            if "#" in key:
                check_key(key, known, source="the page: --")
            assert "#" in key or key == "config_file" or key in known
    else:
        assert "=" in command[0]  # RUN=...


@pytest.mark.parametrize(("command", "comment"), commands())
def test_a_training_of_the_papers_size_says_that_it_needs_a_gpu(command, comment):
    text = " ".join(command)
    if "monai.bundle" in text and PAPER_SIZE.search(text):
        assert "GPU" in comment


@pytest.mark.parametrize(
    "verb", sorted({p.values[0][1] for p in commands() if p.values[0][0] == "mrn"})
)
def test_a_verb_that_a_page_names_runs_in_a_test(verb):
    function = cli.COMMANDS[verb][0].partition(":")[2]
    run = re.compile(rf"\b{function}\(|\bmrn {verb}\b|\[\"{verb}\"|\"mrn\", \"{verb}\"")
    assert any(
        run.search(file.read_text("utf-8"))
        for file in (ROOT / "tests").glob("**/*.[py]*")
        if file.name != Path(__file__).name and file.suffix in (".py", ".yaml")
    )


def overrides():
    """Every option of the tables of what to add to a training command."""
    for page, text in PAGES.items():
        for table in re.findall(r"^\| to \| add \|\n((?:\|.*\n)*)", text, flags=re.MULTILINE):
            for key in dict.fromkeys(re.findall(r"--([\w#]+) ", table)):
                yield pytest.param(page, key, id=f"{page}: {key}")


@pytest.mark.parametrize(("page", "key"), overrides())
def test_overrides_of_the_table_name_known_keys(page, key):
    check_key(key, TRAIN, source=f"{page}: --")


@pytest.mark.parametrize(("page", "path"), found(r"^\| `([\w/.]+(?:/|\.yaml))` \|"))
def test_places_and_overlays_exist(page, path):
    assert (ROOT / path).exists() or (ROOT / "bundles" / "mrn" / "configs" / path).exists()


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "SECURITY.md",
        "docs/index.md",
        *(f"bundles/{n}/docs/README.md" for n in ("mrn", "seres10", "segmentation")),
    ],
)
def test_every_page_says_research_use_only(page):
    assert "research use only" in (ROOT / page).read_text().lower()
