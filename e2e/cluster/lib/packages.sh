# shellcheck shell=bash
# What the cluster from source needs from Debian, and what it will do to the machine, said before it is done.

# package:file that proves it is there
PACKAGES=(
  runc:/usr/sbin/runc
  containernetworking-plugins:/usr/lib/cni/ptp
  buildah:/usr/bin/buildah
  busybox-static:/bin/busybox
  nftables:/usr/sbin/nft
  iproute2:/bin/ip
  mount:/bin/mount
  openssl:/usr/bin/openssl
  gcc:/usr/bin/gcc
  libc6-dev:/usr/include/stdio.h
  ca-certificates:/etc/ssl/certs/ca-certificates.crt
)

missing_packages() {
  local entry
  for entry in "${PACKAGES[@]}"; do
    [[ -e ${entry#*:} ]] || echo "${entry%%:*}"
  done
}

announce() {
  local missing build
  missing=$(missing_packages | xargs)
  build=$("$HERE/tools/build" missing "$@")
  say "no KUBECONFIG is set and no kind with a container engine is here: a one-node Kubernetes from source, all parts real"
  say "  Debian packages to install: ${missing:-none, all are there}"
  say "  programs to build with Go:  ${build:-none, all are there}"
  [[ -z $build ]] || say "                              into $CACHE/tools, about 15 minutes on two cores for all, once"
  say "  state of the run:           $RUN (certificates, etcd, containers, logs; removed by 'down')"
  say "  on this machine:            pod network 10.244.0.0/24, services 10.96.0.0/16, nftables tables, net.ipv4.ip_forward=1"
}

install_packages() {
  local missing
  mapfile -t missing < <(missing_packages)
  ((${#missing[@]})) || return 0
  have apt-get || die "these are missing: ${missing[*]}" "install them (the names are Debian's) and run again"
  say "installing ${missing[*]}"
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } </dev/null >"$RUN/log/apt.log" 2>&1 ||
    { tail -5 "$RUN/log/apt.log" >&2; die "apt-get failed, see $RUN/log/apt.log"; }
}
