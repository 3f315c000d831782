# Sourced by the other scripts: a virtual environment with the package in it.
VENV=${VENV:-.venv}
TORCH_CPU_INDEX=${TORCH_CPU_INDEX:-https://download.pytorch.org/whl/cpu}

find_python() {  # the newest that runs; version managers put names on the PATH that do not
    local name
    for name in python3.13 python3.12 python3.11; do
        if "$name" -c "" 2>/dev/null; then command -v "$name" && return; fi
    done
    echo "No python3.13, python3.12 or python3.11 is on the PATH: install one, or name one by PYTHON=FILE." >&2
    return 2
}

pip_install() {  # pip_install ARGUMENTS: what pip says is kept in a file, and shown if it fails
    "$VENV/bin/python" -m pip install --quiet "$@" >> "$VENV/install.log" 2>&1
}

install_cpu_torch() {  # PyTorch without CUDA, where its index can be reached and the build works
    local torch vision
    torch=$(sed -n 's/^torch==//p' constraints.txt)
    vision=$(sed -n 's/^torchvision==//p' constraints.txt)
    if pip_install --retries 0 --timeout 10 --extra-index-url "$TORCH_CPU_INDEX" \
        --constraint constraints.txt "torch==$torch+cpu" "torchvision==$vision+cpu" &&
        "$VENV/bin/python" -c "import torchvision" >> "$VENV/install.log" 2>&1; then
        echo "PyTorch $torch for the CPU is installed: the environment takes about 2 GB."
    else
        "$VENV/bin/python" -m pip uninstall --quiet --yes torch torchvision >> "$VENV/install.log" 2>&1 || true
        echo "There is no PyTorch $torch for the CPU that works at $TORCH_CPU_INDEX: the build with CUDA is" \
            "taken, which works without a GPU and costs about 4 GB more."
    fi
}

install_package() {  # install_package REQUIREMENT [--cpu]: install it unless the last install was the same
    local stamp="$VENV/.installed" what
    what="$1 $(cksum < setup.cfg) $(cksum < constraints.txt)"
    if [ "$(cat "$stamp" 2>/dev/null)" = "$what" ]; then
        return
    fi
    if [ ! -x "$VENV/bin/python" ]; then
        PYTHON=${PYTHON:-$(find_python)} || return 2
        echo "$("$PYTHON" --version), $PYTHON, makes the environment $VENV."
        "$PYTHON" -m venv "$VENV"
    fi
    echo "Installing $1: about 6 GB on disk, mostly CUDA (--cpu leaves it out), some minutes the first time ..."
    if [ "${2:-}" = --cpu ]; then install_cpu_torch; fi
    if ! pip_install --constraint constraints.txt --editable "$1"; then
        tail -n 20 "$VENV/install.log" >&2
        echo "pip failed; all it said is in $VENV/install.log." >&2
        return 1
    fi
    echo "$what" > "$stamp"
}
