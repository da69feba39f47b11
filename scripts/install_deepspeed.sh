#!/bin/sh
# Makes .venv-deepspeed: this project with DeepSpeed, for the tests marked deepspeed. Beside .venv, because transformers
# and accelerate behave otherwise where it is installed.
set -eu
cd "$(dirname "$0")/.."
python="$(.venv/bin/python -c 'import sys; print(sys._base_executable)')"
[ -x .venv-deepspeed/bin/python ] || "$python" -m venv .venv-deepspeed
DS_BUILD_OPS=0 .venv-deepspeed/bin/python -m pip install --quiet --disable-pip-version-check \
    --constraint requirements.lock --editable ".[dev,deepspeed]"
touch .venv-deepspeed/.installed
