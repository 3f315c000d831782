"""Of this package what a bundle's configs name, with all that it imports."""

import ast
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import mrn_components
from mrn_components.system.files import write_text

_NAME = mrn_components.__name__
_PACKAGE = Path(mrn_components.__file__).parent
_SKIP = shutil.ignore_patterns("__pycache__")


def copy_package(bundle: Path) -> None:
    """Copy the rooms that a bundle's configs need, whole: a config may name their other parts."""
    target = bundle / _NAME
    target.mkdir()
    for name in ("__init__.py", "py.typed"):
        shutil.copyfile(_PACKAGE / name, target / name)
    for room in sorted(needed_rooms(bundle / "configs")):
        if (_PACKAGE / room).is_dir():
            shutil.copytree(_PACKAGE / room, target / room, ignore=_SKIP)
        else:
            write_text(target / f"{room}.py", (_PACKAGE / f"{room}.py").read_text("utf-8"))


def needed_rooms(configs: Path) -> set[str]:
    """Return the rooms of the components that configs name, and of what these import."""
    text = "".join(path.read_text(encoding="utf-8") for path in configs.glob("*.yaml"))
    named = re.findall(rf"{_NAME}\.(\w+)", text)
    modules = (getattr(mrn_components, name).__module__ for name in named)
    todo = {module.split(".")[1] for module in modules}
    rooms: set[str] = set()
    while todo:
        rooms.add(room := todo.pop())
        todo |= {other for path in _sources(room) for other in _imported(path)} - rooms
    return rooms


def _sources(room: str) -> Iterator[Path]:
    """Return the modules of a room, which may be one module; none of what is no room."""
    yield from (_PACKAGE / room).rglob("*.py")
    yield from _PACKAGE.glob(f"{room}.py")


def _imported(path: Path) -> Iterator[str]:
    """Yield the rooms that a module imports from, also inside its functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found = (name.split(".")[1] for name in names if name.startswith(f"{_NAME}."))
        yield from (name for name in found if any(_sources(name)))
