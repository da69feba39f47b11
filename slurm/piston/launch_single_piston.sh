#!/bin/bash
# One Piston worker in a container (pyxis), on $PORT: launch_piston_workers.sh submits it.
#SBATCH --job-name=piston-worker
#SBATCH --output=logs/%x-%j.out
#SBATCH --cpus-per-task=2
#SBATCH --mem-per-cpu=1950M
#SBATCH --gpus-per-node=0
#SBATCH --time=48:00:00
set -euo pipefail
[ -f slurm/site.env ] && source slurm/site.env
: "${PORT:?submit this through slurm/piston/launch_piston_workers.sh}"
# Packages that one worker installs are there for all of them.
packages=${PISTON_PACKAGES:-$PWD/data/piston-packages}
# A version before the one that needs control groups of its own.
image=${PISTON_IMAGE:-ghcr.io#engineer-man/piston:sha256:63b5654156a89c5a2ad281aface21416615d62ec056d88efe8fcd307ce73575a}
mkdir -p "$packages"
export PORT
export PISTON_COMPILE_TIMEOUT=60000 PISTON_RUN_TIMEOUT=60000
export PISTON_OUTPUT_MAX_SIZE=1000000000 PISTON_MAX_FILE_SIZE=1000000000
export PISTON_DISABLE_NETWORKING=true
export PISTON_REPO_URL=${PISTON_REPO_URL:-https://github.com/guipenedo/piston/releases/download/pkgs/index}
# The server takes 100 kB at most unless told otherwise; tests are larger.
exec srun --container-image "$image" --container-mounts "$packages:/piston/packages" bash -c '
    sed -i "s/body_parser.json()/body_parser.json({ limit: \"512mb\" })/" src/index.js
    sed -i "s/body_parser.urlencoded({ extended: true })/body_parser.urlencoded({ extended: true, limit: \"512mb\" })/" src/index.js
    exec node src'
