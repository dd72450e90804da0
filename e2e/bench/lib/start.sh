# shellcheck shell=bash
# Start until ready, and sizes.

STARTS=30

measure_start() {
  local round
  prepare_ours ours
  prepare_haproxy
  say "start until ready, $STARTS times each"
  for ((round = 1; round <= STARTS; round++)); do
    start_once ours "$round" "${READY[ours]}" /ready "${START_OURS[@]}"
    start_once haproxy "$round" "${ADDRESS[haproxy]}" /small "${START_HAPROXY[@]}"
  done
  measure_sizes
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
