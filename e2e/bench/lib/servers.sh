# shellcheck shell=bash
# The backend, and the proxies in front of it. Each listens on free ports of 127.0.0.1; configurations are those of peers/, with ports and folders put in.

THREADS=2
# The port of everything that answers: direct, ours, ready, haproxy, haproxy-splice, nginx.
declare -A ADDRESS=()

# Three ports of one nginx, so that each proxy has three backends to choose from.
start_backend() {
  local backend
  for backend in direct direct-2 direct-3; do
    free_port
    ADDRESS[$backend]=$PORT
  done
  mkdir -p "$WORK/files"
  head -c $((64 * 1024 * 1024)) /dev/zero | tr '\0' 'x' >"$WORK/files/large"
  configure backend.conf
  start_nginx backend backend.conf
  await_answer backend "${ADDRESS[direct]}" /small
}

# Chooses ports, writes configurations, and says how each proxy is started: START_OURS, START_HAPROXY.
prepare_proxies() {
  local proxy
  for proxy in ours ready haproxy haproxy-splice nginx; do
    free_port
    ADDRESS[$proxy]=$PORT
  done
  configure sidecar.yaml
  configure haproxy.cfg
  configure nginx.conf
  install -m 755 "$SIDECAR" "$WORK/sidecar"
  START_OURS=("$WORK/sidecar" run --config "$WORK/sidecar.yaml" --threads "$THREADS" --admin-address "127.0.0.1:${ADDRESS[ready]}")
  START_HAPROXY=(haproxy -db -f "$WORK/haproxy.cfg")
}

start_proxies() {
  prepare_proxies
  start ours "${START_OURS[@]}"
  start haproxy "${START_HAPROXY[@]}"
  start_nginx nginx nginx.conf
  await_answer ours "${ADDRESS[ready]}" /ready
  await_answer haproxy "${ADDRESS[haproxy]}" /small
  await_answer nginx "${ADDRESS[nginx]}" /small
}

# start_nginx NAME CONFIGURATION: with a folder of its own, for its pid file and what it may put on disk.
start_nginx() {
  mkdir -p "$WORK/$1"
  chmod 777 "$WORK/$1"
  start "$1" nginx -e stderr -p "$WORK/$1" -c "$WORK/$2"
}

# process_of ADDRESS: HAProxy serves two addresses, and the backend its own.
process_of() {
  case $1 in
    direct) echo backend ;;
    haproxy-splice) echo haproxy ;;
    *) echo "$1" ;;
  esac
}

# configure FILE: from peers/, with the names in it put in.
configure() {
  local kibibyte
  kibibyte=$(printf 'x%.0s' {1..1024})
  sed -e "s|@THREADS@|$THREADS|g" -e "s|@WORK@|$WORK|g" -e "s|@KIBIBYTE@|$kibibyte|g" \
    -e "s|@BACKEND_1@|${ADDRESS[direct]}|g" -e "s|@BACKEND_2@|${ADDRESS[direct-2]}|g" -e "s|@BACKEND_3@|${ADDRESS[direct-3]}|g" \
    -e "s|@OURS@|${ADDRESS[ours]:-}|g" -e "s|@NGINX@|${ADDRESS[nginx]:-}|g" \
    -e "s|@HAPROXY@|${ADDRESS[haproxy]:-}|g" -e "s|@HAPROXY_SPLICE@|${ADDRESS[haproxy-splice]:-}|g" "$BENCH/peers/$1" >"$WORK/$1"
  chmod 644 "$WORK/$1"
}

# A proxy that answers something else than the backend is not measured.
verify_answers() {
  local program path expected answer
  for path in /small /large; do
    expected=$(fetch direct "$path")
    for program in ours haproxy haproxy-splice nginx; do
      answer=$(fetch "$program" "$path")
      [[ $answer == "$expected" ]] || die "$program answers GET $path with another body than the backend (checksum and length $answer, not $expected)"
    done
  done
}

fetch() { curl -sS --fail --max-time 20 "http://127.0.0.1:${ADDRESS[$1]}$2" | cksum; }
