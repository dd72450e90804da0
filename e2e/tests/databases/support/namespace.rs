//! A network and a /run of its own for one test: it runs itself again inside a namespace, where port 53 and any address of
//! loopback are free.

use std::{
    env, fs,
    process::{Command, Stdio},
};

use anyhow::Result;

use super::{account::is_root, run};

const INSIDE: &str = "SIDECAR_DATABASES_INSIDE";
/// Loopback as it is named to the programs inside: IPv4 and IPv6, both of this machine.
const RESOLVER: &str = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n";

/// Whether this is the run inside the namespace, where 127.0.0.1:53 is the DNS server of all programs; outside, runs the named test
/// there and fails with it. `name` is the full path of the test.
pub(crate) fn in_a_namespace(name: &str) -> bool {
    if env::var_os(INSIDE).is_some() {
        run("ip", &["link", "set", "lo", "up"]).unwrap();
        let place = fs::canonicalize("/etc/resolv.conf").unwrap();
        // Where `sidecar l4` has its socket, and some systems the file behind the link.
        run("mount", &["-t", "tmpfs", "none", "/run"]).unwrap();
        if place.exists() {
            let directory = tempfile::tempdir().unwrap();
            let resolver = directory.path().join("resolv.conf");
            fs::write(&resolver, RESOLVER).unwrap();
            run("mount", &["--bind", resolver.to_str().unwrap(), place.to_str().unwrap()]).unwrap();
        } else {
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, RESOLVER).unwrap();
        }
        return true;
    }
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount"]);
    if !is_root() {
        command.arg("--map-root-user");
    }
    command.arg("--").arg(env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]);
    let output = command.env(INSIDE, "1").stdin(Stdio::null()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success(),
        "{name} in a namespace of its own, which takes root, or unprivileged user namespaces: {}\n{out}{err}",
        output.status
    );
    false
}

/// Gives loopback these addresses too, such as 10.0.0.1/32.
pub(crate) fn here(addresses: &[&str]) -> Result<()> {
    // "nodad": an address of IPv6 is used at once.
    addresses.iter().try_for_each(|address| {
        let family = if address.contains(':') { &["nodad"][..] } else { &[] };
        run("ip", &[&["address", "add", address, "dev", "lo"], family].concat()).map(drop)
    })
}
