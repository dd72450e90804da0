# shellcheck shell=bash
# The webhook's own benchmark: in process and over TLS. It prints its table and writes target/bench/webhook.jsonl.

measure_webhook() {
  say "webhook: building and running its benchmark"
  # The packages of `make test-unit`, so that their dependencies are compiled already.
  (cd "$REPO" && cargo bench --locked --profile release --workspace --bench webhook)
}
