# shellcheck shell=bash
# Resident memory: idle, with many idle connections, and with many uploads at once. Each from a fresh start.

MEMORY=(ours haproxy nginx envoy)
MEMORY_ROUNDS=3
CROWD=1000

measure_memory() {
  local round program
  for ((round = 1; round <= MEMORY_ROUNDS; round++)); do
    say "resident memory, round $round of $MEMORY_ROUNDS"
    for program in "${MEMORY[@]}"; do
      start_proxy "$program"
      sleep 2
      sample "memory idle" "$program" "$round" "$(resident "$program")"
      crowd_arrives idle "$program"
      sleep 1
      sample "memory connections" "$program" "$round" "$(resident "$program")"
      crowd_leaves "$program"
      stop "$program"

      start_proxy "$program"
      crowd_arrives upload "$program"
      sample "memory uploads half" "$program" "$round" "$(resident "$program")"
      crowd_leaves "$program"
      sample "memory uploads peak" "$program" "$round" "$(peak "$program")"
      stop "$program"
    done
  done
}

# crowd_arrives idle|upload PROGRAM: until all of them are there, or half through their uploads.
crowd_arrives() {
  local word=
  coproc CROWD_PROCESS { exec python3 "$BENCH/lib/crowd.py" "$1" "${ADDRESS[$2]}" "$CROWD" 2>"$WORK/crowd.log"; }
  read -r -t 60 word <&"${CROWD_PROCESS[0]}" || true
  [[ $word == there ]] || { tail -5 "$WORK/crowd.log" >&2; die "$2 did not take $CROWD connections ($1)"; }
}

# crowd_leaves PROGRAM: when the uploads are answered.
crowd_leaves() {
  local word= pid=$CROWD_PROCESS_PID
  echo go >&"${CROWD_PROCESS[1]}"
  read -r -t 60 word <&"${CROWD_PROCESS[0]}" || true
  [[ $word == done ]] || { tail -5 "$WORK/crowd.log" >&2; die "$1 did not serve $CROWD connections to their end"; }
  wait "$pid" || true
}
