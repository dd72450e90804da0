# shellcheck shell=bash
# Puts images into the cluster. A tar that is in already, by its checksum, is not imported again.

# load_images [TAR...]: those named, else all that `images` has built.
load_images() {
  local tars=("$@") tar sum loaded=$RUN/loaded
  ((${#tars[@]})) || tars=("$IMAGES"/*.tar)
  mkdir -p "$loaded"
  for tar in "${tars[@]}"; do
    [[ -f $tar ]] || continue
    sum=$(sha256sum <"$tar" | cut -c1-32)
    [[ ! -f $loaded/$sum ]] || continue
    say "loading $(basename "$tar")"
    load_tar "$(realpath "$tar")" || die "$tar could not be loaded"
    # An older build of the same file has lost its name to this one, and would have to be loaded again.
    { grep -lsFx "$(basename "$tar")" "$loaded"/* || true; } | xargs -r rm -f
    basename "$tar" >"$loaded/$sum"
  done
}

load_tar() {
  case $(choose_provider) in
    source) "$BIN/ctr" -a "$RUN/containerd.sock" -n k8s.io images import "$1" >>"$RUN/log/images.log" 2>&1 ;;
    kind) kind load image-archive "$1" --name "$KIND_CLUSTER" >&2 ;;
    given) die "images are not loaded into a cluster that KUBECONFIG names" "push them to a registry that it pulls from; 'make image' writes them to $IMAGES" ;;
  esac
}

import_node_images() {
  local tar
  for tar in "$(dirname "$BIN")"/images/*.tar; do load_tar "$tar" || die "$tar could not be loaded"; done
}
