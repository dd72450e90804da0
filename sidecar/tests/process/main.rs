//! The program as a process: files, sockets, signals and exit codes, as a user or kubelet meets them.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod balance;
mod l4;
mod metrics;
mod reload;
mod reload_l4;
mod support;
mod top;
mod udp;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use support::{Backend, Sidecar, config, free_port, get, listener, retry, run};

#[test]
fn it_waits_for_its_configuration_and_then_serves() {
    let backend = Backend::start("one");
    let mut sidecar = Sidecar::start(&[]);
    retry("the reason", || {
        let (status, body) = get(sidecar.admin, "/ready")?;
        (status == 503 && body.contains("sidecar.yaml")).then_some(())
    });
    assert_eq!(get(sidecar.admin, "/live").map(|(status, _)| status), Some(200));

    let port = free_port();
    sidecar.write(&config(&[listener("web", port, &[backend.address])]));
    sidecar.wait_ready();
    assert_eq!(get(([127, 0, 0, 1], port).into(), "/"), Some((200, "one".to_owned())));
    assert_eq!(sidecar.terminate(), Some(0));
}

#[test]
fn a_bad_update_changes_nothing_and_is_told() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let port = free_port();
    let address = ([127, 0, 0, 1], port).into();
    let sidecar = Sidecar::start(&[]);
    sidecar.write(&config(&[listener("web", port, &[one.address])]));
    sidecar.wait_ready();
    for (bad, rejected) in [("http: [{port: x}]", 1), ("http: [", 2), ("", 3)] {
        sidecar.write(bad);
        retry("the refusal in metrics", || {
            let (_, metrics) = get(sidecar.admin, "/metrics")?;
            let told = metrics.contains("sidecar_config_last_reload_success 0\n")
                && metrics.contains(&format!("sidecar_config_rejected_total {rejected}\n"));
            told.then_some(())
        });
        assert_eq!(get(address, "/"), Some((200, "one".to_owned())));
        assert_eq!(get(sidecar.admin, "/ready").map(|(status, _)| status), Some(200));
    }
    std::fs::remove_file(sidecar.config()).unwrap();
    sidecar.write(&config(&[listener("web", port, &[two.address])]));
    retry("the good update", || (get(address, "/")?.1 == "two").then_some(()));
    assert!(get(sidecar.admin, "/metrics").unwrap().1.contains("sidecar_config_last_reload_success 1\n"));
}

#[test]
fn listeners_follow_the_configuration_and_keep_the_old_when_a_port_is_taken() {
    let backend = Backend::start("one");
    let (first, second) = (free_port(), free_port());
    let at = |port: u16| ([127, 0, 0, 1], port).into();
    let sidecar = Sidecar::start(&[]);
    sidecar.write(&config(&[listener("web", first, &[backend.address])]));
    sidecar.wait_ready();

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_port = taken.local_addr().unwrap().port();
    sidecar.write(&config(&[listener("web", taken_port, &[backend.address])]));
    retry("the refusal", || {
        get(sidecar.admin, "/metrics")?.1.contains("sidecar_config_last_reload_success 0\n").then_some(())
    });
    assert_eq!(get(at(first), "/"), Some((200, "one".to_owned())));

    sidecar.write(&config(&[listener("web", second, &[backend.address])]));
    retry("the new port", || get(at(second), "/"));
    retry("the old port closed", || get(at(first), "/").is_none().then_some(()));

    // What was in the way of a port goes: no new configuration is needed.
    sidecar.write(&config(&[listener("web", taken_port, &[backend.address])]));
    retry("the refusal", || {
        get(sidecar.admin, "/metrics")?.1.contains("sidecar_config_rejected_total 2\n").then_some(())
    });
    drop(taken);
    retry("the port that became free", || get(at(taken_port), "/"));
    sidecar.write(&config(&[listener("web", second, &[backend.address])]));
    retry("the second port again", || get(at(second), "/"));

    // All addresses instead of one: the old socket is in the way of the new one.
    let everywhere =
        listener("web", second, &[backend.address]).replace("address: 127.0.0.1", "address: 0.0.0.0");
    sidecar.write(&config(&[everywhere]));
    retry("the port on all addresses", || get(([127, 0, 0, 2], second).into(), "/"));
}

#[test]
fn a_request_in_flight_finishes_after_sigterm() {
    let backend = Backend::start("slow");
    backend.hold();
    let port = free_port();
    let mut sidecar = Sidecar::start(&[]);
    sidecar.write(&config(&[listener("web", port, &[backend.address])]));
    sidecar.wait_ready();
    let request = std::thread::spawn(move || get(([127, 0, 0, 1], port).into(), "/"));
    backend.wait_for_request();
    sidecar.signal("TERM");
    retry("the drain", || get(sidecar.admin, "/ready").filter(|(_, body)| body == "draining\n"));
    retry("the listener closed", || get(([127, 0, 0, 1], port).into(), "/").is_none().then_some(()));
    backend.release();
    assert_eq!(request.join().unwrap(), Some((200, "slow".to_owned())));
    assert_eq!(sidecar.wait(), Some(0));
}

/// Whether the listener at this port asks its client to go elsewhere; each answer comes whole.
fn sends_away(port: u16) -> bool {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\none") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    String::from_utf8(answer).unwrap().to_ascii_lowercase().contains("connection: close")
}

/// Whether a new client in HTTP/2 is served that waits for the sidecar's first words before it asks.
fn serves_http2(port: u16) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (sender, mut connection) = h2::client::handshake(stream).await.unwrap();
        let mut pings = connection.ping_pong().unwrap();
        tokio::spawn(connection);
        pings.ping(h2::Ping::opaque()).await.unwrap();
        let Ok(mut sender) = sender.ready().await else { return false };
        let request = http::Request::get("http://test/").body(()).unwrap();
        let (answer, _) = sender.send_request(request, true).unwrap();
        answer.await.is_ok_and(|answer| answer.status() == 200)
    })
}

#[test]
fn before_the_pod_ends_clients_from_elsewhere_are_answered_and_sent_away() {
    let backend = Backend::start("one");
    let (inbound, own, late) = (free_port(), free_port(), free_port());
    let state = tempfile::tempdir().unwrap();
    let state = state.path().to_str().unwrap();
    for (mode, by_word) in [("native", true), ("container", false)] {
        let sidecar = Sidecar::start(&["--state-dir", state, "--mode", mode]);
        let open = |name: &str, port: u16| {
            listener(name, port, &[backend.address]).replace("address: 127.0.0.1", "address: 0.0.0.0")
        };
        let own_listener = listener("own", own, &[backend.address]);
        sidecar.write(&config(&[open("inbound", inbound), own_listener.clone()]));
        sidecar.wait_ready();
        assert!(!sends_away(inbound) && !sends_away(own), "{mode}");
        if by_word {
            assert_eq!(run(&["leave", "--state-dir", state]), (Some(0), String::new(), String::new()));
        } else {
            sidecar.signal("TERM");
        }
        retry("the word", || sends_away(inbound).then_some(()));
        assert!(serves_http2(inbound), "what comes late is served all the same");
        assert!(!sends_away(own), "the application has nowhere else to go");
        if by_word {
            sidecar.write(&config(&[open("inbound", inbound), own_listener, open("late", late)]));
            retry("the other listener", || TcpStream::connect(("127.0.0.1", late)).ok());
            retry("the word for it", || sends_away(late).then_some(()));
        }
        drop(sidecar);
    }
    let (code, _, error) = run(&["leave", "--state-dir", state]);
    assert_eq!(code, Some(1));
    assert!(error.contains("--state-dir"), "{error}");
}

#[test]
fn in_container_mode_it_serves_until_the_application_is_quiet() {
    let backend = Backend::start("one");
    let port = free_port();
    let mut sidecar = Sidecar::start(&["--mode", "container"]);
    sidecar.write(&config(&[listener("web", port, &[backend.address])]));
    sidecar.wait_ready();
    let start = Instant::now();
    sidecar.signal("TERM");
    retry("the drain", || get(sidecar.admin, "/ready").filter(|(_, body)| body == "draining\n"));
    assert_eq!(get(([127, 0, 0, 1], port).into(), "/"), Some((200, "one".to_owned())));
    assert_eq!(sidecar.wait(), Some(0));
    assert!(start.elapsed() >= Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let backend = Backend::start("slow");
    backend.hold();
    let port = free_port();
    let mut sidecar = Sidecar::start(&[]);
    sidecar.write(&config(&[listener("web", port, &[backend.address])]));
    sidecar.wait_ready();
    std::thread::spawn(move || get(([127, 0, 0, 1], port).into(), "/"));
    backend.wait_for_request();
    sidecar.signal("TERM");
    retry("the drain", || get(sidecar.admin, "/ready").filter(|(_, body)| body == "draining\n"));
    let start = Instant::now();
    sidecar.signal("INT");
    assert!(sidecar.wait().is_some());
    assert!(start.elapsed() < Duration::from_secs(10), "the drain takes 30 s: {:?}", start.elapsed());
}

#[test]
fn a_restart_without_its_configuration_serves_what_was_last_good() {
    let backend = Backend::start("one");
    let port = free_port();
    let state = tempfile::tempdir().unwrap();
    let state_dir = ["--state-dir", state.path().to_str().unwrap()];
    {
        let mut sidecar = Sidecar::start(&state_dir);
        sidecar.write(&config(&[listener("web", port, &[backend.address])]));
        sidecar.wait_ready();
        assert_eq!(sidecar.terminate(), Some(0));
    }
    let sidecar = Sidecar::start(&state_dir);
    sidecar.wait_ready();
    assert_eq!(get(([127, 0, 0, 1], port).into(), "/"), Some((200, "one".to_owned())));
}

#[test]
fn check_and_wrong_usage_tell_by_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sidecar.v1.yaml");
    let check = || support::run(&["check", "--config", directory.path().to_str().unwrap()]);
    std::fs::write(&path, config(&[listener("web", 8080, &["10.0.0.1:80".parse().unwrap()])])).unwrap();
    let (code, out, err) = check();
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.starts_with("OK: ") && out.contains("http listener web on 127.0.0.1:8080"), "{out}");

    std::fs::write(&path, "http:\n- {name: a}\n").unwrap();
    let (code, out, err) = check();
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert_eq!(err.lines().count(), 2, "{err}");
    assert!(err.contains("sidecar.v1.yaml:2: http[0].port: it is missing; add port"), "{err}");

    assert_eq!(support::run(&["run"]).0, Some(2));
    assert_eq!(support::run(&["completions", "bash"]).0, Some(0));
}

#[test]
fn check_tells_of_every_file_that_tls_cannot_use() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sidecar.yaml");
    let text = "http:
- name: web
  port: 8443
  tls:
    certificateFile: /nowhere/tls.crt
    keyFile: /nowhere/tls.key
  sites:
  - name: main
    backends: [{addresses: [\"10.0.0.1:443\"]}]
    tls: {}
";
    std::fs::write(&path, text).unwrap();
    let made = |name: &str| format!("{}/tests/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    let check = |cas: &str| {
        support::run_with(
            &["check", "--config", path.to_str().unwrap()],
            &[("SSL_CERT_FILE", cas), ("SSL_CERT_DIR", "/nowhere")],
        )
    };
    let (code, out, err) = check("/nowhere/cas.pem");
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert_eq!(err.lines().count(), 2, "{err}");
    assert!(
        err.contains("sidecar.yaml:5: http[0].tls.certificateFile: /nowhere/tls.crt cannot be read: "),
        "{err}"
    );
    assert!(
        err.contains("http[0].sites[0].tls.caFile: this system trusts no CA; name a file with CAs"),
        "{err}"
    );
    let (code, _, err) = check(&made("encrypted.crt"));
    assert_eq!((code, err.lines().count()), (Some(1), 1), "{err}");

    let good = text.replace("/nowhere/tls", &made("p256"));
    std::fs::write(&path, good).unwrap();
    let (code, out, err) = check(&made("encrypted.crt"));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("https listener web on 127.0.0.1:8443"), "{out}");
}
