# shellcheck shell=bash
# Start until ready, memory when idle, and sizes.

STARTS=30

measure_start() {
  local round
  start_backend
  prepare_proxies
  say "start until ready, $STARTS times each, and memory when idle"
  for ((round = 1; round <= STARTS; round++)); do
    start_once ours "$round" "${ADDRESS[ready]}" /ready "${START_OURS[@]}"
    start_once haproxy "$round" "${ADDRESS[haproxy]}" /small "${START_HAPROXY[@]}"
  done
  idle_memory ours "${ADDRESS[ready]}" /ready "${START_OURS[@]}"
  idle_memory haproxy "${ADDRESS[haproxy]}" /small "${START_HAPROXY[@]}"
  measure_sizes
  stop_all
}

# start_once PROGRAM ROUND PORT PATH COMMAND...: from fork to the first 200, asked without a pause.
start_once() {
  local begin end deadline=$((SECONDS + 10))
  begin=${EPOCHREALTIME/./}
  start "$1" "${@:5}"
  until answers "$3" "$4"; do
    ((SECONDS < deadline)) || { tail -5 "$WORK/$1.log" >&2; die "$1 was not ready in 10 s"; }
  done
  end=${EPOCHREALTIME/./}
  stop "$1"
  sample "start ready" "$1" "$2" "$(divide $((end - begin)) 1000)"
}

# idle_memory PROGRAM PORT PATH COMMAND...
idle_memory() {
  start "$1" "${@:4}"
  await_answer "$1" "$2" "$3"
  sleep 2
  sample "memory idle" "$1" 1 "$(resident "$1")"
  stop "$1"
}

measure_sizes() {
  local version image
  sample "size program" ours 1 "$(megabytes "$SIDECAR")"
  sample "size program" haproxy 1 "$(megabytes "$(command -v haproxy)")"
  version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$REPO/Cargo.toml")
  image=$TARGET/images/sidecar-$version.tar
  if [[ -f $image ]]; then
    sample "size image" ours 1 "$(megabytes "$image")"
  else
    say "image size: not measured, there is no $image (make image)"
  fi
}

megabytes() { divide "$(stat -Lc %s "$1")" 1000000; }
