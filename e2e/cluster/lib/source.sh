# shellcheck shell=bash
# One node from source. Order up: etcd, API server, controllers, containerd, kubelet, kube-proxy, CoreDNS; down is the reverse.

NODE=node1
TOOL_GROUPS=(api node helm)
PORTS=(2379 2380 6443 10248 10249 10250 10256 10257 10259)

source_up() {
  ((EUID == 0)) || die "a cluster from source runs containers, which needs root" "run as root, install kind and a container engine, or set KUBECONFIG to a cluster of yours"
  mkdir -p "$RUN/log"
  if source_running; then
    say "it is up"
  else
    announce "${TOOL_GROUPS[@]}"
    install_packages
    BIN=$("$HERE/tools/build" "${TOOL_GROUPS[@]}")
    "$HERE/node-images/build" "$BIN"
    start_node
  fi
  load_images
}

start_node() {
  local began=$SECONDS
  if parts_left; then
    say "parts of it are running: starting those that are not"
    start_parts && say "up again after $((SECONDS - began)) s" && return 0
    say "that did not help: from the start"
  fi
  source_clean
  mkdir -p "$RUN/log"
  remember_provider source
  local port
  for port in "${PORTS[@]}"; do require_free_port "$port"; done
  NODE_IP=$(node_ip)
  echo "$NODE_IP" >"$RUN/node-ip"
  echo "$BIN" >"$RUN/bin"
  make_pki
  write_configuration
  prepare_network
  start_parts || die "the cluster did not come up; its logs are in $RUN/log" "'e2e/cluster/down' removes what is left"
  say "up after $((SECONDS - began)) s"
}

# The address of this machine that is not loopback: clients inside pods reach the API server by it.
node_ip() {
  local address
  address=$(ip -4 route get 192.0.2.1 2>/dev/null | sed -n 's/.* src \([0-9.]*\).*/\1/p' | head -1)
  [[ -n $address && $address != 127.* ]] || address=$(ip -4 -br address show scope global | awk '$2 == "UP" {sub("/.*", "", $3); print $3; exit}')
  [[ -n $address ]] || die "this machine has no IPv4 address but loopback"
  echo "$address"
}

use_run() {
  BIN=$(<"$RUN/bin")
  NODE_IP=$(<"$RUN/node-ip")
}

kube() { "$BIN/kubectl" --kubeconfig="$RUN/kubeconfig" --request-timeout=10s "$@"; }

api_ready() { kube get --raw /readyz; }
node_ready() { [[ $(kube get node "$NODE" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}') == True ]]; }
dns_ready() { [[ $(kube -n kube-system get deployment coredns -o 'jsonpath={.status.readyReplicas}') == 1 ]]; }
containerd_ready() { "$BIN/ctr" -a "$RUN/containerd.sock" version; }
account_ready() { kube -n default get serviceaccount default; }

PARTS=(etcd apiserver controller-manager scheduler containerd kubelet proxy)

source_running() {
  [[ -f $RUN/bin ]] || return 1
  use_run
  local part
  for part in "${PARTS[@]}"; do alive "$part" || return 1; done
  api_ready >/dev/null 2>&1 && node_ready 2>/dev/null && dns_ready 2>/dev/null
}

# Etcd, containerd and kubelet hold the state: with all three alive the others can be started again beside them.
parts_left() {
  [[ -f $RUN/bin && $(<"$RUN/bin") == "$BIN" ]] || return 1
  use_run
  alive etcd && alive containerd && alive kubelet
}

start_parts() {
  start_etcd
  start_apiserver
  await_part 60 apiserver api_ready || return 1
  start_controller_manager
  start_scheduler
  start_containerd
  await_part 30 containerd containerd_ready || return 1
  import_node_images
  start_kubelet
  start_proxy
  await_part 60 kubelet node_ready || return 1
  await_part 30 controller-manager account_ready || return 1
  kube apply -f "$HERE/manifests/coredns.yaml" >/dev/null || return 1
  await 60 "DNS" dns_ready || { kube -n kube-system describe pods | tail -15 >&2; return 1; }
}

start_etcd() {
  start etcd etcd --data-dir "$RUN/etcd" --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --unsafe-no-fsync --log-level warn
}

start_apiserver() {
  start apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 --advertise-address="$NODE_IP" --secure-port=6443 \
    --tls-cert-file="$RUN/pki/apiserver.crt" --tls-private-key-file="$RUN/pki/apiserver.key" --client-ca-file="$RUN/pki/ca.crt" \
    --kubelet-client-certificate="$RUN/pki/admin.crt" --kubelet-client-key="$RUN/pki/admin.key" \
    --kubelet-certificate-authority="$RUN/pki/ca.crt" --kubelet-preferred-address-types=InternalIP \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$RUN/pki/sa.pub" \
    --service-account-signing-key-file="$RUN/pki/sa.key" --service-cluster-ip-range=10.96.0.0/16 \
    --authorization-mode=Node,RBAC --allow-privileged=true \
    --audit-policy-file="$HERE/manifests/audit.yaml" --audit-log-path="$RUN/log/audit.log" --audit-log-maxsize=50 --audit-log-maxbackup=1
}

# Alone on their node they need no leader election, and so outlive an API server that a test stops.
start_controller_manager() {
  start controller-manager kube-controller-manager --kubeconfig="$RUN/controller-manager.conf" --leader-elect=false \
    --service-account-private-key-file="$RUN/pki/sa.key" --root-ca-file="$RUN/pki/ca.crt" --use-service-account-credentials=true \
    --cluster-signing-cert-file="$RUN/pki/ca.crt" --cluster-signing-key-file="$RUN/pki/ca.key" --node-monitor-grace-period=5m
}

start_scheduler() { start scheduler kube-scheduler --kubeconfig="$RUN/scheduler.conf" --leader-elect=false; }

start_containerd() { start containerd containerd --config "$RUN/containerd.toml"; }

start_kubelet() {
  start kubelet kubelet --config="$RUN/kubelet.yaml" --kubeconfig="$RUN/kubelet.conf" --hostname-override="$NODE" --node-ip="$NODE_IP" --root-dir="$RUN/kubelet"
}

start_proxy() { start proxy kube-proxy --config="$RUN/proxy.yaml"; }
