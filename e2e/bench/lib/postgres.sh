# shellcheck shell=bash
# PostgreSQL: pgbench's select-only load through the proxies, to a server that has all rows in memory and never flushes.

POSTGRES_PROGRAMS=/usr/lib/postgresql/15/bin
POSTGRES_CLIENTS=16
# Rows are 100,000 times this.
POSTGRES_SCALE=4

prepare_postgres() {
  prepare_tcp serves_postgres
  mkdir -m 700 "$WORK/postgres"
  ((EUID != 0)) || chown 65534:65534 "$WORK/postgres"
  "${AS_NOBODY[@]}" "$POSTGRES_PROGRAMS/initdb" --username=postgres --auth=trust --no-locale --encoding=UTF8 --no-sync \
    --pgdata="$WORK/postgres/data" >"$WORK/initdb.log" 2>&1 || { tail -5 "$WORK/initdb.log" >&2; die "initdb failed"; }
  start server "$POSTGRES_PROGRAMS/postgres" -D "$WORK/postgres/data" -h 127.0.0.1 -p "${ADDRESS[direct]}" -c unix_socket_directories= \
    -c fsync=off -c shared_buffers=128MB -c autovacuum=off
  await_tcp server direct
  pgbench_with direct --initialize --quiet --scale="$POSTGRES_SCALE" || { tail -5 "$WORK/pgbench.log" >&2; die "pgbench made no tables"; }
}

serves_postgres() { "$POSTGRES_PROGRAMS/pg_isready" -q -t 2 -h 127.0.0.1 -p "${ADDRESS[$1]}"; }

# pgbench_with NAME ARGUMENTS...: its report is in pgbench.log.
pgbench_with() {
  timeout 60 "${AS_NOBODY[@]}" "$POSTGRES_PROGRAMS/pgbench" "${@:2}" -h 127.0.0.1 -p "${ADDRESS[$1]}" -U postgres postgres >"$WORK/pgbench.log" 2>&1
}

measure_postgres() {
  local round program transactions failed latency rate
  start_l4 "${L4[@]}"
  for ((round = 1; round <= ROUNDS; round++)); do
    say "pgbench, $POSTGRES_CLIENTS clients, round $round of $ROUNDS"
    for program in $(rotated "$round" direct "${L4[@]}"); do
      [[ $program == direct ]] || cpu_begin "$program"
      pgbench_with "$program" --no-vacuum --select-only --client="$POSTGRES_CLIENTS" --jobs=2 --time="$SLOT" ||
        { tail -5 "$WORK/pgbench.log" >&2; die "pgbench failed through $program"; }
      [[ $program == direct ]] || cpu_end
      read -r transactions failed latency rate < <(awk '
        /transactions actually processed:/ {all = $NF}
        /number of failed transactions:/ {failed = $5}
        /^latency average/ {latency = $4 * 1000}
        /^tps = / {rate = $3}
        END {print all, failed, latency, rate}' "$WORK/pgbench.log")
      [[ -n ${rate:-} ]] && ((transactions > 0 && failed == 0)) || { cat "$WORK/pgbench.log" >&2; die "pgbench failed through $program"; }
      postgres_sample rate "$program" "$round" "$rate"
      postgres_sample latency "$program" "$round" "$latency"
      [[ $program == direct ]] || postgres_sample cpu "$program" "$round" "$(divide "$CPU_US" "$transactions")"
    done
  done
}

# postgres_sample FIGURE PROGRAM ROUND VALUE
postgres_sample() {
  if [[ $2 == direct ]]; then sample "l4 postgres $1" direct "$3" "$4"; else l4_sample "l4 postgres $1" "${@:2}"; fi
}
