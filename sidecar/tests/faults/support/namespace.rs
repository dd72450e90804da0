//! A network of its own for one test: the test runs itself again inside a namespace, where firewall rules and port 53 harm no one.

use std::{
    env, fs,
    process::{Command, Stdio},
};

const INSIDE: &str = "SIDECAR_FAULTS_INSIDE";

/// What a test changes in its namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    Network,
    /// And files of /etc.
    NetworkAndMounts,
}

/// Whether this is the run inside the namespace; outside, runs the named test there and fails with it. `name` is the full path of the test.
pub(crate) fn in_a_namespace(name: &str, needs: Needs) -> bool {
    if env::var_os(INSIDE).is_some() {
        run("ip", &["link", "set", "lo", "up"]);
        return true;
    }
    let mut command = Command::new("unshare");
    command.arg("--net");
    if needs == Needs::NetworkAndMounts {
        command.arg("--mount");
    }
    if !is_root() {
        command.arg("--map-root-user");
    }
    command.arg("--").arg(env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]);
    let status = command.env(INSIDE, "1").stdin(Stdio::null()).stdout(Stdio::null()).status();
    let success = status.as_ref().is_ok_and(std::process::ExitStatus::success);
    assert!(
        success,
        "{name} in a namespace of its own: {status:?}; that takes root, or unprivileged user namespaces"
    );
    false
}

/// Runs a program that must succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program} cannot be run: {error}; install it"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {said}", arguments.join(" "));
}

fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    ids.split_whitespace().nth(1) == Some("0")
}
