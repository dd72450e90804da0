# shellcheck shell=bash
# Folders, talk and samples. Stdout carries the table; all other talk goes to stderr.

REPO=$(cd "$BENCH/../.." && pwd)
TARGET=${CARGO_TARGET_DIR:-$REPO/target}
RESULTS=$TARGET/bench

say() { echo "bench: $*" >&2; }

# die WHAT REMEDY
die() {
  say "$1"
  [[ -z ${2:-} ]] || say "$2"
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# whole_number NAME VALUE LEAST MOST
whole_number() {
  [[ $2 =~ ^[1-9][0-9]{0,5}$ ]] && (($2 >= $3 && $2 <= $4)) || die "$1 is '$2'" "set it to a whole number from $3 to $4"
  echo "$2"
}

# A folder that the unprivileged user can read: the checkout may lie below a home folder that it cannot enter.
open_workspace() {
  WORK=$(mktemp -d "${TMPDIR:-/tmp}/sidecar-bench.XXXXXX")
  trap close_workspace EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  chmod 755 "$WORK"
  mkdir -p "$RESULTS"
  : >"$WORK/samples.tsv"
  : >"$WORK/skipped.tsv"
}

close_workspace() {
  stop_all
  rm -rf "$WORK"
}

# sample FIGURE PROGRAM ROUND VALUE: one measured value; the figure is one of figures.tsv.
sample() { printf '%s\t%s\t%s\t%s\n' "$@" >>"$WORK/samples.tsv"; }

# skip WHAT REASON: said at the end, below the table.
skip() {
  say "skipped: $1: $2"
  printf '%s: %s\n' "$@" >>"$WORK/skipped.tsv"
}

# median VALUES...: the middle one, or the greater of the two in the middle.
median() { printf '%s\n' "$@" | sort -g | awk '{value[NR] = $1} END {print value[int(NR / 2) + 1]}'; }

# divide A B: with six decimals.
divide() { awk -v a="$1" -v b="$2" 'BEGIN {if (b == 0) exit 1; printf "%.6f\n", a / b}'; }
