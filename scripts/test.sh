#!/usr/bin/env bash
# Set up the test environment and run the default test suite. Extra arguments go to pytest:
#   scripts/test.sh                      the default suite, minutes on two cores
#   scripts/test.sh -m slow -n 0         the bundles end to end, one after another
#   scripts/test.sh --cpu                with a build of PyTorch for the CPU; first of the arguments
# VENV names the virtual environment (default .venv), PYTHON what makes it.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
if [ "${1:-}" = --cpu ]; then CPU=$1 && shift; fi
install_package ".[test]" "${CPU:-}"
"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check .
"$VENV/bin/mypy"
# A process a core, each on one thread: tensors this small gain nothing from a second. Each has
# half of the modules, and who is done first takes over half of what the other has left.
OMP_NUM_THREADS=1 exec "$VENV/bin/python" -m pytest -n auto --dist worksteal "$@"
