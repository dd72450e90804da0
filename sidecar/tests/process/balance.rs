//! The program by the name of sidekick: the command lines of its users, and what they expect of it.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use crate::support::{
    Backend, PROGRAM, free_port, get, on_terminal, outcome, read_until, retry, signal, wait,
};

/// The program under its other name, and a port for it.
struct Sidekick {
    program: PathBuf,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

/// One that runs; killed when it is dropped.
struct Running(Child);

impl Sidekick {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("sidekick");
        symlink(PROGRAM, &program).unwrap();
        Self { program, address: ([127, 0, 0, 1], free_port()).into(), _directory: directory }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--address", &self.address.to_string()]).args(arguments);
        command
    }

    /// Runs it until /v1/health gives this status.
    fn run(&self, arguments: &[&str], health: u16) -> Running {
        let running = Running(self.command(arguments).stdout(Stdio::null()).spawn().unwrap());
        retry("health", || get(self.address, "/v1/health").filter(|(status, _)| *status == health));
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn url(backend: &Backend) -> String {
    format!("http://{}", backend.address)
}

#[test]
fn it_serves_the_first_site_with_a_live_server_under_sidekicks_flags() {
    let (first, second) = (Backend::start("first"), Backend::start("second"));
    let sidekick = Sidekick::new();
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let pools = format!("{nowhere},{}", url(&first));
    let mut running =
        sidekick.run(&["-health-path=/ready", "-d", "1", "--quiet", &pools, &url(&second)], 200);
    assert_eq!(get(sidekick.address, "/bucket/object"), Some((200, "first".to_owned())));
    let (status, metrics) = get(sidekick.address, "/.prometheus/metrics").unwrap();
    assert_eq!(status, 200);
    let requests = format!("sidekick_requests_total{{endpoint=\"{}\"}} 1\n", url(&first));
    assert!(metrics.contains(&requests), "checks are no requests: {metrics}");
    assert_eq!(get(sidekick.address, "/v1/certificates").map(|(status, _)| status), Some(404));
    signal(&running.0, "HUP");
    assert_eq!(get(sidekick.address, "/"), Some((200, "first".to_owned())));
    signal(&running.0, "TERM");
    assert_eq!(wait(&mut running.0), Some(0));
}

#[test]
fn with_all_servers_down_it_answers_backend_down() {
    let sidekick = Sidekick::new();
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let _running = sidekick.run(&["--quiet", &nowhere], 502);
    let (status, body) = get(sidekick.address, "/b/o?x=1").unwrap();
    assert_eq!(status, 502);
    assert!(
        body.contains("<Code>BackendDown</Code>") && body.contains("<Resource>/b/o</Resource>"),
        "{body}"
    );
}

#[test]
fn variables_stand_in_for_flags_and_flags_win() {
    let backend = Backend::start("up");
    let sidekick = Sidekick::new();
    let mut command = sidekick.command(&[&url(&backend)]);
    command
        .env("SIDEKICK_ADDRESS", "127.0.0.1:1")
        .env("SIDEKICK_HEALTH_DURATION", "1")
        .env("SIDEKICK_QUIET", "true");
    let _running = Running(command.spawn().unwrap());
    retry("health", || get(sidekick.address, "/v1/health").filter(|(status, _)| *status == 200));
}

#[test]
fn whatever_is_wrong_gets_one_line_before_anything_listens() {
    let sidekick = Sidekick::new();
    let taken = TcpListener::bind(sidekick.address).unwrap();
    for (arguments, line) in [
        (
            &["minio:9000"][..],
            "sidekick: SITE 1: \"minio:9000\" does not begin with http:// or https://; write which of the two its servers speak",
        ),
        (
            &["--adress", ":1", "http://a:1"],
            "sidekick: unexpected argument '--adress' found (a similar argument exists: '--address'); see sidekick --help",
        ),
        (&[], "sidekick: the following required arguments were not provided: <SITE>...; see sidekick --help"),
        (&["http://127.0.0.1:1"], "cannot listen on"),
    ] {
        let (code, out, err) = outcome(&mut sidekick.command(arguments));
        assert!(code.is_some_and(|code| code != 0), "{arguments:?}");
        assert_eq!((out.as_str(), err.lines().count()), ("", 1), "{err}");
        assert!(err.contains(line), "{err}");
    }
    drop(taken);
}

#[test]
fn a_trace_has_the_lines_that_are_asked_for_and_quiet_has_none() {
    let backend = Backend::start("up");
    let url = url(&backend);
    for (flags, expected) in [
        (&["--trace", "all"][..], &["Check /", "Request /b/o?token=REDACTED"][..]),
        (&["-t", "application"], &["Request /b/o?token=REDACTED"]),
        (&["--trace=minio"], &["Check /"]),
        (&["--status-code", "404,200"], &["Check /", "Request /b/o?token=REDACTED"]),
        (&["--trace=all", "--status-code", "404"], &[]),
        (&["--trace=all", "--errors"], &[]),
        (&["--trace=all", "--quiet"], &[]),
        (&[], &[]),
    ] {
        let sidekick = Sidekick::new();
        let arguments = [flags, &["--json", &url]].concat();
        let mut command = sidekick.command(&arguments);
        let mut running = Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
        retry("health", || get(sidekick.address, "/v1/health").filter(|(status, _)| *status == 200));
        assert_eq!(get(sidekick.address, "/b/o?token=secret"), Some((200, "up".to_owned())));
        signal(&running.0, "TERM");
        let mut lines = String::new();
        running.0.stdout.take().unwrap().read_to_string(&mut lines).unwrap();
        assert_eq!(wait(&mut running.0), Some(0));
        let lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let told =
            lines.map(|line| [&line["kind"], &line["path"]].map(|value| value.as_str().unwrap().to_owned()));
        let mut told: Vec<_> = told
            .filter(|[_, path]| path != "/v1/health")
            .map(|[kind, path]| format!("{kind} {path}"))
            .collect();
        told.sort();
        told.dedup();
        assert_eq!(told, expected, "{flags:?}");
    }
}

#[test]
fn on_a_terminal_it_shows_a_table_and_ends_with_it() {
    let backend = Backend::start("up");
    let sidekick = Sidekick::new();
    let (program, address) = (sidekick.program.display(), sidekick.address);
    let mut process = on_terminal(&format!("{program} --address {address} {}", url(&backend)));
    let mut out = process.stdout.take().unwrap();
    read_until(&mut out, "\u{1b}[?1049h");
    read_until(&mut out, &backend.address.to_string());
    assert_eq!(get(address, "/"), Some((200, "up".to_owned())));
    process.stdin.as_mut().unwrap().write_all(b"q").unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(wait(&mut process), Some(0));
    assert!(rest.trim_end().ends_with("\u{1b}[?1049l"), "{rest:?}");
    assert!(get(address, "/").is_none());
}
