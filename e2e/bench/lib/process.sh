# shellcheck shell=bash
# Processes under measurement: started as a user without capabilities, known by pid, ended by pid.

declare -A PID=()

# A user of no one's, so that no limit or right of a real user has a part in the figures.
AS_NOBODY=(setpriv --no-new-privs --inh-caps=-all)
((EUID != 0)) || AS_NOBODY+=(--reuid=65534 --regid=65534 --clear-groups --bounding-set=-all)

# start NAME COMMAND...
start() {
  "${AS_NOBODY[@]}" "${@:2}" >"$WORK/$1.log" 2>&1 </dev/null &
  PID[$1]=$!
}

# stop NAME: asks, waits five seconds, then insists.
stop() {
  local pid=${PID[$1]:-} deadline=$((SECONDS + 5))
  [[ -n $pid ]] || return 0
  unset "PID[$1]"
  kill -TERM "$pid" 2>/dev/null || true
  while kill -0 "$pid" 2>/dev/null && ((SECONDS < deadline)); do sleep 0.02; done
  kill -KILL "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
}

stop_all() {
  local name
  for name in "${!PID[@]}"; do stop "$name"; done
}

# await_answer NAME PORT PATH: until it answers 200.
await_answer() {
  local deadline=$((SECONDS + 10))
  until answers "$2" "$3"; do
    if ((SECONDS >= deadline)) || ! kill -0 "${PID[$1]}" 2>/dev/null; then
      tail -5 "$WORK/$1.log" >&2
      die "$1 does not answer on port $2"
    fi
    sleep 0.05
  done
  require_unprivileged "$1"
}

# answers PORT PATH: whether a GET is answered with 200. No program is started for it, so that it can be asked in a tight loop.
answers() {
  local line=
  { exec {SOCKET}<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || return 1
  printf 'GET %s HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n' "$2" >&"$SOCKET" 2>/dev/null && read -r -t 2 -u "$SOCKET" line || true
  exec {SOCKET}>&-
  [[ $line == "HTTP/1."?" 200"* ]]
}

require_unprivileged() {
  local field value
  while read -r field value; do
    [[ $field != CapEff: || $value =~ ^0+$ ]] || die "$1 has capabilities ($value)" "run as an ordinary user, or as root with setpriv"
  done <"/proc/${PID[$1]}/status"
}

# free_port: below the ports that the kernel gives to clients, so that none of those takes it in between.
free_port() {
  local port
  for _ in {1..50}; do
    port=$((20000 + RANDOM % 12000))
    [[ " ${TAKEN_PORTS:-} " != *" $port "* ]] || continue
    { : <>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null && continue
    TAKEN_PORTS+=" $port"
    PORT=$port
    return
  done
  die "no free port between 20000 and 32000"
}

# family NAME: the process and its children (nginx has workers).
family() {
  local stat line
  echo "${PID[$1]}"
  for stat in /proc/[0-9]*/stat; do
    { read -r line <"$stat"; } 2>/dev/null || continue
    # After the name in parentheses: state, parent.
    read -r _ parent _ <<<"${line##*) }"
    [[ $parent != "${PID[$1]}" ]] || echo "${line%% *}"
  done
}

# cpu_read PIDS...: processor time so far. CPU_EXACT has the kernel's nanoseconds of all threads that live, CPU_TICKS has utime and stime, which
# count threads that have ended too but are rounded to 10 ms, CPU_THREADS says which threads were counted.
cpu_read() {
  local pid task nanoseconds line fields
  CPU_EXACT=0 CPU_TICKS=0 CPU_THREADS=
  for pid in "$@"; do
    read -r line <"/proc/$pid/stat"
    read -ra fields <<<"${line##*) }"
    CPU_TICKS=$((CPU_TICKS + fields[11] + fields[12]))
    for task in "/proc/$pid/task/"*; do
      { read -r nanoseconds _ <"$task/schedstat"; } 2>/dev/null || continue
      CPU_EXACT=$((CPU_EXACT + nanoseconds))
      CPU_THREADS+=" ${task##*/}"
    done
  done
}

# cpu_begin NAME, then cpu_end: microseconds in between, in CPU_US.
cpu_begin() {
  mapfile -t CPU_PIDS < <(family "$1")
  cpu_read "${CPU_PIDS[@]}"
  CPU_BEFORE=("$CPU_EXACT" "$CPU_TICKS" "$CPU_THREADS")
}

cpu_end() {
  cpu_read "${CPU_PIDS[@]}"
  if [[ -n $CPU_THREADS && $CPU_THREADS == "${CPU_BEFORE[2]}" ]]; then
    CPU_US=$(((CPU_EXACT - CPU_BEFORE[0]) / 1000))
  else
    CPU_US=$(((CPU_TICKS - CPU_BEFORE[1]) * 1000000 / $(getconf CLK_TCK)))
  fi
}

# resident NAME: MiB now, of all its processes; peak NAME: the most that each had since its start.
resident() { memory_of "$1" VmRSS; }
peak() { memory_of "$1" VmHWM; }

memory_of() {
  local pid field value total=0
  for pid in $(family "$1"); do
    while read -r field value _; do
      [[ $field != "$2:" ]] || total=$((total + value))
    done <"/proc/$pid/status"
  done
  divide "$total" 1024
}
