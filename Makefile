# What one does with this project. `make` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Always of the whole workspace: another selection would compile its crates again with other features.
CARGO := cargo --locked
export CARGO_TERM_PROGRESS_WHEN ?= never

.PHONY: help
help: ## List these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' Makefile

.PHONY: demo
demo: ## Bring up a cluster, install the operator and watch the injected sidecar balance
	@e2e/demo

.PHONY: test
test: lint test-unit test-unsafe test-faults test-s3 test-protocols test-databases test-chart test-e2e ## Run everything: lint, unit, sanitizer, fault, client, database, chart, API-server and real-cluster tests

.PHONY: test-unit
test-unit: ## Run the tests that need no cluster (the API server's among them)
	$(CARGO) test --release --workspace --lib --bins --test apiserver --test http --test l4 --test policy_api --test process

.PHONY: test-unsafe
test-unsafe: ## Run the tests of the modules with unsafe code under AddressSanitizer
	.ci/sanitized

.PHONY: test-faults
test-faults: ## Run the sidecar under load while backends, networks and clients misbehave; prints what failed
	.ci/package haproxy nginx-light:nginx nftables:nft iproute2:ip util-linux:unshare
	$(CARGO) test --release --workspace --test faults -- --nocapture

.PHONY: test-s3
test-s3: ## Run S3 clients through the sidecar against MinIO, which is built once
	$(CARGO) build --release --workspace --bins
	$(CARGO) test --release --workspace --test s3

.PHONY: test-protocols
test-protocols: ## Run WebSocket and gRPC clients and servers through the sidecar
	$(CARGO) build --release --workspace --bins
	$(CARGO) test --release --workspace --test protocols

.PHONY: test-databases
test-databases: ## Run clients of PostgreSQL, Redis and DNS through the sidecar against real servers
	.ci/package postgresql-15:/usr/lib/postgresql/15/bin/initdb redis-server bind9-dnsutils:dig iproute2:ip util-linux:unshare
	$(CARGO) build --release --workspace --bins
	$(CARGO) test --release --workspace --test databases

.PHONY: test-chart
test-chart: ## Lint, render and unit-test the Helm chart
	.ci/package openssl
	charts/test

.PHONY: test-e2e
test-e2e: image ## Run the scenarios on a real cluster, which is brought up for it and taken down
	e2e/run

.PHONY: lint
lint: ## Check format, lints, licences, shell scripts, and that generated files are current
	cargo fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings
	"$$(.ci/cargo-deny)" --locked check --hide-inclusion-graph bans licenses sources
	.ci/shellcheck
	.ci/generated

.PHONY: fuzz
fuzz: ## Fuzz what parses foreign bytes, for FUZZ_SECONDS (60) each; the unit tests replay the corpus
	.ci/fuzz

.PHONY: audit
audit: ## Check all dependencies against the advisory database (needs the network)
	"$$(.ci/cargo-deny)" --locked check advisories

.PHONY: generate
generate: ## Write the CRD, the references, the chart's files and deploy/ anew
	$(CARGO) build --release --workspace --bins
	.ci/generate

.PHONY: image
image: ## Build the images with docker, podman or buildah, whichever is there
	e2e/cluster/images

.PHONY: bench
bench: ## Measure webhook and sidecar beside HAProxy, nginx and Envoy, with the cluster down
	e2e/bench/run

.PHONY: bench-http
bench-http: ## Measure only what goes through the proxies
	e2e/bench/run http start

.PHONY: bench-l4
bench-l4: ## Measure TCP and UDP listeners beside HAProxy and nginx
	e2e/bench/run l4

.PHONY: cluster-up
cluster-up: ## Bring up a real cluster: KUBECONFIG's, kind's, or one node from source
	e2e/cluster/up

.PHONY: cluster-down
cluster-down: ## Take the cluster down and leave nothing running
	e2e/cluster/down
