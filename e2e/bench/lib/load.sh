# shellcheck shell=bash
# Load: wrk for all that goes, h2load for a given rate, curl for large bodies. A slot with one failed request ends the run: its figures would be
# of something else.

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

# rate_slot PROGRAM CONNECTIONS SECONDS RATE: the same as wrk_slot, with RATE requests a second over all connections. A request that is late
# is sent when the one before it was answered, and its time counts from there.
rate_slot() {
  local threads=2 output=$WORK/h2load.out log=$WORK/h2load/log
  (($2 > 1)) || threads=1
  mkdir -p "$WORK/h2load"
  chmod 777 "$WORK/h2load"
  rm -f "$log"
  cpu_begin "$(process_of "$1")"
  timeout $(($3 + 10)) "${AS_NOBODY[@]}" h2load --h1 -t "$threads" -c "$2" -D "$3" --rps "$(divide "$4" "$2")" --log-file "$log" \
    "http://127.0.0.1:${ADDRESS[$1]}/small" >"$output" 2>&1 || { cat "$output" >&2; die "h2load failed against $1"; }
  cpu_end
  # Columns of the log: start, status, microseconds until the end of the answer.
  read -r REQUESTS FAILED P50 P99 < <(sort -n -k 3 "$log" | awk '
    {time[NR] = $3; if ($2 != 200) failed++}
    END {print NR, failed + 0, time[int((NR + 1) / 2)], time[int((NR * 99 + 99) / 100)]}')
  ((REQUESTS > 0 && FAILED == 0)) || { cat "$output" >&2; die "$1 failed $FAILED of $REQUESTS requests at $4 a second with $2 connections"; }
  RATE=$(divide "$REQUESTS" "$3")
}

# curl_slot METHOD PROGRAM COUNT: CPU_US and ELAPSED_US for COUNT bodies of 64 MiB, one after the other on one connection.
curl_slot() {
  local begin end sizes upload=() measured=size_download url="http://127.0.0.1:${ADDRESS[$2]}/large?[1-$3]"
  if [[ $1 == PUT ]]; then
    upload=(-H "Expect:" -T "$WORK/files/large")
    measured=size_upload
    url="http://127.0.0.1:${ADDRESS[$2]}/upload?[1-$3]"
  fi
  cpu_begin "$(process_of "$2")"
  begin=${EPOCHREALTIME/./}
  sizes=$("${AS_NOBODY[@]}" curl -sS --fail --max-time 60 "${upload[@]}" -o /dev/null -w "%{$measured} %{num_connects}\n" "$url") ||
    die "curl $1 failed against $2"
  end=${EPOCHREALTIME/./}
  cpu_end
  ELAPSED_US=$((end - begin))
  [[ $(sort <<<"$sizes" | uniq -c | awk '{print $1, $2, $3}' | xargs) == "$(($3 - 1)) 67108864 0 1 67108864 1" ]] ||
    die "$2 did not carry $3 bodies of 64 MiB on one connection: $(sort <<<"$sizes" | uniq -c | xargs)"
}
