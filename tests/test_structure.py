"""Imports go one way, and importing the package does nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mrn_components

PACKAGE = Path(mrn_components.__file__).parent
# Layers from the bottom: a module may import from its own layer and those below.
LAYERS = [
    {"system"},
    {"images"},
    {"regions"},
    {"biomarkers", "checks", "metrics", "networks", "phantom"},
    {"data"},
    {"segmentation", "training"},
    {"bundle"},
    {"app"},
]
MODULES = sorted(PACKAGE.rglob("*.py"))


def part_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def level(part):
    return next(i for i, layer in enumerate(LAYERS) if part in layer)


def imported_parts(path):
    """Parts of the package that a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            assert parts[0] not in ("scripts", "bundles", "tests")
            if parts[0] == "mrn_components" and len(parts) > 1 and parts[1] != "__init__":
                yield parts[1]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down_the_layers(path):
    if path == PACKAGE / "__init__.py":
        return
    for part in imported_parts(path):
        assert level(part) <= level(part_of(path)), f"{path.name} imports {part}"


def test_every_registered_name_exists_and_says_what_it_is():
    for name in mrn_components.__all__:
        assert (getattr(mrn_components, name).__doc__ or "").strip(), name


def test_an_unknown_component_names_the_list():
    with pytest.raises(AttributeError, match="no component 'MNR'; `mrn components` lists"):
        mrn_components.MNR  # noqa: B018


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, mrn_components, mrn_components.app.cli;"
        "print([m for m in ('torch', 'monai', 'timm', 'nnunetv2', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_commands_without_a_network_do_not_wait_for_torch():
    """One process imports them one after another, and says which brings what."""
    code = (
        "import sys, importlib\n"
        "for part in sys.argv[1:]:\n"
        "    importlib.import_module(f'mrn_components.{part}')\n"
        "    print(part, sorted({'torch', 'monai', 'statsmodels'} & {*sys.modules}))"
    )
    parts = ["data.predictions", "phantom.cohort", "app.biomarkers", "app.check", "app.evaluate"]
    parts += ["app.evaluate_masks", "app.report.reports", "app.init"]
    command = [sys.executable, "-c", code, *parts]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{part} []" for part in parts]


def test_a_unit_test_waits_for_nothing_that_it_does_not_use():
    """A start in seconds: neither the fixtures of every test nor what they import bring torch."""
    file = Path(__file__).parent / "images" / "test_boxes.py"
    code = (
        "import sys, pytest\n"
        f"ended = pytest.main(['-q', '-n', '0', '-p', 'no:cacheprovider', {str(file)!r}])\n"
        "print(int(ended), sorted({'torch', 'monai'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parent.rglob("test_*.py")), ids=lambda p: p.name
)
def test_test_modules_import_no_other(path):
    """What several need is a module beside them."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not [name for name in names if name.split(".")[-1].startswith("test_")]
