#!/usr/bin/env bash
# Make the virtual environment; the Makefile and the Dockerfile call this and nothing else.
#
#   scripts/install.sh
#
# Variables:
#   PYTHON   the interpreter to make it with                       (default: python3.11)
#   VENV     the folder of the environment                         (default: .venv)
#   DEV      1 with what tests and linting need, 0 without         (default: 1)
#
# pip's own variables are respected. On a machine without a GPU, PyTorch's CPU build saves gigabytes of downloads:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu scripts/install.sh
#
# Nothing is done where the environment is complete and its inputs have not changed since.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python="${PYTHON:-python3.11}"
venv="${VENV:-.venv}"
dev="${DEV:-1}"
stamp="$venv/.installed"

# The scripts of an environment hold its path: one that was moved together with the folder has to be made again.
state() {
    cksum pyproject.toml constraints.txt scripts/install.sh
    echo "$PWD dev=$dev $("$venv/bin/python" --version 2>&1)"
}

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(state)" ]; then
    exit 0
fi

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "adapterctl needs Python 3.11 or newer, and '$python' is not one." >&2
    echo "Install Python 3.11, or name an interpreter: PYTHON=/path/to/python3.11 make test" >&2
    exit 1
fi

echo "Installing into $venv (a few minutes the first time) ..."
here="$(mkdir -p "$venv" && cd "$venv" && pwd)"
if ! grep -qsF "$here" "$venv/bin/activate" || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    if ! "$python" -m venv --clear "$venv"; then
        echo "'$python' cannot make virtual environments. On Debian and Ubuntu: apt install python3.11-venv" >&2
        exit 1
    fi
fi

# Twice quiet: errors only.
pip() { "$venv/bin/python" -m pip --disable-pip-version-check install -qq --constraint constraints.txt "$@"; }
# PyTorch comes first and alone: it is the largest part, and the one that may come from an index of its own.
pip torch
if [ "$dev" = 1 ]; then pip --editable '.[dev,peers,ja,lm-eval,bertscore,energy,codecarbon]'; else pip --editable .; fi

"$venv/bin/adapterctl" --version
state >"$stamp"
