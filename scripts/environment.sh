# Sourced by the other scripts: a virtual environment with the package in it.
VENV=${VENV:-.venv}
PYTHON=${PYTHON:-python3.11}

install_package() {  # install_package REQUIREMENT: install it unless the last install was the same
    local stamp="$VENV/.installed"
    if [ "$(cat "$stamp" 2>/dev/null)" = "$1 $(cksum < setup.cfg) $(cksum < constraints.txt)" ]; then
        return
    fi
    [ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
    echo "Installing $1 into $VENV (about 6 GB, some minutes the first time) ..."
    "$VENV/bin/python" -m pip install --quiet --constraint constraints.txt --editable "$1"
    echo "$1 $(cksum < setup.cfg) $(cksum < constraints.txt)" > "$stamp"
}
