# shellcheck shell=bash
# Configuration files of containerd, CNI, kubelet and kube-proxy, with the settings that a nested machine needs.

write_configuration() {
  mkdir -p "$RUN/cni" "$RUN/plugins"
  write_containerd
  write_cni
  write_kubelet
  write_proxy
}

# restrict_oom_score_adj: a nested machine may not lower the score, and runc would fail with "can't get final child's PID".
write_containerd() {
  cat >"$RUN/containerd.toml" <<END
version = 3
root = "$RUN/containerd"
state = "$RUN/containerd-state"
disabled_plugins = ["io.containerd.nri.v1.nri"]
[grpc]
  address = "$RUN/containerd.sock"
[plugins.'io.containerd.internal.v1.opt']
  path = "$RUN/opt"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "cluster-pause:1"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "$RUN/cni"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  runtime_path = "$BIN/containerd-shim-runc-v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = "/usr/sbin/runc"
  Root = "$RUN/runc"
END
}

# Point to point and not a bridge: all pod traffic is routed by the host, so that Services work without the br_netfilter module.
write_cni() {
  cat >"$RUN/cni/10-pods.conflist" <<END
{"cniVersion": "1.0.0", "name": "sidecar-operator", "plugins": [{"type": "ptp", "ipMasq": false, "ipam": {
  "type": "host-local", "dataDir": "$RUN/addresses", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
END
}

# imageGC never: an image that is removed here could not be pulled again.
write_kubelet() {
  local resolv=/etc/resolv.conf
  [[ ! -f /run/systemd/resolve/resolv.conf ]] || resolv=/run/systemd/resolve/resolv.conf
  cat >"$RUN/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $RUN/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $RUN/pki/kubelet.crt
tlsPrivateKeyFile: $RUN/pki/kubelet.key
containerRuntimeEndpoint: unix://$RUN/containerd.sock
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failSwapOn: false
failCgroupV1: false
makeIPTablesUtilChains: false
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
resolvConf: $resolv
evictionHard: {nodefs.available: "1%", imagefs.available: "1%"}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
podLogsDir: $RUN/log/pods
volumePluginDir: $RUN/plugins
syncFrequency: 10s
END
}

write_proxy() {
  cat >"$RUN/proxy.yaml" <<END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $RUN/proxy.conf}
mode: nftables
clusterCIDR: 10.244.0.0/16
hostnameOverride: $NODE
conntrack: {maxPerCore: 0}
END
}

# Forwarding between pods, and the machine's address for what pods send out of it.
prepare_network() {
  cat /proc/sys/net/ipv4/ip_forward >"$RUN/ip_forward.before"
  echo 1 >/proc/sys/net/ipv4/ip_forward || die "net.ipv4.ip_forward cannot be set" "set it to 1 on this machine"
  nft -f - <<'END'
table ip sidecar-operator-cluster
delete table ip sidecar-operator-cluster
table ip sidecar-operator-cluster {
  chain postrouting {
    type nat hook postrouting priority srcnat;
    ip saddr 10.244.0.0/24 ip daddr != 10.244.0.0/16 masquerade
  }
}
END
  forwarding_rules -I
}

# Docker and firewalls drop what is forwarded unless a rule lets it through. -I inserts our rules where that is so, -D deletes them.
forwarding_rules() {
  local direction
  have iptables || return 0
  [[ $1 == -D ]] || iptables -S FORWARD 2>/dev/null | grep -q '^-P FORWARD DROP' || return 0
  for direction in -s -d; do
    iptables "$1" FORWARD "$direction" 10.244.0.0/16 -m comment --comment sidecar-operator-cluster -j ACCEPT 2>/dev/null ||
      [[ $1 == -D ]] || die "iptables cannot let pods through its FORWARD chain" "set its policy to ACCEPT"
  done
}
