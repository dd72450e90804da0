//! The program by the name of sidelb: the command lines of its users, and what they expect of it.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::symlink,
    process::{Command, Stdio},
    thread,
};

use crate::support::{PROGRAM, free_port, get, outcome, retry, run, signal, wait};

/// A server that says this to everyone, and then echoes.
fn server(word: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.write_all(word.as_bytes());
            let mut writer = stream.try_clone().unwrap();
            thread::spawn(move || std::io::copy(&mut stream, &mut writer));
        }
    });
    address
}

fn word(address: SocketAddr) -> Option<(TcpStream, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    let mut word = [0; 3];
    stream.read_exact(&mut word).ok()?;
    Some((stream, String::from_utf8(word.to_vec()).unwrap()))
}

#[test]
fn it_goes_round_over_the_servers_of_sidelbs_command_line_and_drains_when_it_is_told_to_stop() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("sidelb");
    symlink(PROGRAM, &program).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (one, two) = (server("one"), server("two"));
    let mut sidelb = Command::new(&program)
        .args([address.to_string(), one.to_string(), format!("backends={two}"), "mode=round-robin".into()])
        // Nobody reads what it prints.
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(sidelb.stdout.take());
    drop(sidelb.stderr.take());
    let (mut open, _) = retry("a word", || word(address));
    let mut words: Vec<String> = (0..6).map(|_| word(address).unwrap().1).collect();
    words.sort();
    assert_eq!(words, ["one", "one", "one", "two", "two", "two"]);

    signal(&sidelb, "TERM");
    retry("no new connections", || TcpStream::connect(address).is_err().then_some(()));
    open.write_all(b"x").unwrap();
    open.read_exact(&mut [0]).unwrap();
    assert!(sidelb.try_wait().unwrap().is_none(), "it waits for the connection that is open");
    drop(open);
    assert_eq!(wait(&mut sidelb), Some(0));
}

#[test]
fn as_the_first_process_of_a_container_it_ends_when_it_is_told_to() {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let server = server("one");
    let mut container = Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", PROGRAM, "l4", &address.to_string(), &server.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    retry("a word", || word(address));
    let children = format!("/proc/{0}/task/{0}/children", container.id());
    let first = std::fs::read_to_string(children).unwrap();
    assert!(Command::new("kill").args(["-TERM", first.trim()]).status().unwrap().success());
    assert_eq!(wait(&mut container), Some(0));
}

#[test]
fn a_wrong_argument_is_one_line_and_nothing_listens() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (arguments, hint) in [
        (&["127.0.0.1:99999", "10.0.0.1:1"][..], "is not an address to listen on"),
        (&["db.example.com:5432", "10.0.0.1:1"], "is not an address to listen on"),
        (&["127.0.0.1:5432", "10.0.0.256:1"], "10.0.0.256:1"),
        (&["127.0.0.1:5432", "10.0.0.1:1", "proto=sctp"], "proto=tcp or proto=udp"),
        (&["127.0.0.1:5432", "10.0.0.1:1", "colour=red"], "known are"),
        (&["127.0.0.1:5432"], "there are no backends"),
        (&["127.0.0.1:5432", "10.0.0.1:1", "mode=fastest"], "mode=round-robin"),
        (&["127.0.0.1:5432", "10.0.0.1:0"], "1 to 65535"),
        (&[&taken, "10.0.0.1:1"], "choose another port"),
        (&["192.0.2.1:5432", "10.0.0.1:1"], "an address of this machine"),
    ] {
        let (code, out, err) = run(&[&["l4"], arguments].concat());
        assert_eq!(code, Some(1), "{arguments:?}: {out}{err}");
        let lines: Vec<&str> = err.lines().filter(|line| line.starts_with("sidecar: ")).collect();
        assert!(lines.len() == 1 && lines[0].contains(hint), "{arguments:?}: {err}");
    }
}

#[test]
fn a_port_below_1024_without_the_right_to_it_is_one_line() {
    // A network of its own has the kernel's own limit, whatever that of the machine is.
    let script = format!(
        "setpriv --bounding-set=-net_bind_service --inh-caps=-net_bind_service {PROGRAM} l4 127.0.0.1:53 10.0.0.1:1"
    );
    for transport in ["proto=tcp", "proto=udp"] {
        let script = format!("ip link set lo up && exec {script} {transport}");
        let (code, out, err) = outcome(Command::new("unshare").args(["--net", "sh", "-c", &script]));
        assert_eq!(code, Some(1), "{transport}: {out}{err}");
        let lines: Vec<&str> = err.lines().filter(|line| line.starts_with("sidecar: ")).collect();
        assert!(lines.len() == 1 && lines[0].contains("choose a higher one"), "{transport}: {err}");
    }
}

#[test]
fn check_tells_of_each_mistake_in_one_line_and_ends_with_1() {
    let of = |file: &str| format!("{}/tests/config/{file}", env!("CARGO_MANIFEST_DIR"));
    let (code, out, err) = run(&["check", "--config", &of("l4-rules.yaml")]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    let expected = std::fs::read_to_string(of("l4-rules.txt")).unwrap();
    for expected in expected.lines() {
        assert_eq!(err.lines().filter(|line| line.ends_with(expected)).count(), 1, "{expected}\n{err}");
    }
}

#[test]
fn a_closed_output_costs_lines_of_the_access_log_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sidecar.yaml");
    let (port, backend) = (free_port(), server("one"));
    let listener = format!(
        "tcp: [{{name: db, port: {port}, backends: [{{addresses: ['{backend}']}}], accessLog: {{}}}}]\n"
    );
    std::fs::write(&path, listener).unwrap();
    let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut sidecar = Command::new(PROGRAM)
        .args(["run", "--admin-address", &admin.to_string(), "--config"])
        .arg(&path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(sidecar.stdout.take());
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    retry("a word", || word(address));
    retry("lines that were dropped", || {
        word(address).unwrap();
        let (_, text) = get(admin, "/metrics")?;
        let dropped =
            text.lines().find_map(|line| line.strip_prefix("sidecar_access_log_dropped_lines_total "))?;
        (dropped.parse::<f64>().ok()? > 0.0).then_some(())
    });
    assert_eq!(word(address).unwrap().1, "one");
    signal(&sidecar, "TERM");
    assert_eq!(wait(&mut sidecar), Some(0));
}

#[test]
fn whoever_asks_for_its_health_is_told_when_nobody_answers() {
    let absent = tempfile::tempdir().unwrap();
    // The socket has one place on a machine, and a network namespace of its own would not move it: a folder in its stead does.
    let mounted =
        format!("mount --bind {} /run && exec {PROGRAM} l4 --health-check-uds", absent.path().display());
    let (code, _, err) = outcome(Command::new("unshare").args(["--mount", "sh", "-c", &mounted]));
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("nobody answers at /run/sidelb.sock"), "{err}");
}

#[test]
fn its_health_is_that_of_its_backends() {
    let own = tempfile::tempdir().unwrap();
    let (up, down) = (server("one"), SocketAddr::from(([127, 0, 0, 1], free_port())));
    for (backend, code) in [(up, 0), (down, 1)] {
        let address = format!("127.0.0.1:{}", free_port());
        let script = format!(
            "mount --bind {} /run && {{ {PROGRAM} l4 {address} {backend} & }} && \
             for n in $(seq 100); do [ -S /run/sidelb.sock ] && break; sleep 0.05; done; \
             for n in $(seq 100); do {PROGRAM} l4 --health-check-uds; code=$?; [ $code = {code} ] && break; sleep 0.05; done; \
             kill $!; wait; exit $code",
            own.path().display()
        );
        let (found, out, err) = outcome(Command::new("unshare").args(["--mount", "sh", "-c", &script]));
        assert_eq!(found, Some(code), "{out}{err}");
    }
}
