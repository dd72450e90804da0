//! A sidecar process, backends that can be held, and a client of a few lines.

#[path = "../shared/free_port.rs"]
mod free_port;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

pub(crate) use self::free_port::free_port;

const DEADLINE: Duration = Duration::from_secs(30);
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_sidecar");
const POLL: Duration = Duration::from_millis(10);

/// Asks again until there is something, or fails with what was awaited.
pub(crate) fn retry<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "{what} did not come");
        thread::park_timeout(POLL);
    }
}

/// Status and body, or nothing when the connection fails.
pub(crate) fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).ok()?;
    let (head, body) = response.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// One listener on 127.0.0.1, as YAML.
pub(crate) fn listener(name: &str, port: u16, backends: &[SocketAddr]) -> String {
    let backends: Vec<String> = backends.iter().map(|address| format!("\"{address}\"")).collect();
    let backends = backends.join(", ");
    format!(
        "- name: {name}\n  address: 127.0.0.1\n  port: {port}\n  sites:\n  - name: s\n    backends: [{{addresses: [{backends}]}}]\n"
    )
}

pub(crate) fn config(listeners: &[String]) -> String {
    format!("http:\n{}", listeners.concat())
}

/// Runs the program to its end: exit code, stdout and stderr.
pub(crate) fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    run_with(arguments, &[])
}

/// The same with further variables.
pub(crate) fn run_with(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    outcome(Command::new(PROGRAM).args(arguments).envs(variables.iter().copied()))
}

pub(crate) fn outcome(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

pub(crate) fn signal(process: &Child, name: &str) {
    let kill = format!("kill -{name} {}", process.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

/// The exit code, once it has ended.
pub(crate) fn wait(process: &mut Child) -> Option<i32> {
    retry("the end", || process.try_wait().unwrap()).code()
}

/// A program on a terminal of its own, which the `script` of util-linux makes. What is written to its stdin are keys.
pub(crate) fn on_terminal(command: &str) -> Child {
    Command::new("script")
        .args(["--quiet", "--flush", "--return", "--command", command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test needs `script` of util-linux (Debian: bsdutils)")
}

/// Reads from a terminal until the text has come, and gives all that was read.
pub(crate) fn read_until(out: &mut impl Read, text: &str) -> String {
    let mut seen = Vec::new();
    let mut byte = [0];
    let start = Instant::now();
    while !String::from_utf8_lossy(&seen).ends_with(text) {
        assert!(start.elapsed() < DEADLINE, "{text:?} did not come: {}", String::from_utf8_lossy(&seen));
        assert_eq!(
            out.read(&mut byte).unwrap(),
            1,
            "it ended before {text:?}: {}",
            String::from_utf8_lossy(&seen)
        );
        seen.push(byte[0]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

/// A running sidecar; killed when it is dropped.
pub(crate) struct Sidecar {
    pub(crate) admin: SocketAddr,
    process: Child,
    directory: tempfile::TempDir,
}

impl Sidecar {
    /// Starts one whose configuration is not there yet.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_at(([127, 0, 0, 1], free_port()).into(), arguments)
    }

    pub(crate) fn start_at(admin: SocketAddr, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let process = Command::new(PROGRAM)
            .arg("run")
            .arg("--config")
            .arg(directory.path().join("sidecar.yaml"))
            .args(["--admin-address", &admin.to_string(), "--log-format", "text"])
            .args(arguments)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let sidecar = Self { admin, process, directory };
        retry("the admin endpoints", || get(admin, "/live"));
        sidecar
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join("sidecar.yaml")
    }

    /// Replaces the configuration at one stroke.
    pub(crate) fn write(&self, text: &str) {
        let temporary = self.directory.path().join("new");
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, self.config()).unwrap();
    }

    pub(crate) fn wait_ready(&self) {
        retry("ready", || get(self.admin, "/ready").filter(|(status, _)| *status == 200));
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(&self.process, name);
    }

    pub(crate) fn terminate(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.wait()
    }

    /// The exit code, once it has ended.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        wait(&mut self.process)
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A backend that answers with its name, as soon as it is let.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    held: bool,
    waiting: usize,
}

impl Backend {
    pub(crate) fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Arc::new(Gate::default());
        let shared = gate.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let gate = shared.clone();
                thread::spawn(move || serve(stream.unwrap(), name, &gate));
            }
        });
        Self { address, gate }
    }

    /// Requests get no answer until [`Backend::release`].
    pub(crate) fn hold(&self) {
        self.gate.state.lock().unwrap().held = true;
    }

    pub(crate) fn release(&self) {
        self.gate.state.lock().unwrap().held = false;
        self.gate.changed.notify_all();
    }

    pub(crate) fn wait_for_request(&self) {
        retry("a held request", || (self.gate.state.lock().unwrap().waiting > 0).then_some(()));
    }
}

/// Answers until the connection ends, as that of a health check does at once.
fn serve(stream: TcpStream, name: &str, gate: &Gate) {
    let mut stream = BufReader::new(stream);
    while read_head(&mut stream).is_some() {
        let mut state = gate.state.lock().unwrap();
        state.waiting += 1;
        while state.held {
            state = gate.changed.wait(state).unwrap();
        }
        drop(state);
        let length = name.len();
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}");
        let _ = stream.get_mut().write_all(response.as_bytes());
    }
}

fn read_head(stream: &mut impl BufRead) -> Option<()> {
    loop {
        let mut line = String::new();
        match stream.read_line(&mut line) {
            Ok(3..) => {}
            Ok(2) => return Some(()),
            _ => return None,
        }
    }
}
