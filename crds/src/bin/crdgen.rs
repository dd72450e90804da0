//! Prints the CRD as YAML: `cargo run --release -p crds --bin crdgen > crds/sidecarpolicies.yaml`.

use std::{error::Error, io::Write};

fn main() -> Result<(), Box<dyn Error>> {
    let yaml = serde_yaml::to_string(&crds::generate::policy_crd()?)?;
    std::io::stdout().write_all(yaml.as_bytes())?;
    Ok(())
}
