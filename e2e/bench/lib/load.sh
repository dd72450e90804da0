# shellcheck shell=bash
# Load: wrk for small bodies, curl for large ones. A slot with one failed request ends the run: its figures would be of something else.

SMALL=(ours haproxy nginx)
LARGE=(ours haproxy haproxy-splice nginx)
CONNECTIONS=(1 32 256)
LARGE_GETS=8

warm_up() {
  local program
  for program in "${SMALL[@]}"; do wrk_slot "$program" 32 1; done
}

measure_small() {
  local round connections program
  for ((round = 1; round <= ROUNDS; round++)); do
    say "1 KiB GET with 1, 32 and 256 connections, round $round of $ROUNDS"
    for connections in "${CONNECTIONS[@]}"; do
            for program in $(rotated "$round" "${SMALL[@]}"); do
        wrk_slot "$program" "$connections" "$SLOT"
        sample "small $connections cpu" "$program" "$round" "$(divide "$CPU_US" "$REQUESTS")"
        sample "small $connections rate" "$program" "$round" "$RATE"
        sample "small $connections p50" "$program" "$round" "$P50"
        sample "small $connections p99" "$program" "$round" "$P99"
      done
      # For the reader: what load and backend take by themselves.
      wrk_slot direct "$connections" 1
      sample "small $connections rate" direct "$round" "$RATE"
      sample "small $connections p50" direct "$round" "$P50"
    done
  done
}

measure_large() {
  local round program
  say "64 MiB GET, $LARGE_GETS a program and round, $ROUNDS rounds"
  for ((round = 1; round <= ROUNDS; round++)); do
    for program in $(rotated "$round" "${LARGE[@]}"); do
      curl_slot "$program"
      sample "large cpu" "$program" "$round" "$(divide "$CPU_US" "$((LARGE_GETS * 1000))")"
      sample "large time" "$program" "$round" "$(divide "$ELAPSED_US" "$((LARGE_GETS * 1000))")"
    done
  done
}

measure_memory() {
  local program
  for program in ours haproxy; do sample "memory loaded" "$program" 1 "$(resident "$program")"; done
}

# rotated ROUND NAMES...: another one first in every round, so that none gains by its place.
rotated() {
  local first=$((($1 - 1) % ($# - 1)))
  shift
  echo "${@:first+1}" "${@:1:first}"
}

# wrk_slot PROGRAM CONNECTIONS SECONDS: CPU_US, REQUESTS, RATE (a second), P50 and P99 (us).
wrk_slot() {
  local threads=2 output=$WORK/wrk.out
  (($2 > 1)) || threads=1
  cpu_begin "$(process_of "$1")"
  timeout $(($3 + 10)) "${AS_NOBODY[@]}" wrk -t "$threads" -c "$2" -d "${3}s" --latency "http://127.0.0.1:${ADDRESS[$1]}/small" >"$output" 2>&1 ||
    { cat "$output" >&2; die "wrk failed against $1"; }
  cpu_end
  if grep -E 'Socket errors|Non-2xx' "$output" >&2; then
    tail -5 "$WORK/$(process_of "$1").log" >&2
    die "$1 failed requests with $2 connections"
  fi
  read -r REQUESTS RATE P50 P99 < <(awk '
    function us(text) {return text ~ /us$/ ? text + 0 : text ~ /ms$/ ? text * 1000 : text * 1000000}
    $1 == "50%" {p50 = us($2)}
    $1 == "99%" {p99 = us($2)}
    $2 == "requests" && $3 == "in" {requests = $1}
    $1 == "Requests/sec:" {rate = $2}
    END {print requests, rate, p50, p99}' "$output")
  [[ -n ${P99:-} ]] && ((REQUESTS > 0)) || { cat "$output" >&2; die "wrk's output against $1 is not understood"; }
}

# curl_slot PROGRAM: CPU_US and ELAPSED_US for LARGE_GETS requests, one after the other on one connection.
curl_slot() {
  local begin end sizes
  cpu_begin "$(process_of "$1")"
  begin=${EPOCHREALTIME/./}
  sizes=$("${AS_NOBODY[@]}" curl -sS --fail --max-time 60 -o /dev/null -w '%{size_download} %{num_connects}\n' "http://127.0.0.1:${ADDRESS[$1]}/large?[1-$LARGE_GETS]") ||
    die "curl failed against $1"
  end=${EPOCHREALTIME/./}
  cpu_end
  ELAPSED_US=$((end - begin))
  [[ $(sort <<<"$sizes" | uniq -c | awk '{print $1, $2, $3}' | xargs) == "$((LARGE_GETS - 1)) 67108864 0 1 67108864 1" ]] ||
    die "$1 did not send $LARGE_GETS bodies of 64 MiB on one connection: $(sort <<<"$sizes" | uniq -c | xargs)"
}
