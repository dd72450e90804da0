# shellcheck shell=bash
# UDP: datagrams through the sidecar, beside the simplest program that passes them on. There is no peer that is worth one: HAProxy has no UDP,
# and nginx takes one call for each datagram, as the floor does.

DATAGRAM=1200
UDP=(ours-udp floor)

# The sink, and ports for the proxies. Compiled here: it is load and floor, and no part of the workspace.
prepare_udp() {
  local name
  for name in sink "${UDP[@]}"; do
    free_port
    ADDRESS[$name]=$PORT
  done
  install -m 755 "$SIDECAR" "$WORK/sidecar"
  gcc -O2 -o "$WORK/datagrams" "$BENCH/datagrams.c" || die "the UDP load cannot be compiled"
  # The sink tells what it has taken in when it is asked.
  rm -f "$WORK/sink.in" "$WORK/sink.out"
  mkfifo -m 600 "$WORK/sink.in" "$WORK/sink.out"
  "${AS_NOBODY[@]}" "$WORK/datagrams" sink "${ADDRESS[sink]}" <"$WORK/sink.in" >"$WORK/sink.out" 2>"$WORK/sink.log" &
  PID[sink]=$!
  exec {SINK_IN}>"$WORK/sink.in" {SINK_OUT}<"$WORK/sink.out"
}

# taken: datagrams and bytes that the sink has by now, in TAKEN.
taken() {
  echo >&"$SINK_IN"
  read -r -t 10 -a TAKEN <&"$SINK_OUT" || die "the sink says nothing: $(tail -1 "$WORK/sink.log")"
}

start_udp() {
  prepare_ours ours-udp
  start ours-udp "${START_OURS[@]}"
  await_answer ours-udp "${READY[ours-udp]}" /ready
  start floor "$WORK/datagrams" floor "${ADDRESS[floor]}" "${ADDRESS[sink]}"
  local program
  for program in "${UDP[@]}"; do await_datagram "$program"; done
}

# await_datagram PROGRAM: until one has come through.
await_datagram() {
  local deadline=$((SECONDS + 10)) before
  taken
  before=${TAKEN[0]}
  until ((TAKEN[0] > before)); do
    ((SECONDS < deadline)) || die "$1 passes no datagram on: $(tail -1 "$WORK/$1.log")"
    "$WORK/datagrams" load "${ADDRESS[$1]}" 0.01 1 "$DATAGRAM" 1 >/dev/null
    sleep 0.05
    taken
  done
  require_unprivileged "$1"
}

# udp_slot PROGRAM SENDERS SEGMENTS: CPU_US of the program, and datagrams that came through in THROUGH.
udp_slot() {
  local before
  taken
  before=("${TAKEN[@]}")
  cpu_begin "$1"
  "${AS_NOBODY[@]}" "$WORK/datagrams" load "${ADDRESS[$1]}" "$SLOT" "$2" "$DATAGRAM" "$3" >"$WORK/load.out" || die "the load failed"
  # What waits in buffers is still passed on.
  sleep 0.1
  cpu_end
  taken
  THROUGH=$((TAKEN[0] - before[0]))
  ((THROUGH > 0 && TAKEN[1] - before[1] == THROUGH * DATAGRAM)) || die "$1 passed something else on than $DATAGRAM bytes a datagram"
}

# measure_udp FIGURE SENDERS SEGMENTS
measure_udp() {
  local round program
  start_udp
  for ((round = 1; round <= ROUNDS; round++)); do
    say "$1, round $round of $ROUNDS"
    for program in $(rotated "$round" "${UDP[@]}"); do
      udp_slot "$program" "$2" "$3"
      # Datagrams for each second of a processor.
      sample "$1 core" "${program%-udp}" "$round" "$(divide "$THROUGH" "$(divide "$CPU_US" 1000000)")"
      sample "$1 rate" "${program%-udp}" "$round" "$(divide "$THROUGH" "$SLOT")"
    done
  done
}
