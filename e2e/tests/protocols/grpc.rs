//! gRPC: calls of all four kinds, with trailers, deadlines and refusals, over HTTP/2 on both sides.

use anyhow::{Result, ensure};
use e2e::{LocalSidecar, PythonServer, python};

#[test]
fn a_grpc_client_and_server_understand_each_other() -> Result<()> {
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protocols/grpc_echo.py");
    let server = PythonServer::start(&script)?;
    let backend = server.address;
    let sidecar = LocalSidecar::with(|port| {
        format!(
            "http:\n- name: test\n  port: {port}\n  sites: [{{name: only, protocol: Http2, backends: [{{addresses: [\"{backend}\"]}}]}}]\n"
        )
    })?;
    let output = python(&script, &["talk", &sidecar.address.to_string()])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}\nthe sidecar's log:\n{}", sidecar.log());
    Ok(())
}
