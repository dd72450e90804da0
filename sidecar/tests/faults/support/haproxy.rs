//! HAProxy as the backend, before servers of its own, which gives way to a new process as on every change of its configuration.

use std::{
    fs,
    net::SocketAddr,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::{free_port, until};

/// Closes connections that were idle for 20 ms; killed when it is dropped.
pub(crate) struct Haproxy {
    pub(crate) address: SocketAddr,
    directory: TempDir,
    /// The last one serves, and the others finish.
    processes: Vec<Child>,
}

impl Haproxy {
    pub(crate) async fn start(server: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let configuration = format!(
            "global\n  maxconn 1000\n  hard-stop-after 20s\n\
             defaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n  \
             timeout http-keep-alive 20ms\n\
             frontend in\n  bind {address}\n  default_backend out\n\
             backend out\n  server one {server}\n"
        );
        fs::write(directory.path().join("haproxy.cfg"), configuration).unwrap();
        let mut haproxy = Self { address, directory, processes: Vec::new() };
        haproxy.replace().await;
        haproxy
    }

    /// A new process takes over the port, and the old one finishes what it has.
    pub(crate) async fn replace(&mut self) {
        let mut command = Command::new("/usr/sbin/haproxy");
        command.arg("-db").arg("-f").arg(self.directory.path().join("haproxy.cfg"));
        if let Some(old) = self.processes.last() {
            command.args(["-sf", &old.id().to_string()]);
        }
        // So that a ^C at the terminal is the test's alone.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let process = command.spawn().unwrap_or_else(|error| {
            panic!("haproxy cannot be run ({error}); install the package haproxy, or run `make test-faults`")
        });
        let address = self.address;
        until("haproxy", || std::net::TcpStream::connect(address).is_ok()).await;
        self.processes.push(process);
    }

    /// Waits until the processes that were replaced have ended.
    pub(crate) async fn settle(&mut self) {
        let old = self.processes.len() - 1;
        until("the end of what was replaced", || {
            self.processes[..old].iter_mut().all(|process| matches!(process.try_wait(), Ok(Some(_))))
        })
        .await;
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
