# shellcheck shell=bash
# What the machine must have and must not run, and what the reader should know about it.

PACKAGES=(haproxy nginx-light:nginx libnginx-mod-stream:/usr/lib/nginx/modules/ngx_stream_module.so wrk
  postgresql-15:/usr/lib/postgresql/15/bin/initdb nghttp2-client:h2load curl openssl python3 gcc)

# kube-proxy's rules make the kernel track every connection, on loopback too.
require_no_cluster() {
  local status
  status=$(env -u KUBECONFIG "$REPO/e2e/cluster/control" status 2>/dev/null) || true
  if [[ $status == *" running, pid "* || $status == "kind cluster"* ]]; then
    die "the test cluster is up: kube-proxy's rules slow loopback down, and its parts use the processors" "take it down: e2e/cluster/down"
  fi
  if have nft && [[ $(nft list tables 2>/dev/null) == *kube-proxy* ]]; then
    die "kube-proxy's rules are on this machine: the kernel tracks every connection on loopback" "measure on a machine that is no Kubernetes node"
  fi
}

require_packages() {
  PATH=$PATH:/usr/sbin
  "$REPO/.ci/package" "${PACKAGES[@]}" || die "packages are missing (see above)"
}

# As images and tests are built: all of the workspace, so that its crates are compiled once.
require_programs() {
  SIDECAR=${BENCH_BIN:-}
  if [[ -z $SIDECAR ]]; then
    (cd "$REPO" && cargo build --release --locked --workspace --bins >&2)
    SIDECAR=$TARGET/$(rustc -vV | sed -n 's/^host: //p')/release
  fi
  [[ ! -d $SIDECAR ]] || SIDECAR+=/sidecar
  STREAMS=${SIDECAR%/*}/streams
  [[ -x $SIDECAR ]] || die "there is no program $SIDECAR"
  ENVOY=$("$REPO/.ci/envoy") || die "Envoy cannot be installed (see above)"
}

describe_machine() {
  local load
  read -r load _ </proc/loadavg
  echo "$(date -u '+%Y-%m-%d %H:%M UTC'), $(nproc) processors, Linux $(uname -r), load average $load"
  echo "HAProxy $(haproxy -v | sed -n 's/^HAProxy version \([^ ]*\).*/\1/p'), $(nginx -v 2>&1 | sed 's/.*: //'), Envoy $("$ENVOY" --version | sed -n 's|.*version: [^/]*/\([^/]*\)/.*|\1|p'), commit $(git -C "$REPO" rev-parse --short HEAD 2>/dev/null || echo unknown)$(uncommitted)"
  awk -v load="$load" -v processors="$(nproc)" 'BEGIN {exit !(load > processors / 4)}' && say "the machine is not idle (load average $load): believe ratios only, and those with a narrow spread"
  STOLEN_BEFORE=$(stolen)
}

uncommitted() {
  git -C "$REPO" diff --quiet HEAD -- crds operator sidecar 2>/dev/null || echo " with uncommitted changes"
}

# Ticks of all processors, and those that the host gave to others.
stolen() { awk '$1 == "cpu" {for (i = 2; i <= 9; i++) all += $i; print all, $9}' /proc/stat; }

steal() {
  awk -v before="$STOLEN_BEFORE" -v after="$(stolen)" 'BEGIN {
    split(before, b)
    split(after, a)
    passed = a[1] - b[1]
    printf("Stolen by the host while this ran: %.1f %% of processor time.\n", passed ? 100 * (a[2] - b[2]) / passed : 0)
  }'
}
