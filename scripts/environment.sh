# Sourced by the other scripts: a virtual environment with the package in it.
VENV=${VENV:-.venv}
PYTHON=${PYTHON:-$(for name in python3.1{1,2,3}; do command -v "$name" && break; done || true)}

install_package() {  # install_package REQUIREMENT: install it unless the last install was the same
    local stamp="$VENV/.installed"
    if [ "$(cat "$stamp" 2>/dev/null)" = "$1 $(cksum < setup.cfg) $(cksum < constraints.txt)" ]; then
        return
    fi
    [ -x "$VENV/bin/python" ] ||
        "${PYTHON:?no python3.11 to python3.13 is on the PATH; name one by PYTHON=FILE}" -m venv "$VENV"
    echo "Installing $1 into $VENV (about 6 GB, some minutes the first time) ..."
    "$VENV/bin/python" -m pip install --quiet --constraint constraints.txt --editable "$1"
    echo "$1 $(cksum < setup.cfg) $(cksum < constraints.txt)" > "$stamp"
}
