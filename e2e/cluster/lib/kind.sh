# shellcheck shell=bash
# A kind cluster, where kind and a container engine are there.

# Engines without a daemon leave a process per container behind, which must not take the lock with it.
kind_up() {
  mkdir -p "$RUN/log"
  BIN=$("$HERE/tools/build" api helm)
  echo "$BIN" >"$RUN/bin"
  if kind get clusters 2>/dev/null | grep -qFx "$KIND_CLUSTER"; then
    kind export kubeconfig --name "$KIND_CLUSTER" --kubeconfig "$RUN/kubeconfig" >&2
  else
    say "creating the kind cluster $KIND_CLUSTER; kind pulls its node image (about 400 MB) the first time"
    kind create cluster --name "$KIND_CLUSTER" --kubeconfig "$RUN/kubeconfig" --wait 180s >&2 {CLUSTER_LOCK}>&-
  fi
  remember_provider kind
  load_images
}

kind_down() {
  kind delete cluster --name "$KIND_CLUSTER" --kubeconfig "$RUN/kubeconfig" >&2
  rm -rf "$RUN"
}

# The kubelet runs the API server as long as its manifest lies in the folder.
kind_apiserver() {
  local engine=docker from=/etc/kubernetes/manifests to=/etc/kubernetes
  engine_answers docker || engine=podman
  [[ $1 == stop ]] || { from=/etc/kubernetes to=/etc/kubernetes/manifests; }
  "$engine" exec "$KIND_CLUSTER-control-plane" sh -c "test ! -f $from/kube-apiserver.yaml || mv $from/kube-apiserver.yaml $to/"
}
