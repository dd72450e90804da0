//! A real server as the backend, which can be killed and started again on its port.

use std::{
    fs,
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::Display,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::{free_port, object, until};

/// nginx in one process that serves the object; killed when it is dropped.
pub(crate) struct Nginx {
    pub(crate) address: SocketAddr,
    directory: TempDir,
    process: Option<Child>,
}

impl Nginx {
    /// Serves the object.
    pub(crate) async fn start() -> Self {
        Self::serving(|address, path| format!("server {{ listen {address}; access_log off; root {path}; }}"))
            .await
    }

    /// The same, to clients that speak HTTP/2 from the first byte on.
    pub(crate) async fn speaking_http2() -> Self {
        Self::serving(|address, path| {
            format!("server {{ listen {address} http2; access_log off; root {path}; }}")
        })
        .await
    }

    /// Answers everything, after it has read the whole of it, and keeps a record of what it was asked for.
    pub(crate) async fn recording() -> Self {
        // What goes on to another server has been read to its end.
        let answers = SocketAddr::from(([127, 0, 0, 1], free_port()));
        Self::serving(|address, path| {
            format!(
                "log_format seen '$request_uri';\n\
                 server {{ listen {answers}; access_log off; location / {{ return 200 ok; }} }}\n\
                 server {{ listen {address}; access_log {path}/seen seen; location / {{ proxy_pass http://{answers}; }} }}"
            )
        })
        .await
    }

    /// With these servers, of which one listens on the address and has its files at the path.
    async fn serving(servers: impl FnOnce(SocketAddr, Display<'_>) -> String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        fs::write(directory.path().join("object"), object()).unwrap();
        fs::write(directory.path().join("health"), "ok").unwrap();
        let path = directory.path().display();
        let servers = servers(address, directory.path().display());
        let configuration = format!(
            "daemon off;\n\
             master_process off;\n\
             pid {path}/pid;\n\
             error_log stderr crit;\n\
             events {{ worker_connections 1024; }}\n\
             http {{\n\
             client_body_temp_path {path}/body;\n\
             proxy_temp_path {path}/proxy;\n\
             fastcgi_temp_path {path}/fastcgi;\n\
             scgi_temp_path {path}/scgi;\n\
             uwsgi_temp_path {path}/uwsgi;\n\
             keepalive_requests 1000000;\n\
             {servers}\n\
             }}\n"
        );
        fs::write(directory.path().join("nginx.conf"), configuration).unwrap();
        let mut nginx = Self { address, directory, process: None };
        nginx.run().await;
        nginx
    }

    /// The path of each request so far, checks left out; `-` for one that could not be read.
    pub(crate) fn seen(&self) -> Vec<String> {
        let seen = fs::read_to_string(self.directory.path().join("seen")).unwrap();
        seen.lines().filter(|path| *path != "/health").map(str::to_owned).collect()
    }

    /// Starts it on its port.
    pub(crate) async fn run(&mut self) {
        let configuration = self.directory.path().join("nginx.conf");
        let mut command = Command::new(if fs::exists("/usr/sbin/nginx").unwrap_or(false) {
            "/usr/sbin/nginx"
        } else {
            "nginx"
        });
        command.args(["-e", "stderr", "-p"]).arg(self.directory.path()).arg("-c").arg(configuration);
        // So that a ^C at the terminal is the test's alone.
        command.stdin(Stdio::null()).process_group(0);
        let process = command.spawn().unwrap_or_else(|error| {
            panic!(
                "nginx cannot be run ({error}); install the package nginx-light, or run `make test-faults`"
            )
        });
        self.process = Some(process);
        let address = self.address;
        until("nginx", || std::net::TcpStream::connect(address).is_ok()).await;
    }

    /// As a machine that goes: no goodbye, and resets for what is under way.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.kill();
    }
}
