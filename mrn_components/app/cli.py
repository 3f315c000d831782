"""The ``mrn`` command: which function a verb calls, and how its result is told."""

import ast
import gc
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import mrn_components
from mrn_components.app.arguments import bind, help_text
from mrn_components.system.errors import UnknownKeyError, end_by_signal, install_messages
from mrn_components.system.logs import keep_notices, start_logs
from mrn_components.system.values import did_you_mean, nearest

# The verbs: module and function, imported when called; then what the path that it returns holds,
# and a file beside it to print.
COMMANDS = {
    "init": ("app.init:init", "", ""),
    "phantom": ("phantom.cohort:make_cohort", "synthetic subjects", ""),
    "check": ("app.check:check", "", ""),
    "predict": ("app.predict.run:predict", "predictions", ""),
    "segment": ("app.segment:segment", "masks (research use only)", ""),
    "report": ("app.report.reports:write_reports", "reports (research use only)", ""),
    "evaluate": ("app.evaluate:evaluate", "metrics and figures", "metrics.txt"),
    "contributions": ("app.contributions:contributions", "contributions", "table.md"),
    "biomarkers": ("app.biomarkers:measure_subjects", "biomarkers (research use only)", ""),
    "evaluate_masks": ("app.evaluate_masks:evaluate_masks", "scores of the masks", "masks.md"),
    "crossval": ("app.crossval:crossval", "cross-validation (research use only)", ""),
    "baseline": ("app.baseline.run:baseline", "baseline (research use only)", ""),
    "reproduce": ("app.reproduce.run:reproduce", "table", ""),
    "challenge": ("app.challenge:challenge", "answers", ""),
    "inspect": ("app.inspect.bundle:inspect", "", ""),
    "components": ("app.components:components", "", ""),
    "version": ("app.cli:version", "", ""),
}


def main() -> None:
    """Entry point of the ``mrn`` command."""
    install_messages()
    start_logs()
    signal.signal(signal.SIGTERM, end_by_signal)
    # What Apple's GPUs lack the CPU computes; torch asks once, when it is imported.
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    verb, *words = sys.argv[1:] or ["--help"]
    if verb in ("--help", "-h", "help"):
        print(overview())
        return
    name = "version" if verb == "--version" else verb.replace("-", "_")
    if name not in COMMANDS:
        meant = did_you_mean(nearest(name, COMMANDS)) or f" It has {', '.join(COMMANDS)}."
        raise ValueError(f"`mrn` has no command {verb!r}.{meant}")
    gc.disable()  # what imports make stays: to look for garbage in it is a sixth of the start
    function = function_of(name)
    gc.enable()
    if {"--help", "-h"} & {*words}:
        print(help_text(name, function))
        return
    arguments = bind(name, function, words)
    if isinstance(output := arguments.get("output"), str | Path):
        keep_notices(output)
    try:
        result = function(**arguments)
    except UnknownKeyError as error:
        options = [f"--{option}" for option in nearest(error.key, function.__annotations__)]
        if not options:
            raise
        raise ValueError(
            f"--{error.key}: `mrn {name}` has no such option, and its config no such key."
            + did_you_mean([*options, *(f"--{key}" for key in error.near)])
        ) from None
    _tell(name, result)


def function_of(verb: str) -> Callable[..., Any]:
    """The function that a verb calls, with its signature and docstring."""
    module, _, name = COMMANDS[verb][0].partition(":")
    return getattr(import_module(f"mrn_components.{module}"), name)


def _tell(verb: str, result: Any) -> None:
    """Print what a command returned: a path, or what says in words and a code how it ended."""
    if isinstance(result, Path):
        _, holds, shown = COMMANDS[verb]
        file = (result if result.is_dir() else result.parent) / shown
        if file.is_file():
            print(file.read_text(encoding="utf-8"))
        print(f"{holds}: {result}")
        return
    print(result)
    if hasattr(result, "exit_code"):
        raise SystemExit(result.exit_code)


def overview() -> str:
    """The commands, each with the first line of its docstring; none is imported."""
    lines = [f"mrn {mrn_components.__version__}, research use only: mrn VERB --help", ""]
    for verb, (target, *_) in COMMANDS.items():
        module, _, function = target.partition(":")
        file = Path(mrn_components.__file__).parent / f"{module.replace('.', '/')}.py"
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name == function:
                lines.append(f"  {verb:15}{(ast.get_docstring(node) or '').splitlines()[0]}")
    return "\n".join(lines)


def version() -> str:
    """Print the version."""
    return mrn_components.__version__


if __name__ == "__main__":
    main()
