"""The documentation site: its nav, its links, and what is generated of the sources."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
import yaml

import mrn_components
from mrn_components.app import cli
from mrn_components.app.arguments import usage

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))


def load_generator():
    spec = importlib.util.spec_from_file_location("gen_reference", DOCS / "gen_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = load_generator()
WRITTEN = {f.relative_to(DOCS).as_posix(): f.read_text("utf-8") for f in DOCS.glob("**/*.md")}
GENERATED = GENERATOR.pages()
PAGES = WRITTEN | GENERATED


def in_nav(entry):
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [page for part in parts for page in in_nav(part)]


def prose(text):
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text):
    """The ids that Python-Markdown gives to headings, and those that are written."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", prose(text), flags=re.MULTILINE):
        if written := re.search(r"\{ #(\S+) \}", heading):
            found.add(written[1])
        plain = re.sub(r"[^\w\s-]", "", heading).strip().lower()
        found.add(re.sub(r"[-\s]+", "-", plain))
    return found


def links(text):
    return [
        link
        for link in re.findall(r"\]\(([^)\s]+)\)", prose(text))
        if not link.startswith(("http://", "https://"))
    ]


def resolve(page, address):
    parts = []
    for part in PurePosixPath(page).parent.joinpath(address).parts:
        parts = parts[:-1] if part == ".." else [*parts, part]
    return "/".join(parts)


def test_every_page_is_in_the_nav_once():
    assert sorted(in_nav(SITE["nav"])) == sorted(PAGES)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_link_of_a_page_leads_to_a_page_and_a_heading(page):
    for link in links(PAGES[page]):
        address, _, anchor = link.partition("#")
        target = resolve(page, address) if address else page
        assert target in PAGES or (DOCS / target).is_file(), link
        assert not anchor or anchor in anchors(PAGES[target]), link


def test_every_link_of_the_readme_leads_to_a_file_and_a_heading():
    readme = (ROOT / "README.md").read_text("utf-8")
    for link in links(readme):
        address, _, anchor = link.partition("#")
        target = ROOT / address if address else ROOT / "README.md"
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text("utf-8")), link


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= 100
    assert max(map(len, lines)) <= 100


def test_the_page_of_verbs_has_every_verb_with_the_usage_of_the_command():
    page = GENERATED["reference/verbs.md"]
    for verb in cli.COMMANDS:
        line = usage(verb, cli.function_of(verb))
        assert f"## mrn {verb}\n\n```text\n{line}\n" in page


def test_the_page_of_components_has_every_component():
    page = GENERATED["reference/components.md"]
    assert set(re.findall(r"^### (\w+) \{", page, flags=re.MULTILINE)) == {*mrn_components.__all__}


@pytest.mark.parametrize("bundle", ["mrn", "seres10", "segmentation"])
def test_the_page_of_a_bundle_has_every_key_of_its_configs(bundle):
    page = GENERATED[f"reference/config_{bundle}.md"]
    for file in (ROOT / "bundles" / bundle / "configs").glob("*.yaml"):
        part = page.partition(f"## {file.name}\n")[2].partition("\n## ")[0]
        keys = set(re.findall(r"^\| `([^`]+)`", part, re.MULTILINE))
        assert {*yaml.safe_load(file.read_text("utf-8"))} <= keys, file


def test_a_key_stands_with_its_value_and_its_comment():
    page = GENERATED["reference/config_mrn.md"]
    assert "| `handlers#msupmoco#bank_size` | `1024` | per class (Table 5) |" in page
    assert "| `network_def#res#ffa` | `{_target_: mrn_components.FFA, num_layers: 3}` [FFA]" in page


def test_the_page_of_faults_has_every_kind():
    file = ROOT / "mrn_components" / "images" / "findings.yaml"
    page = GENERATED["reference/faults.md"]
    assert re.findall(r"^\| `([\w-]+)`", page, re.MULTILINE) == [*yaml.safe_load(file.read_text())]


@pytest.mark.slow
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs", reason='pip install "mrn-components[docs]"')
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = [*tmp_path.glob("**/*.html")]
    assert len(pages) > len(PAGES)
    for page in pages:
        text = page.read_text("utf-8")
        assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"?https?://[^>]+", text)
