# Open R1 for NVIDIA GPUs. The driver comes from the host, through the NVIDIA Container Toolkit.
#
#   docker build -t open-r1 .
#   docker run --rm --gpus all --shm-size 16g -v "$PWD/runs:/work/runs" open-r1 doctor
#   docker run --rm --gpus all --shm-size 16g -v "$PWD/runs:/work/runs" open-r1 grpo --config recipes/...
FROM python:3.12-slim

# gcc: the native engine and torch.compile use Triton, which compiles its launcher; bubblewrap: the sandbox of code rewards
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bubblewrap g++ gcc git libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /work
COPY LICENSE README.md pyproject.toml requirements.lock ./
COPY recipes recipes
COPY examples examples
COPY src src

# The version is that of the git tag, which the image does not have: --build-arg VERSION=0.2.0
ARG VERSION=0.1.0
RUN SETUPTOOLS_SCM_PRETEND_VERSION="$VERSION" pip install --no-cache-dir --constraint requirements.lock ".[peft]"

ENV HF_HOME=/work/cache
ENTRYPOINT ["open-r1"]
CMD ["--help"]
