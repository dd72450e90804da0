//! Prints the operator's section of the metrics reference.

use std::io::{self, Write};

fn main() -> io::Result<()> {
    io::stdout().write_all(operator::telemetry::reference().as_bytes())
}
