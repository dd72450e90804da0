# shellcheck shell=bash
# Processes of the cluster: NAME.pid holds "pid start-time". A pid counts as ours only while a process with that pid has that
# start time and runs our binary, so that a stale file after a crash or a reboot never hits a stranger.

# start NAME BINARY ARGS...
start() {
  local name=$1
  shift
  alive "$name" && return 0
  # Locks are not handed down: a server would hold them as long as it lives.
  setsid "$BIN/$1" "${@:2}" >>"$RUN/log/$name.log" 2>&1 </dev/null {CLUSTER_LOCK}>&- &
  local pid=$!
  echo "$pid $(start_time "$pid")" >"$RUN/$name.pid"
  # Until it has become the program, it is not known as ours.
  await 2 "the start of $name" begun "$name" "$pid" || true
}

begun() { alive "$1" || [[ ! -d /proc/$2 ]]; }

# await_part SECONDS NAME CHECK: until the check succeeds, but no longer than the part lives.
await_part() {
  if await "$1" "$2" settled "$2" "$3" && alive "$2"; then return 0; fi
  show_log "$2"
  return 1
}

settled() { "$2" || dead "$1"; }

start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

pid_of() {
  local pid since
  [[ -f $RUN/$1.pid ]] && read -r pid since <"$RUN/$1.pid" || return 1
  [[ -n $since && $(start_time "$pid") == "$since" ]] || return 1
  [[ $(readlink "/proc/$pid/exe") == "$CACHE/tools/"* ]] || return 1
  echo "$pid"
}

alive() { pid_of "$1" >/dev/null; }

dead() { ! alive "$1"; }

# stop NAME: asks, waits ten seconds, then insists.
stop() {
  local pid
  if pid=$(pid_of "$1"); then
    kill -TERM "$pid" 2>/dev/null || true
    await "${2:-10}" "the end of $1" dead "$1" || { kill -KILL "$pid" 2>/dev/null || true; await 10 "the end of $1" dead "$1"; }
  fi
  rm -f "$RUN/$1.pid"
}

# The last words of a part that did not come up.
show_log() {
  say "last lines of $RUN/log/$1.log:"
  tail -8 "$RUN/log/$1.log" >&2 || true
}

require_free_port() {
  local owner
  owner=$(ss -Hltnp "sport = :$1" 2>/dev/null | head -1) || true
  [[ -z $owner ]] || die "port $1 is taken: $owner" "stop that process and run again"
}
