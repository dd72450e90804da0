# shellcheck shell=bash
# Large bodies, both ways: HAProxy copies them under one address and splices them under another.

LARGE=(ours haproxy haproxy-splice nginx envoy)
# Half a GiB.
LARGE_COUNT=8

# measure_large METHOD
measure_large() {
  local round program
  start_proxies "${LARGE[@]}"
  say "64 MiB $1, $LARGE_COUNT a program and round, $ROUNDS rounds"
  for ((round = 1; round <= ROUNDS; round++)); do
    for program in $(rotated "$round" "${LARGE[@]}"); do
      large_samples "${1,,}" "$1" "$program" "$program" "$round"
    done
  done
}

# large_samples FIGURE METHOD PROGRAM NAME ROUND: a program may stand under another name in the report.
large_samples() {
  curl_slot "$2" "$3" "$LARGE_COUNT"
  sample "$1 cpu" "$4" "$5" "$(divide "$CPU_US" "$((LARGE_COUNT * 1000 / 16))")"
  sample "$1 time" "$4" "$5" "$(divide "$ELAPSED_US" "$((LARGE_COUNT * 1000))")"
}
