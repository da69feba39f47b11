#!/bin/bash
# Piston workers as Slurm jobs, each named piston-worker-<port>: bash slurm/piston/launch_piston_workers.sh 8
# Then PISTON_ENDPOINTS=slurm has the code rewards find them (docs/clusters.md).
set -euo pipefail
count=${1:-5}
folder=$(cd "$(dirname "$0")" && pwd)
[[ $count =~ ^[1-9][0-9]*$ ]] || {
    echo "error: the number of workers is '$count': give a whole number, such as 8." >&2
    exit 2
}
command -v sbatch >/dev/null || {
    echo "error: there is no sbatch here: run this on a Slurm cluster's login node." >&2
    exit 2
}
mapfile -t ports < <(shuf -i 2000-9999 -n "$count")
for port in "${ports[@]}"; do
    sbatch --job-name="piston-worker-$port" --export="ALL,PORT=$port" "$folder/launch_single_piston.sh"
done
