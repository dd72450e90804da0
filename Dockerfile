# Images of this project; all of them run as a user without rights, and hold no more than their program.
#
#   docker build .                     the operator
#   docker build --target sidecar .    the sidecar
#
# `make image` builds the programs once, outside, and puts them in the place of the first two stages:
# --build-context build=DIR --build-context shell=DIR

FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --workspace --bins \
    && mkdir /out \
    && cp target/*/release/operator target/*/release/sidecar target/*/release/workload /etc/ssl/certs/ca-certificates.crt /out/

FROM docker.io/library/debian:bookworm-slim AS shell
RUN apt-get update && apt-get install -y --no-install-recommends busybox-static \
    && mkdir -p /out/bin /out/tmp && chmod 1777 /out/tmp && cp /bin/busybox /out/bin/ \
    && for program in $(busybox --list); do [ "$program" = busybox ] || ln -s busybox "/out/bin/$program"; done

# For demonstrations and tests: a server and a client, and a shell to look around with.
FROM scratch AS workload
LABEL org.opencontainers.image.title="sidecar-workload" \
      org.opencontainers.image.description="Server and client for the demonstration and the tests of sidecar-operator" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=shell /out/ /
COPY --from=build /out/workload /bin/workload
USER 65532:65532
ENTRYPOINT ["/bin/workload"]

FROM scratch AS sidecar
LABEL org.opencontainers.image.title="sidecar" \
      org.opencontainers.image.description="Balances an application's requests on its loopback" \
      org.opencontainers.image.licenses="Apache-2.0"
# Where HTTP clients look for the public certification authorities.
COPY --from=build /out/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/sidecar /sidecar
# So that `kubectl exec POD -c sidecar -- sidecar top` finds it.
ENV PATH=/
USER 65532:65532
ENTRYPOINT ["/sidecar"]

# The last stage is what `docker build .` gives.
FROM scratch AS operator
LABEL org.opencontainers.image.title="sidecar-operator" \
      org.opencontainers.image.description="Injects the sidecar into pods that ask for it" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/operator /operator
USER 65532:65532
ENTRYPOINT ["/operator"]
