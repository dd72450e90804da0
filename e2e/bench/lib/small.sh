# shellcheck shell=bash
# Small bodies: as many requests as go, and all programs at one rate.

SMALL=(ours haproxy nginx envoy)
PACED=(ours haproxy nginx)
# Of HAProxy's own most, as wrk finds it.
PACED_SHARE=0.7

# measure_small CONNECTIONS
measure_small() {
  local round program
  start_proxies "${SMALL[@]}"
  for program in "${SMALL[@]}"; do wrk_slot "$program" "$1" 1; done
  for ((round = 1; round <= ROUNDS; round++)); do
    say "1 KiB GET with $1 connections, round $round of $ROUNDS"
    for program in $(rotated "$round" "${SMALL[@]}"); do
      wrk_slot "$program" "$1" "$SLOT"
      sample "small $1 cpu" "$program" "$round" "$(divide "$CPU_US" "$REQUESTS")"
      sample "small $1 rate" "$program" "$round" "$RATE"
      sample "small $1 p50" "$program" "$round" "$P50"
      sample "small $1 p99" "$program" "$round" "$P99"
    done
    # For the reader: what load and backend take by themselves.
    wrk_slot direct "$1" 1
    sample "small $1 rate" direct "$round" "$RATE"
    sample "small $1 p50" direct "$round" "$P50"
  done
  for program in ours haproxy; do sample "small $1 memory" "$program" 1 "$(resident "$program")"; done
}

measure_rate() {
  local connections round program rate rates
  start_proxies "${PACED[@]}"
  for connections in 1 32 256; do
    rates=()
    for round in 1 2 3; do
      wrk_slot haproxy "$connections" 1
      rates+=("$RATE")
    done
    rate=$(awk -v most="$(median "${rates[@]}")" -v share="$PACED_SHARE" 'BEGIN {printf "%d\n", most * share}')
    for ((round = 1; round <= ROUNDS; round++)); do
      say "1 KiB GET with $connections connections at $rate a second, round $round of $ROUNDS"
      for program in $(rotated "$round" "${PACED[@]}"); do
        rate_slot "$program" "$connections" "$SLOT" "$rate"
        sample "rate $connections cpu" "$program" "$round" "$(divide "$CPU_US" "$REQUESTS")"
        sample "rate $connections p50" "$program" "$round" "$P50"
        sample "rate $connections p99" "$program" "$round" "$P99"
        sample "rate $connections rate" "$program" "$round" "$RATE"
      done
    done
  done
}
