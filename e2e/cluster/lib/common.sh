# shellcheck shell=bash
# Folders, names and talk of all cluster scripts. Stdout carries only what was asked for (a path); all talk goes to stderr.

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
REPO=$(cd "$HERE/../.." && pwd)
CACHE=${SIDECAR_CACHE:-$HOME/.cache/sidecar-operator}
RUN=$CACHE/cluster/run
IMAGES=${CARGO_TARGET_DIR:-$REPO/target}/images
KIND_CLUSTER=sidecar-operator

export DEBIAN_FRONTEND=noninteractive

say() { echo "cluster: $*" >&2; }

# die WHAT REMEDY
die() {
  say "$1"
  [[ -z ${2:-} ]] || say "$2"
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# await SECONDS WHAT COMMAND...: until the command succeeds, with a line of progress every ten seconds.
await() {
  local limit=$1 what=$2 start=$SECONDS next=10
  shift 2
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS - start >= limit)); then
      say "$what: not after $limit s"
      return 1
    fi
    if ((SECONDS - start >= next)); then
      say "waiting for $what, $((SECONDS - start)) s"
      next=$((next + 10))
    fi
    sleep 0.2
  done
}

# up, down and control change the same cluster: one of them at a time.
take_lock() {
  mkdir -p "$CACHE/cluster"
  exec {CLUSTER_LOCK}>"$CACHE/cluster/lock"
  flock -n "$CLUSTER_LOCK" || {
    say "waiting for another run of these scripts"
    flock -w 1800 "$CLUSTER_LOCK" || die "another run of these scripts has not ended for half an hour"
  }
}
