# shellcheck shell=bash
# Which cluster: one that KUBECONFIG names on purpose, else kind, else one node from source. The choice is kept in the run
# folder, so that down and control act on the cluster that up brought up.

# A container engine that answers; a client without its engine does not count.
engine_answers() { timeout 20 "$1" info >/dev/null 2>&1; }

choose_provider() {
  if [[ -n ${KUBECONFIG:-} && $KUBECONFIG != "$RUN/kubeconfig" ]]; then
    echo given
  elif [[ -f $RUN/provider ]]; then
    cat "$RUN/provider"
  elif have kind && { engine_answers docker || engine_answers podman; }; then
    echo kind
  else
    echo source
  fi
}

remember_provider() {
  mkdir -p "$RUN"
  echo "$1" >"$RUN/provider"
}

kubeconfig_path() {
  if [[ $(choose_provider) == given ]]; then echo "$KUBECONFIG"; else echo "$RUN/kubeconfig"; fi
}
