"""Pages of the site that are made when it is built, from docstrings and comments of YAML files.

``mkdocs.yml`` names this file as a hook. What stands in the code is written once, there: this file
reads it without importing the package. ``pages()`` is also what the tests know the site by.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
BUNDLES = ("mrn", "seres10", "segmentation")
PACKAGE = "mrn_components"

# Pages of the repository that the site shows too, by their address in the site.
COPIES = {
    "project/contributing.md": "CONTRIBUTING.md",
    "project/security.md": "SECURITY.md",
    "project/changes.md": "CHANGELOG.md",
    **{f"bundles/{name}.md": f"bundles/{name}/docs/README.md" for name in BUNDLES},
}


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages; mkdocs calls this before it looks at the nav."""
    from mkdocs.structure.files import File  # the tests read pages() without mkdocs

    for address, text in pages().items():
        files.append(File.generated(config, address, content=text))
    return files


def examples() -> dict[str, str]:
    """Return a page of every notebook in ``examples/``, by its address."""
    files = sorted((ROOT / "examples").glob("*.py"))
    return {f"examples/{file.stem}.md": notebook(file.read_text("utf-8")) for file in files}


def notebook(text: str) -> str:
    """Return cells of a notebook in the percent format as Markdown."""
    parts = []
    for cell in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        kind, _, body = cell.partition("\n")
        if "[markdown]" in kind:
            lines = re.sub(r"^# ?", "", body.strip(), flags=re.MULTILINE)
            parts.append(re.sub(r"(\]\(\w+)\.py\)", r"\1.md)", lines))  # links to other notebooks
        else:
            parts.append(f"```python\n{body.strip()}\n```")
    return "\n\n".join([*parts, ""])


def pages() -> dict[str, str]:
    """Return the text of every generated page by its address in the site."""
    copies = {address: (ROOT / file).read_text("utf-8") for address, file in COPIES.items()}
    return copies | {
        **examples(),
        "reference/verbs.md": verbs(),
        "reference/components.md": components(),
        "reference/faults.md": faults(),
        **{f"reference/config_{name}.md": configs(name) for name in BUNDLES},
    }


# ---- verbs ---------------------------------------------------------------------------------------
def verbs() -> str:
    """Return a page of every verb of ``mrn``, from the functions that they call."""
    lines = [
        "# Every command",
        "",
        "`mrn COMMAND --help` prints the same. `-` may stand for `_`; a switch may stand alone.",
        "`--KEY VALUE` is any key of the bundle's config (see the pages of the configs).",
    ]
    for verb, (target, *_) in assigned("app/cli.py", "COMMANDS").items():
        module, _, name = target.partition(":")
        lines += ["", f"## mrn {verb}", "", "```text", usage(verb, module, name), "```", ""]
        lines += [f"::: {PACKAGE}.{module}.{name}", "    options:"]
        hidden = ("root_heading", "root_toc_entry", "signature")
        lines += [f"      show_{part}: false" for part in hidden]
    return "\n".join([*lines, ""])


def usage(verb: str, module: str, name: str) -> str:
    """Return a line: the verb and what must follow it, as ``app.arguments.usage`` does."""
    arguments = definition(module, name).args
    words = [f"mrn {verb}", *(a.arg.upper() for a in arguments.args)]
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    words += [f"--{a.arg} {a.arg.upper()}" for a, default in pairs if default is None]
    return " ".join([*words, "[--OPTION VALUE ...]"])


# ---- components ----------------------------------------------------------------------------------
def components() -> str:
    """Return a page of every component, by the room that it lives in."""
    rooms: dict[str, list[str]] = {}
    register = assigned("__init__.py", "_REGISTER")
    for name, module in register.items():
        rooms.setdefault(module.partition(".")[0], []).append(name)
    lines = [
        "# Every component",
        "",
        f"A config names each as `_target_: {PACKAGE}.NAME`. `mrn components` lists them.",
        "A part of your own needs no entry here: see [Plug in a part](../how/parts.md).",
    ]
    for room in sorted(rooms):
        lines += ["", f"## {room}"]
        for name in sorted(rooms[room], key=str.lower):
            lines += ["", f"### {name} {{ #{name} }}", "", f"`{PACKAGE}/{_file(register[name])}`"]
            lines += ["", f"::: {PACKAGE}.{register[name]}.{name}", "    options:"]
            lines += ["      show_root_toc_entry: false", "      show_root_heading: false"]
    return "\n".join([*lines, ""])


# ---- faults --------------------------------------------------------------------------------------
def faults() -> str:
    """Return a page of what the checks find: what is expected, and how it is mended."""
    file = ROOT / PACKAGE / "images" / "findings.yaml"
    kinds = yaml.safe_load(file.read_text("utf-8"))
    lines = [
        "# What the checks find",
        "",
        "`mrn check` and every verb that reads images name a fault by its kind, with the subject,",
        "the file and what was found. Words in braces are filled in by the check.",
    ]
    for line in file.read_text("utf-8").splitlines():
        if title := re.fullmatch(r"# -+ (.+?)(?: -+)?", line):
            lines += ["", f"## {title[1].capitalize()}", ""]
            lines += ["| kind | severity | expected | what to do |", "|---|---|---|---|"]
        elif (name := line.partition(":")[0]) in kinds:
            kind = kinds[name]
            severity = kind.get("severity", "error")
            words = [_words(kind.get(key, "")) for key in ("expected", "fix")]
            lines.append(f"| `{name}` | {severity} | {words[0]} | {words[1]} |")
    return "\n".join([*lines, ""])


# ---- configs -------------------------------------------------------------------------------------
def configs(bundle: str) -> str:
    """Return a page of every key of a bundle's YAML files, from the files and their comments."""
    folder = ROOT / "bundles" / bundle / "configs"
    first = ("train", "inference")  # complete; the others are overlays
    files = [folder / f"{name}.yaml" for name in first]
    files += sorted(f for f in folder.glob("*.yaml") if f.stem not in first)
    lines = [
        f"# Every key of bundles/{bundle}",
        "",
        "`--KEY VALUE` changes a key on the command line. `@` refers to another key. Sections are",
        "those of the paper, where a comment names one.",
    ]
    for file in files:
        lines += ["", f"## {file.name}", "", *_head(file)]
        title = ""
        for key, value, comment, section in keys(file):
            if section != title or lines[-1] == "":
                title = section
                lines += [*(["", f"### {section}"] if section else []), ""]
                lines += ["| key | value | meaning and source |", "|---|---|---|"]
            lines.append(f"| `{key}` | {_value(value)} | {_words(comment)} |")
    return "\n".join([*lines, ""])


def keys(file: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield key, value as typed, comment and section of every line of a config that has a key."""
    text = file.read_text("utf-8")
    lines = text.splitlines()
    for key, node, value in _walk("", yaml.compose(text)):
        block = isinstance(value, yaml.CollectionNode) and not value.flow_style
        shown = "" if block else text[value.start_mark.index : value.end_mark.index]
        row = node.end_mark.line if block else value.end_mark.line
        column = node.end_mark.column if block else value.end_mark.column
        above = node.start_mark.line
        said = [*_above(lines, above), *re.findall(r"(?:^|\s)# (.*)", lines[row][column:])]
        yield key, shown, " ".join(said), _section(lines, above)


def _walk(prefix: str, node: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield every key under a node, with its node and that of its value."""
    if isinstance(node, yaml.MappingNode):
        children = [(key.value, key, value) for key, value in node.value]
    else:
        children = [(str(place), value, value) for place, value in enumerate(node.value)]
    for name, key, value in children:
        full = f"{prefix}#{name}" if prefix else name
        block = isinstance(value, yaml.CollectionNode) and not value.flow_style
        if not block or key is not value:
            yield full, key, value
        if block:
            yield from _walk(full, value)


def _head(file: Path) -> list[str]:
    """Return the comment that a config begins with, its commands as code."""
    lines: list[str] = []
    for line in file.read_text("utf-8").splitlines():
        if not line.startswith("#") or line.startswith(("# >>>", "# ----")):
            break
        said = line.removeprefix("#").removeprefix(" ")
        command = said.startswith("  ")
        if command and (not lines or not lines[-1].startswith("    ")):
            lines.append("")
        if not command and lines and lines[-1].startswith("    "):
            lines.append("")
        lines.append(f"    {said.strip()}" if command else said)
    return lines


def _above(lines: list[str], row: int) -> list[str]:
    """Return the lines of comment that stand right above a key, but for those of the head."""
    said: list[str] = []
    row -= 1
    while row >= 0 and (found := re.fullmatch(r"\s*# (?!>>>|<<<|----)(.*)", lines[row])):
        said.insert(0, found[1])
        row -= 1
    return said if row >= 0 else []


def _section(lines: list[str], row: int) -> str:
    """Return the title of the section that a line is in."""
    for line in reversed(lines[:row]):
        if title := re.match(r"# ---- (.+?) -*$", line):
            return title[1]
    return ""


# ---- words ---------------------------------------------------------------------------------------
def _value(text: str) -> str:
    """Return a value as code, behind it links to the components that it names."""
    names = dict.fromkeys(re.findall(rf"_target_: {PACKAGE}\.(\w+)", text))
    if found := re.fullmatch(rf"{PACKAGE}\.(\w+)", text):
        return f"[`{text}`](components.md#{found[1]})"
    links = " ".join(f"[{name}](components.md#{name})" for name in names)
    code = " ".join(text.split()).replace("|", "\\|")
    return f"`{code}` {links}".strip() if code else ""


def _words(text: str) -> str:
    """Return words for a cell of a table, whose brackets are no HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


# ---- sources, without an import ------------------------------------------------------------------
def assigned(file: str, name: str) -> dict[str, Any]:
    """Return the literal that a module of the package assigns to a name."""
    for node in ast.parse((ROOT / PACKAGE / file).read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == name:
            return ast.literal_eval(node.value)
    raise ValueError(f"{PACKAGE}/{file} assigns nothing to {name}.")


def definition(module: str, name: str) -> ast.FunctionDef:
    """Return the definition of a function of the package."""
    for node in ast.parse((ROOT / PACKAGE / _file(module)).read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    raise ValueError(f"{PACKAGE}/{_file(module)} has no function {name}.")


def _file(module: str) -> str:
    return module.replace(".", "/") + ".py"
