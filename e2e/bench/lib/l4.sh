# shellcheck shell=bash
# TCP: bytes, connections and messages through the proxies, to a server that says nothing of its own.

L4=(ours-tcp haproxy-tcp haproxytcp-splice nginxstream)
L4_ROUNDS_OF_IDLE=3
L4_IDLE=10000

# The server that sends, takes or echoes what it is told to.
prepare_l4() {
  prepare_tcp passes_message
  install -m 755 "$STREAMS" "$WORK/streams"
  start server "$WORK/streams" serve "127.0.0.1:${ADDRESS[direct]}"
  await_tcp server direct
}

# prepare_tcp COMMAND: ports for a server and the proxies. `COMMAND NAME` is whether one of them answers as the server does.
prepare_tcp() {
  local name
  L4_ANSWERS=$1
  # A proxy has two for each connection.
  ulimit -n "$(ulimit -Hn)"
  MOST_CONNECTIONS=$((($(ulimit -n) - 1000) / 2))
  ((MOST_CONNECTIONS <= 25000)) || MOST_CONNECTIONS=25000
  # The sidecar keeps a quarter of its descriptors for itself.
  ((L4_IDLE <= MOST_CONNECTIONS * 3 / 4 - 500)) || L4_IDLE=$((MOST_CONNECTIONS * 3 / 4 - 500))
  for name in direct "${L4[@]}"; do
    free_port
    ADDRESS[$name]=$PORT
  done
  install -m 755 "$SIDECAR" "$WORK/sidecar"
}

passes_message() {
  "$WORK/streams" pingpong "127.0.0.1:${ADDRESS[$1]}" 1 0 >/dev/null 2>&1 && { : <>"/dev/tcp/127.0.0.1/${ADDRESS[$1]}"; } 2>/dev/null
}

# await_tcp PROCESS NAME: until it answers.
await_tcp() {
  local deadline=$((SECONDS + 10))
  until "$L4_ANSWERS" "$2"; do
    if ((SECONDS >= deadline)) || ! kill -0 "${PID[$1]}" 2>/dev/null; then
      tail -5 "$WORK/$1.log" >&2
      die "$1 does not answer as the server does"
    fi
    sleep 0.05
  done
  require_unprivileged "$1"
}

# HAProxy runs twice, so that CPU of copying and of splicing are told apart.
start_l4() {
  local name
  for name in "$@"; do
    [[ -z ${PID[$name]:-} ]] || continue
    case $name in
      ours-tcp)
        prepare_ours "$name"
        start "$name" "${START_OURS[@]}"
        await_answer "$name" "${READY[$name]}" /ready
        ;;
      haproxy-tcp)
        configure haproxy-tcp.cfg
        start "$name" haproxy -db -f "$WORK/haproxy-tcp.cfg"
        ;;
      haproxytcp-splice)
        configure haproxy-tcp-splice.cfg
        start "$name" haproxy -db -f "$WORK/haproxy-tcp-splice.cfg"
        ;;
      nginxstream)
        configure nginx-stream.conf
        start_nginx "$name" nginx-stream.conf
        ;;
    esac
    await_tcp "$name" "$name"
  done
}

# streams_slot PROGRAM COMMAND ARGUMENTS...: CPU_US, and the numbers in RESULT.
streams_slot() {
  local address=127.0.0.1:${ADDRESS[$1]}
  [[ $1 == direct ]] || cpu_begin "$1"
  read -ra RESULT < <(timeout 60 "${AS_NOBODY[@]}" "$WORK/streams" "$2" "$address" "${@:3}" 2>"$WORK/streams.log")
  [[ $1 == direct ]] || cpu_end
  [[ -n ${RESULT[0]:-} ]] && ((RESULT[0] > 0)) || { cat "$WORK/streams.log" >&2; die "$2 came to nothing through $1"; }
}

# measure_l4_bulk CONNECTIONS
measure_l4_bulk() {
  local round program
  start_l4 "${L4[@]}"
  for ((round = 1; round <= ROUNDS; round++)); do
    say "bulk, $1 connections, round $round of $ROUNDS"
    for program in $(rotated "$round" "${L4[@]}"); do
      streams_slot "$program" bulk "$1" "$SLOT"
      # Milliseconds a GiB.
      l4_sample "l4 bulk $1 cpu" "$program" "$round" "$(divide "$((CPU_US * 1024))" "$((RESULT[0] / 1024 / 1024 * 1000 + 1))")"
      l4_sample "l4 bulk $1 rate" "$program" "$round" "$(divide "$((RESULT[0] * 8))" "$((RESULT[1] * 1000))")"
    done
    streams_slot direct bulk "$1" 1
    sample "l4 bulk $1 rate" direct "$round" "$(divide "$((RESULT[0] * 8))" "$((RESULT[1] * 1000))")"
  done
}

# measure_l4_pingpong CONNECTIONS
measure_l4_pingpong() {
  local round program
  start_l4 "${L4[@]}"
  for ((round = 1; round <= ROUNDS; round++)); do
    say "64 B ping-pong, $1 connections, round $round of $ROUNDS"
    for program in $(rotated "$round" "${L4[@]}"); do
      streams_slot "$program" pingpong "$1" "$SLOT"
      l4_sample "l4 pingpong $1 cpu" "$program" "$round" "$(divide "$CPU_US" "${RESULT[0]}")"
      l4_sample "l4 pingpong $1 rate" "$program" "$round" "${RESULT[1]}"
      l4_sample "l4 pingpong $1 p50" "$program" "$round" "$(divide "${RESULT[2]}" 1000)"
      l4_sample "l4 pingpong $1 p99" "$program" "$round" "$(divide "${RESULT[3]}" 1000)"
    done
    streams_slot direct pingpong "$1" 1
    sample "l4 pingpong $1 p50" direct "$round" "$(divide "${RESULT[2]}" 1000)"
  done
}

measure_l4_connect() {
  local round program
  start_l4 "${L4[@]}"
  for ((round = 1; round <= ROUNDS; round++)); do
    say "new connections, round $round of $ROUNDS"
    for program in $(rotated "$round" "${L4[@]}"); do
      streams_slot "$program" connect 8 "$SLOT"
      l4_sample "l4 connect cpu" "$program" "$round" "$(divide "$CPU_US" "${RESULT[0]}")"
      l4_sample "l4 connect rate" "$program" "$round" "$(divide "${RESULT[0]}" "$SLOT")"
    done
  done
}

# Kernel memory is not in it: that is the same for all.
measure_l4_idle() {
  local round program before word pid
  for ((round = 1; round <= L4_ROUNDS_OF_IDLE; round++)); do
    say "$L4_IDLE idle connections, round $round of $L4_ROUNDS_OF_IDLE"
    for program in ours-tcp haproxy-tcp nginxstream; do
      start_l4 "$program"
      before=$(resident "$program")
      coproc IDLE { exec "$WORK/streams" idle "127.0.0.1:${ADDRESS[$program]}" "$L4_IDLE" 2>"$WORK/streams.log"; }
      pid=$IDLE_PID
      word=
      read -r -t 60 word <&"${IDLE[0]}" || true
      [[ $word == there ]] || { tail -5 "$WORK/streams.log" >&2; die "$program did not take $L4_IDLE connections"; }
      sleep 1
      # KiB a connection.
      l4_sample "l4 idle" "$program" "$round" "$(awk -v a="$before" -v b="$(resident "$program")" -v n="$L4_IDLE" 'BEGIN {printf "%.4f\n", (b - a) * 1024 / n}')"
      echo go >&"${IDLE[1]}"
      wait "$pid" || true
      stop "$program"
    done
  done
}

# l4_sample FIGURE PROGRAM ROUND VALUE: under the names that the table has.
l4_sample() {
  case $2 in
    ours-tcp) sample "$1" ours "$3" "$4" ;;
    haproxy-tcp) sample "$1" haproxy "$3" "$4" ;;
    haproxytcp-splice) sample "$1" haproxy-splice "$3" "$4" ;;
    nginxstream) sample "$1" nginx "$3" "$4" ;;
  esac
}
