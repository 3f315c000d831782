"""What the README tells a user to type can be typed."""

import re
import shlex
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from mrn_components.app import cli
from mrn_components.app.arguments import bind
from mrn_components.bundle import check_key

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TRAIN = ConfigParser.load_config_file(str(ROOT / "bundles" / "mrn" / "configs" / "train.yaml"))
SHELL = "\n".join(re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)).replace("\\\n", " ")
COMMANDS = [
    shlex.split(line, comments=True) for line in SHELL.splitlines() if not line.startswith("#")
]
COMMANDS = [command for command in COMMANDS if command]


def options(words):
    return [word.removeprefix("--") for word in words if word.startswith("--")]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_name_programs_files_and_options_that_exist(command):
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
            assert key == "config_file" or key in known
    else:
        assert "=" in command[0]  # RUN=...


@pytest.mark.parametrize("key", re.findall(r"\| `?[^|]*--([\w#]+) ", README))
def test_overrides_of_the_table_name_known_keys(key):
    check_key(key, TRAIN, source="README.md: --")


@pytest.mark.parametrize("path", re.findall(r"^\| `([\w/.]+)` \|", README, flags=re.MULTILINE))
def test_places_exist(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("link", re.findall(r"\]\(([\w.]+)\)", README))
def test_links_exist(link):
    assert (ROOT / link).exists()


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "SECURITY.md",
        *(f"bundles/{n}/docs/README.md" for n in ("mrn", "seres10", "segmentation")),
    ],
)
def test_every_page_says_research_use_only(page):
    assert "research use only" in (ROOT / page).read_text().lower()
