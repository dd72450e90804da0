//! WebSocket: subprotocol, compression, fragments, pings and close codes pass unchanged.

use anyhow::{Result, ensure};
use e2e::{LocalSidecar, PythonServer, python};

#[test]
fn a_websocket_client_and_server_understand_each_other() -> Result<()> {
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protocols/websocket.py");
    let server = PythonServer::start(&script)?;
    let sidecar = LocalSidecar::start(server.address, None)?;
    let output = python(&script, &["talk", &sidecar.address.to_string()])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}\nthe sidecar's log:\n{}", sidecar.log());
    Ok(())
}
