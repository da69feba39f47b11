#!/bin/sh
# Makes .venv with this project, its development tools, and the versions of requirements.lock. Uses uv where it is
# installed, else pip. Extras as arguments: scripts/install.sh vllm tracking
set -eu
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
extras="dev$(printf ',%s' "$@" | sed 's/^,$//')"

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "error: $python is not Python 3.11 or newer: install one, or name it: make PYTHON=python3.12 install" >&2
    exit 2
fi
if command -v uv >/dev/null 2>&1; then
    [ -x .venv/bin/python ] || uv venv --quiet --python "$(command -v "$python")" .venv
    UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}" \
        uv pip install --python .venv/bin/python --constraint requirements.lock --editable ".[$extras]"
else
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    .venv/bin/python -m pip install --disable-pip-version-check --constraint requirements.lock --editable ".[$extras]"
fi
touch .venv/.installed
