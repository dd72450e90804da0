# shellcheck shell=bash
# Takes the one node from source away: newest first, containers before containerd, then mounts, network and files.
# It works from what is found on the machine, so it also cleans up after a crash or a reboot.

source_clean() {
  [[ -d $RUN ]] || return 0
  stop proxy
  stop kubelet
  remove_containers
  stop containerd
  local part
  for part in scheduler controller-manager apiserver etcd; do stop "$part"; done
  unmount_all
  restore_network
  remove_traces
  # A volume that is still mounted may be a folder of the user's: then nothing is removed.
  [[ -z $(mounts_left) ]] || die "these are still mounted: $(mounts_left | xargs)" "end what uses them, unmount them, and run 'down' again"
  rm -rf --one-file-system "$RUN"
}

# Containers outlive containerd: their shims hold them. runc ends them whether or not containerd still runs.
remove_containers() {
  local state id shim
  for state in "$RUN"/runc/*/; do
    [[ -d $state ]] || continue
    for id in "$state"*/; do
      [[ -d $id ]] || continue
      runc --root "${state%/}" delete --force "$(basename "$id")" >/dev/null 2>&1 || true
    done
  done
  for shim in $(shims); do kill -TERM "$shim" 2>/dev/null || true; done
  await 3 "the end of the container shims" no_shims 2>/dev/null || for shim in $(shims); do kill -KILL "$shim" 2>/dev/null || true; done
}

shims() {
  local exe pid
  for exe in /proc/[0-9]*/exe; do
    [[ $(readlink "$exe" 2>/dev/null) == "$CACHE/tools/"*/containerd-shim-runc-v2* ]] || continue
    pid=${exe#/proc/}
    pid=${pid%/exe}
    tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$RUN/containerd.sock" && echo "$pid"
  done
}

no_shims() { [[ -z $(shims) ]]; }

unmount_all() {
  local at
  mounts_left | while read -r at; do
    umount "$at" 2>/dev/null || umount -l "$at" || true
  done
}

mounts_left() { awk -v run="$RUN/" 'index($5, run) == 1 {print $5}' /proc/self/mountinfo | sort -r; }

# The pods' links end with their network namespaces.
restore_network() {
  local table
  if have nft; then
    for table in "ip sidecar-operator-cluster" "ip kube-proxy" "ip6 kube-proxy"; do
      # shellcheck disable=SC2086 # family and name are two words
      nft delete table $table 2>/dev/null || true
    done
  fi
  forwarding_rules -D
  [[ ! -s $RUN/ip_forward.before ]] || cat "$RUN/ip_forward.before" >/proc/sys/net/ipv4/ip_forward || true
}

# What the parts keep outside the run folder, for which they have no setting.
remove_traces() {
  { grep -lsF "$RUN/" /var/lib/cni/results/* || true; } | xargs -r rm -f
  find /var/log/containers -maxdepth 1 -lname "$RUN/*" -delete 2>/dev/null || true
  rm -f /var/lib/kubelet/device-plugins/kubelet.sock
  # Only what is empty: another cluster on this machine may use the same folders.
  rmdir /var/log/containers /var/lib/cni/results /var/lib/cni /var/lib/kubelet/device-plugins /var/lib/kubelet 2>/dev/null || true
  find /sys/fs/cgroup -depth -type d -path '*/k8s.io*' -exec rmdir {} + 2>/dev/null || true
}
