# shellcheck shell=bash
# Small and large bodies where the way to the backend, or what is done with a request, is another one.

# measure_protocol tls|h2 NAME
measure_protocol() {
  local round program peers=("haproxy-$1" "envoy-$1")
  [[ $1 != tls ]] || peers+=(nginx-tls)
  ours_can "ours-$1" || { skip "$2" "this sidecar cannot do it: $WHY_NOT"; return 0; }
  start_proxies "ours-$1" "${peers[@]}"
  for program in "ours-$1" "${peers[@]}"; do wrk_slot "$program" 32 1; done
  for ((round = 1; round <= ROUNDS; round++)); do
    say "$2, round $round of $ROUNDS"
    for program in $(rotated "$round" "ours-$1" "${peers[@]}"); do
      wrk_slot "$program" 32 "$SLOT"
      sample "$1 cpu" "${program%-*}" "$round" "$(divide "$CPU_US" "$REQUESTS")"
      sample "$1 rate" "${program%-*}" "$round" "$RATE"
      large_samples "$1 get" GET "$program" "${program%-*}" "$round"
    done
  done
}

# The peer is the sidecar itself, without them.
measure_features() {
  local round program name
  ours_can ours-features || { skip "access log, traceparent and rate limit" "this sidecar cannot do it: $WHY_NOT"; return 0; }
  start_proxies ours ours-features
  for program in ours ours-features; do wrk_slot "$program" 32 1; done
  for ((round = 1; round <= ROUNDS; round++)); do
    say "1 KiB GET with and without access log, traceparent and rate limit, round $round of $ROUNDS"
    for program in $(rotated "$round" ours ours-features); do
      name=plain
      [[ $program == ours ]] || name=ours
      wrk_slot "$program" 32 "$SLOT"
      sample "features cpu" "$name" "$round" "$(divide "$CPU_US" "$REQUESTS")"
    done
  done
}
