# shellcheck shell=bash
# The backend, and the proxies in front of it. Each listens on free ports of 127.0.0.1; configurations are those of peers/, with ports and folders put in.

THREADS=2
# What answers, each with a port. Those of one process are in one word before the dash, but for the sidecar, which runs once for each configuration.
BACKEND_PORTS=(direct direct-2 direct-3 direct-tls direct-tls-2 direct-tls-3 direct-h2 direct-h2-2 direct-h2-3 direct-sink)
PROXY_PORTS=(ours ours-tls ours-h2 ours-features haproxy haproxy-splice haproxy-tls haproxy-h2 nginx nginx-tls envoy envoy-tls envoy-h2)
declare -A ADDRESS=() READY=()

# Chooses ports and starts the backend: nine ports of one nginx, so that each proxy has three backends to choose from, in each protocol.
prepare() {
  local name
  for name in "${BACKEND_PORTS[@]}" "${PROXY_PORTS[@]}"; do
    free_port
    ADDRESS[$name]=$PORT
  done
  [[ -f $WORK/sidecar ]] || install_files
  configure backend.conf
  start_nginx backend backend.conf
  await_answer backend "${ADDRESS[direct]}" /small
}

# Programs and files go where the unprivileged user can read them.
install_files() {
  install -m 755 "$SIDECAR" "$WORK/sidecar"
  install -m 755 "$ENVOY" "$WORK/envoy"
  mkdir -p "$WORK/files"
  head -c $((64 * 1024 * 1024)) /dev/zero | tr '\0' 'x' >"$WORK/files/large"
  make_certificates
}

# A CA, and a certificate by it for the backend.
make_certificates() {
  local key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30)
  {
    openssl req -x509 "${key[@]}" -keyout "$WORK/ca.key" -out "$WORK/ca.pem" -subj "/CN=bench CA" &&
      openssl req -new "${key[@]:0:4}" -nodes -keyout "$WORK/backend.key" -out "$WORK/backend.csr" -subj "/CN=localhost" &&
      openssl x509 -req -in "$WORK/backend.csr" -CA "$WORK/ca.pem" -CAkey "$WORK/ca.key" -CAcreateserial -days 30 -out "$WORK/backend.pem" \
        -extfile <(echo "subjectAltName=DNS:localhost,IP:127.0.0.1")
  } >"$WORK/openssl.log" 2>&1 || { cat "$WORK/openssl.log" >&2; die "openssl made no certificates"; }
  chmod 644 "$WORK/ca.pem" "$WORK/backend.pem" "$WORK/backend.key"
}

# start_proxies NAMES...: those that serve the addresses of these names, each once, and waits until each answers as the backend does.
start_proxies() {
  local name
  for name in "$@"; do
    [[ -n ${PID[$(process_of "$name")]:-} ]] || start_proxy "$(process_of "$name")"
  done
  for name in "$@"; do verify_answers "$name"; done
}

start_proxy() {
  case $1 in
    ours*)
      prepare_ours "$1"
      start "$1" "${START_OURS[@]}"
      await_answer "$1" "${READY[$1]}" /ready
      ;;
    haproxy)
      prepare_haproxy
      start haproxy "${START_HAPROXY[@]}"
      await_answer haproxy "${ADDRESS[haproxy]}" /small
      ;;
    nginx)
      configure nginx.conf
      start_nginx nginx nginx.conf
      await_answer nginx "${ADDRESS[nginx]}" /small
      ;;
    envoy)
      configure envoy.yaml
      start envoy "$WORK/envoy" -c "$WORK/envoy.yaml" --concurrency "$THREADS" --disable-hot-restart --log-level error
      await_answer envoy "${ADDRESS[envoy]}" /small
      ;;
  esac
}

# prepare_ours NAME: `ours-tls` is the sidecar with peers/sidecar-tls.yaml.
prepare_ours() {
  local file=sidecar${1#ours}.yaml
  configure "$file"
  free_port
  READY[$1]=$PORT
  START_OURS=("$WORK/sidecar" run --config "$WORK/$file" --threads "$THREADS" --admin-address "127.0.0.1:$PORT")
}

prepare_haproxy() {
  configure haproxy.cfg
  START_HAPROXY=(haproxy -db -f "$WORK/haproxy.cfg")
}

# ours_can NAME: whether the sidecar takes peers/sidecar-*.yaml without a word; else WHY_NOT has its first word on it.
ours_can() {
  local file=sidecar${1#ours}.yaml
  configure "$file"
  WHY_NOT=$("$WORK/sidecar" check --config "$WORK/$file" 2>&1 >/dev/null | head -1) || true
  WHY_NOT=${WHY_NOT//"$WORK/"/}
  [[ -z $WHY_NOT ]]
}

# start_nginx NAME CONFIGURATION: with a folder of its own, for its pid file and what it may put on disk.
start_nginx() {
  mkdir -p "$WORK/$1"
  chmod 777 "$WORK/$1"
  start "$1" nginx -e stderr -p "$WORK/$1" -c "$WORK/$2"
}

# process_of ADDRESS
process_of() {
  case $1 in
    direct*) echo backend ;;
    ours*) echo "$1" ;;
    *) echo "${1%%-*}" ;;
  esac
}

# configure FILE: from peers/, with the names in it put in: @HAPROXY_SPLICE@ is the port of haproxy-splice.
configure() {
  local name place script
  script="s|@THREADS@|$THREADS|g;s|@MAXCONN@|${MOST_CONNECTIONS:-}|g;s|@WORK@|$WORK|g;s|@KIBIBYTE@|$(printf 'x%.0s' {1..1024})|g"
  for name in "${!ADDRESS[@]}"; do
    place=${name^^}
    script+=";s|@${place//-/_}@|${ADDRESS[$name]}|g"
  done
  sed -e "$script" "$BENCH/peers/$1" >"$WORK/$1"
  chmod 644 "$WORK/$1"
}

# A proxy that answers something else than the backend is not measured.
verify_answers() {
  local path expected answer
  for path in /small /large; do
    expected=$(fetch direct "$path")
    answer=$(fetch "$1" "$path")
    [[ $answer == "$expected" ]] || die "$1 answers GET $path with another body than the backend (checksum and length $answer, not $expected)"
  done
}

fetch() { curl -sS --fail --max-time 20 "http://127.0.0.1:${ADDRESS[$1]}$2" | cksum; }
