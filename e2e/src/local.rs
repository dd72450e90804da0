//! A sidecar without a cluster, real servers behind it, and real clients in front of it.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::child::{Process, dying_with_parent, free_ports, launch, path_from};

const START: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
const CONFIGURATION: &str = "sidecar.yaml";

/// The program of this build, with one listener. It ends when it is dropped, or with the test program.
#[derive(Debug)]
pub struct LocalSidecar {
    pub address: SocketAddr,
    admin: SocketAddr,
    process: Process,
    directory: tempfile::TempDir,
}

/// MinIO. It ends with the test program.
#[derive(Debug)]
pub struct Minio {
    pub address: SocketAddr,
}

impl LocalSidecar {
    /// Starts one. `health` is the path that its checks ask for.
    pub fn start(backend: SocketAddr, health: Option<&str>) -> Result<Self> {
        let health = health.map(|path| format!("  health: {{path: {path}}}\n")).unwrap_or_default();
        Self::with(|port| {
            format!(
                "http:\n- name: test\n  port: {port}\n{health}  sites: [{{name: only, backends: [{{addresses: [\"{backend}\"]}}]}}]\n"
            )
        })
    }

    /// Starts one with the configuration that is made for this port.
    pub fn with(configuration: impl FnOnce(u16) -> String) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join(CONFIGURATION);
        let [port] = free_ports();
        fs::write(&file, configuration(port))?;
        let address = (Ipv4Addr::LOCALHOST, port).into();
        Self::run(directory, address, |command| command.args(["run", "--config"]).arg(file))
    }

    /// Starts one as `sidecar l4 ADDRESS ARGUMENTS...` does, at a free port.
    pub fn l4(arguments: &[&str]) -> Result<Self> {
        let [port] = free_ports();
        Self::l4_at((Ipv4Addr::LOCALHOST, port).into(), arguments)
    }

    /// The same at this address.
    pub fn l4_at(address: SocketAddr, arguments: &[&str]) -> Result<Self> {
        Self::run(tempfile::tempdir()?, address, |command| {
            command.args(["l4", &address.to_string()]).args(arguments)
        })
    }

    fn run(
        directory: tempfile::TempDir,
        address: SocketAddr,
        arguments: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Result<Self> {
        let [admin] = free_ports();
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, admin));
        let program = built("sidecar")?;
        let log = directory.path().join("log");
        let process = Process::start("KILL", &log, |command| {
            arguments(command.arg(program)).args([
                "--log-format",
                "text",
                "--admin-address",
                &admin.to_string(),
            ])
        })?;
        await_answer(admin, "/ready", &log)?;
        Ok(Self { address, admin, process, directory })
    }

    /// Has another configuration take the place of the one that it follows.
    pub fn follows(&self, configuration: &str) -> Result<()> {
        let next = self.directory.path().join("next.yaml");
        fs::write(&next, configuration)?;
        Ok(fs::rename(next, self.directory.path().join(CONFIGURATION))?)
    }

    /// The sum of all series of its metrics whose line begins with this text.
    pub fn metric(&self, series: &str) -> Result<f64> {
        let page = fetch(self.admin, "/metrics")?;
        let values = page.lines().filter(|line| line.starts_with(series));
        Ok(values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// The most memory that it has ever had resident, in MiB.
    pub fn peak_memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))
            .with_context(|| format!("it has ended: {}", self.log()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kilobytes: u64 = line.split_whitespace().next().context("no number")?.parse()?;
        Ok(kilobytes / 1024)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Minio {
    pub const USER: &str = "sidecar-tests";
    pub const PASSWORD: &str = "not-a-secret-at-all";
    /// Answers 200 once it serves.
    pub const HEALTH: &str = "/minio/health/ready";

    /// Starts one on this folder, which is emptied first: nothing can be tidied up after a program that ends with its tests.
    pub fn start(directory: &Path) -> Result<Self> {
        let program = path_from("../.ci/minio", &[])?;
        match fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("{} cannot be emptied", directory.display()));
            }
            _ => fs::create_dir_all(directory)?,
        }
        let [port, console] = free_ports();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut command = dying_with_parent(&program);
        command
            .args(["server", "--quiet", "--address", &address.to_string()])
            .args(["--console-address", &format!("127.0.0.1:{console}")])
            .arg(directory.join("data"))
            .env("HOME", directory)
            .env("MINIO_ROOT_USER", Self::USER)
            .env("MINIO_ROOT_PASSWORD", Self::PASSWORD)
            .env("MINIO_BROWSER", "off")
            .env("MINIO_UPDATE", "off");
        let log = directory.join("log");
        launch(command, log.clone())?;
        await_answer(address, Self::HEALTH, &log)?;
        Ok(Self { address })
    }
}

/// A script that serves on a port, which it prints, until its stdin ends.
#[derive(Debug)]
pub struct PythonServer {
    pub address: SocketAddr,
    process: Child,
}

impl PythonServer {
    /// Starts `script serve`.
    pub fn start(script: &Path) -> Result<Self> {
        let mut command = Command::new(interpreter()?);
        command.arg(script).arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let mut line = String::new();
        let stdout = process.stdout.take().context("it has no stdout")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let port: u16 =
            line.trim().parse().with_context(|| format!("{} printed no port", script.display()))?;
        Ok(Self { address: (Ipv4Addr::LOCALHOST, port).into(), process })
    }
}

impl Drop for PythonServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a script to its end, with the Python that has the clients of `tests/requirements.txt`.
pub fn python(script: &Path, arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(interpreter()?).arg(script).args(arguments).output()?)
}

/// The Python that has the clients of `tests/requirements.txt`.
pub fn interpreter() -> Result<&'static Path> {
    static PYTHON: OnceLock<Result<PathBuf>> = OnceLock::new();
    match PYTHON.get_or_init(|| path_from("../.ci/python-clients", &[])) {
        Ok(python) => Ok(python),
        Err(error) => bail!("{error:#}"),
    }
}

/// A program of this build, which stands a folder above the tests.
pub fn built(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let program = test.ancestors().nth(2).context("the test stands in no folder")?.join(name);
    if !program.exists() {
        bail!("there is no {}; build it: cargo build --release --workspace --bins", program.display());
    }
    Ok(program)
}

/// Waits until a GET of this path is answered with 200.
fn await_answer(address: SocketAddr, path: &str, log: &Path) -> Result<()> {
    let start = Instant::now();
    while !fetch(address, path).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
        if start.elapsed() > START {
            let log = fs::read_to_string(log).unwrap_or_default();
            bail!("http://{address}{path} does not answer 200 after {START:?}; its log:\n{log}");
        }
        std::thread::park_timeout(POLL);
    }
    Ok(())
}

/// A GET and its whole answer.
fn fetch(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, START)?;
    stream.set_read_timeout(Some(START))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
