#!/usr/bin/env bash
# Set up the test environment and run the default test suite. Extra arguments go to pytest:
#   scripts/test.sh                      the default suite, minutes on two cores
#   scripts/test.sh -m slow              the bundles end to end
# VENV names the virtual environment (default .venv).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
install_package ".[test]"
"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check .
"$VENV/bin/mypy"
exec "$VENV/bin/python" -m pytest "$@"
