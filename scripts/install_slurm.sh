#!/bin/sh
# Slurm and munge from the distribution, for `make test-slurm`, which starts both by itself in a temporary folder.
set -eu
PATH="$PATH:/usr/sbin:/sbin"
command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v munged >/dev/null && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "error: the Slurm tests need slurm-wlm and munge, which this installs with apt-get, as root." >&2
    exit 2
fi
apt-get update -q
apt-get install -qy --no-install-recommends slurm-wlm munge
