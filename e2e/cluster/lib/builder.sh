# shellcheck shell=bash
# Builds one image into a docker-archive tar, with whichever builder is there and answers.

choose_builder() {
  if have docker && timeout 20 docker info >/dev/null 2>&1 && docker buildx version >/dev/null 2>&1; then
    echo docker
  elif have podman && timeout 20 podman info >/dev/null 2>&1; then
    echo podman
  elif have buildah; then
    echo buildah
  fi
}

# build_image BUILDER NAME:TAG TAR ARGS-AND-CONTEXT...
build_image() {
  local builder=$1 name=$2 tar=$3 log=$3.log
  shift 3
  rm -f "$tar" "$tar.part"
  case $builder in
    docker)
      docker buildx build --provenance=false --load -t "$name" "$@" >"$log" 2>&1 && docker save -o "$tar.part" "$name" >>"$log" 2>&1
      ;;
    podman)
      podman build -t "localhost/$name" "$@" >"$log" 2>&1 &&
        podman tag "localhost/$name" "docker.io/library/$name" >>"$log" 2>&1 &&
        podman save --format docker-archive -o "$tar.part" "docker.io/library/$name" >>"$log" 2>&1
      ;;
    buildah)
      with_buildah bud --isolation chroot --layers=false -t "docker.io/library/$name" "$@" >"$log" 2>&1 &&
        with_buildah push "docker.io/library/$name" "docker-archive:$tar.part:docker.io/library/$name" >>"$log" 2>&1
      ;;
  esac || { tail -20 "$log" >&2; die "$name could not be built with $builder, see $log"; }
  [[ $builder != buildah ]] || with_buildah rmi "docker.io/library/$name" >>"$log" 2>&1 || true
  mv "$tar.part" "$tar"
  rm -f "$log"
}

# A store of its own, which works inside containers and virtual machines and leaves the user's images alone.
with_buildah() {
  local command=$1
  shift
  buildah --root "$CACHE/buildah" --runroot "$CACHE/buildah-run" --storage-driver vfs "$command" "$@"
}

# busybox_root DIR: a root folder with busybox and a link for each of its programs.
busybox_root() {
  local program
  mkdir -p "$1/bin" "$1/tmp"
  chmod 1777 "$1/tmp"
  install -m 755 /bin/busybox "$1/bin/busybox"
  for program in $(/bin/busybox --list); do
    [[ $program == busybox ]] || ln -sf busybox "$1/bin/$program"
  done
}
