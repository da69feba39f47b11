# shellcheck shell=bash
# Sourced by the job scripts in the folder of the project: the site's settings, then the job itself, in Python.

fail() {
    echo "error: $*" >&2
    exit 2
}

asks_for_help() {
    for word in "$@"; do
        case "$word" in
        --args | --args=*) return 1 ;;
        -h | --help) return 0 ;;
        esac
    done
    return 1
}

if [ ! -f slurm/site.env ] && asks_for_help "$@"; then
    PATH="$PWD/.venv/bin:$PATH"
    python -c "import open_r1" 2>/dev/null ||
        fail "--help needs the environment that Open R1 is installed in: run make install, or activate it."
    exec python -m open_r1.launch.slurm "$@"
fi
[ -f slurm/site.env ] ||
    fail "slurm/site.env is missing: cp slurm/site.env.example slurm/site.env, and change it to fit this cluster."
# shellcheck source=slurm/site.env.example
source slurm/site.env
[ -n "${OPEN_R1_ENVIRONMENT:-}" ] ||
    fail "slurm/site.env does not set OPEN_R1_ENVIRONMENT: the folder of the environment that Open R1 is installed in."
[ -x "$OPEN_R1_ENVIRONMENT/bin/python" ] ||
    fail "slurm/site.env sets OPEN_R1_ENVIRONMENT=$OPEN_R1_ENVIRONMENT, which holds no bin/python on $(hostname)."
for name in ${OPEN_R1_MODULES:-}; do
    module load "$name" || fail "slurm/site.env names the module $name, which does not load on $(hostname)."
done
PATH="$(cd "$OPEN_R1_ENVIRONMENT" && pwd)/bin:$PATH"
export PATH
exec python -m open_r1.launch.slurm "$@"
