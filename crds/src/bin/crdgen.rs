//! Prints what is generated from the types: `crdgen crd` the CRD as YAML, `crdgen reference` the policy reference.

use std::{error::Error, io::Write, process::ExitCode};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let crd = crds::generate::policy_crd()?;
    let text = match std::env::args().nth(1).as_deref() {
        Some("crd") => serde_yaml::to_string(&crd)?,
        Some("reference") => crds::reference::policy(&crd),
        _ => {
            std::io::stderr().write_all(b"usage: crdgen crd|reference\n")?;
            return Ok(ExitCode::from(2));
        }
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
