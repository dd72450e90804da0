//! Prints the sidecar's section of the metrics reference.

use std::io::{self, Write};

fn main() -> io::Result<()> {
    io::stdout().write_all(sidecar::telemetry::reference::page().as_bytes())
}
