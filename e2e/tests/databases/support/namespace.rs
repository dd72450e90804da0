//! A network of its own for one test: the test runs itself again inside a namespace, where port 53 and any address of loopback are free.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

use super::{account::is_root, run};

const INSIDE: &str = "SIDECAR_DATABASES_INSIDE";
/// Loopback as it is named to the programs inside: IPv4 and IPv6, both of this machine.
const RESOLVER: &str = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n";

/// Whether this is the run inside the namespace, where 127.0.0.1:53 is the DNS server of all programs; outside, runs the named test
/// there and fails with it. `name` is the full path of the test.
pub(crate) fn in_a_namespace(name: &str) -> bool {
    if env::var_os(INSIDE).is_some() {
        run("ip", &["link", "set", "lo", "up"]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let resolver = directory.path().join("resolv.conf");
        fs::write(&resolver, RESOLVER).unwrap();
        mount(&resolver, "/etc/resolv.conf");
        return true;
    }
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount"]);
    if !is_root() {
        command.arg("--map-root-user");
    }
    command.arg("--").arg(env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]);
    let output = command.env(INSIDE, "1").stdin(Stdio::null()).output();
    let success = output.as_ref().is_ok_and(|output| output.status.success());
    let said = output.map(|output| {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        format!("{}\n{out}{err}", output.status)
    });
    assert!(
        success,
        "{name} in a namespace of its own: {said:?}; that takes root, or unprivileged user namespaces"
    );
    false
}

fn mount(file: &Path, place: &str) {
    run("mount", &["--bind", file.to_str().unwrap(), place]).unwrap();
}
