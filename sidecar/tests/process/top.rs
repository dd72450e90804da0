//! `sidecar top` against a sidecar that runs.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::support::{
    Backend, PROGRAM, Sidecar, config, free_port, get, listener, on_terminal, read_until, retry, run, wait,
};

/// A sidecar with one backend that serves and one that refuses, after three requests.
fn sidecar() -> (Sidecar, Backend, SocketAddr) {
    let (up, down) = (Backend::start("up"), SocketAddr::from(([127, 0, 0, 1], free_port())));
    let port = free_port();
    let sidecar = Sidecar::start(&[]);
    sidecar.write(&config(&[listener("web", port, &[up.address, down])]));
    sidecar.wait_ready();
    retry("the check of the backend that refuses", || {
        let (_, metrics) = get(sidecar.admin, "/metrics")?;
        metrics.contains(&format!("backend=\"{down}\"}} 0\n")).then_some(())
    });
    for _ in 0..3 {
        assert_eq!(get(([127, 0, 0, 1], port).into(), "/"), Some((200, "up".to_owned())));
    }
    (sidecar, up, down)
}

#[test]
fn a_script_gets_one_object_and_a_person_a_table() {
    let (sidecar, up, down) = sidecar();
    let address = format!("http://{}", sidecar.admin);
    let once = ["top", "--once", "--interval", "100ms", "--admin-address", &address];
    let (code, out, err) = run(&[&once[..], &["-o", "json"]].concat());
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["totals"]["requests"]["total"], 3, "{out}");
    assert_eq!(report["totals"]["requests"]["perSecond"], 0.0, "{out}");
    let site = &report["listeners"][0]["sites"][0];
    assert_eq!((&report["listeners"][0]["name"], &site["state"]), (&"web".into(), &"serving".into()));
    let mut states: Vec<(String, String)> = site["backends"]
        .as_array()
        .unwrap()
        .iter()
        .map(|backend| {
            (backend["address"].as_str().unwrap().into(), backend["state"].as_str().unwrap().into())
        })
        .collect();
    states.sort();
    let mut expected = vec![(up.address.to_string(), "up".to_owned()), (down.to_string(), "down".to_owned())];
    expected.sort();
    assert_eq!(states, expected);
    let failed =
        site["backends"].as_array().unwrap().iter().find(|backend| backend["state"] == "down").unwrap();
    assert!(failed["downSeconds"].as_f64().unwrap() > 0.0, "{out}");

    let (code, out, err) = run(&once);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("1 of 2 backends down") && out.contains(&up.address.to_string()), "{out}");
    assert!(!out.contains('\u{1b}'), "no colours in a pipe: {out:?}");
}

#[test]
fn an_address_where_no_sidecar_answers_gets_one_line() {
    let backend = Backend::start("no metrics");
    let port = free_port();
    for (address, cause) in [
        (format!("http://127.0.0.1:{port}"), "connection refused"),
        (format!("http://{}", backend.address), "line 1 of the answer is not OpenMetrics text"),
    ] {
        let (code, out, err) = run(&["top", "--once", "--admin-address", &address]);
        assert_eq!((code, out.as_str()), (Some(1), ""));
        let line = format!(
            "sidecar: {address}/metrics cannot be read: {cause}; check that a sidecar runs there, or name its address \
             with --admin-address\n"
        );
        assert_eq!(err, line);
    }
    assert_eq!(run(&["top", "--admin-address", "https://a:1"]).0, Some(2));
}

#[test]
fn lines_go_on_until_the_reader_has_enough() {
    let (sidecar, ..) = sidecar();
    let mut process = Command::new(PROGRAM)
        .args(["top", "-o", "json", "--interval", "100ms", "--admin-address", &sidecar.admin.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        let report: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert!(report["seconds"].as_f64().unwrap() > 0.0);
    }
    drop(lines);
    assert_eq!(wait(&mut process), Some(0));
}

#[test]
fn a_terminal_gets_a_table_and_is_given_back_as_it_was() {
    let (sidecar, up, _) = sidecar();
    for leave in ["q", "\u{3}"] {
        let mut process =
            on_terminal(&format!("{PROGRAM} top --interval 100ms --admin-address {}", sidecar.admin));
        let mut out = process.stdout.take().unwrap();
        read_until(&mut out, "\u{1b}[?1049h");
        read_until(&mut out, &up.address.to_string());
        process.stdin.as_mut().unwrap().write_all(leave.as_bytes()).unwrap();
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        assert_eq!(wait(&mut process), Some(0));
        assert!(rest.contains("\u{1b}[?25h") && rest.trim_end().ends_with("\u{1b}[?1049l"), "{rest:?}");
    }
}

#[test]
fn a_terminal_is_told_when_the_sidecar_goes_and_sees_it_come_back() {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut process = on_terminal(&format!("{PROGRAM} top --interval 100ms --admin-address {address}"));
    let mut out = process.stdout.take().unwrap();
    read_until(&mut out, "connection refused;");
    let _sidecar = Sidecar::start_at(address, &[]);
    read_until(&mut out, "not ready yet");
    process.stdin.as_mut().unwrap().write_all(b"q").unwrap();
    assert_eq!(wait(&mut process), Some(0));
}
