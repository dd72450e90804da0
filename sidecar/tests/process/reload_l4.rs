//! Every kind of change to TCP and UDP listeners, while connections and sessions stay open and new ones are opened.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use crds::config::{
    PostgresCheck, RedisCheck, ServerCheck, TcpListener as Tcp, UdpCheck, UdpListener as Udp,
};
use serde_json::{Value, json};

use crate::{
    reload::{Subject, fields_of},
    support::{Sidecar, free_port, get, retry},
};

const PATIENCE: Duration = Duration::from_secs(10);

/// Gives every byte back.
fn echo_tcp() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = stream.unwrap();
            let mut writer = reader.try_clone().unwrap();
            thread::spawn(move || std::io::copy(&mut reader, &mut writer));
        }
    });
    address
}

/// Gives every datagram back.
fn echo_udp() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..count], from);
        }
    });
    address
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn talk(mut stream: &TcpStream, byte: u8) -> std::io::Result<bool> {
    stream.write_all(&[byte])?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    Ok(answer == [byte])
}

/// A datagram may be lost, and is sent again; one that comes back is the one that was sent.
fn exchange(socket: &UdpSocket, byte: u8) {
    retry("an answer", || {
        socket.send(&[byte]).ok()?;
        let mut answer = [0; 16];
        socket.recv(&mut answer).ok().filter(|count| answer[..*count] == [byte])
    });
}

/// The fields of checks that have a change, and those of each way to ask.
fn changed_checks(changes: &[(&str, Value)]) -> BTreeMap<String, BTreeSet<String>> {
    let mut fields = BTreeMap::<String, BTreeSet<String>>::new();
    for check in changes.iter().filter_map(|(field, value)| value.as_object().filter(|_| *field == "health"))
    {
        fields.entry("health".to_owned()).or_default().extend(check.keys().cloned());
        for (way, settings) in check.iter().filter_map(|(way, value)| Some((way, value.as_object()?))) {
            fields.entry(way.clone()).or_default().extend(settings.keys().cloned());
        }
    }
    fields
}

#[test]
fn no_kind_of_change_to_a_tcp_listener_ends_a_connection_or_refuses_one() {
    let (one, two) = (echo_tcp(), echo_tcp());
    let port = free_port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let listener = json!({"name": "db", "port": port, "backends": [{"addresses": [one, two]}]});
    let mut subject = Subject::with(json!({"tcp": [listener]}));
    let before = subject.config.clone();
    let open: Vec<TcpStream> = (0..4).map(|_| connect(address)).collect();
    open.iter().for_each(|stream| assert!(talk(stream, 0).unwrap()));
    let mut changed = BTreeSet::new();
    let password = tempfile::NamedTempFile::new().unwrap();
    fs::write(&password, "secret\n").unwrap();
    let secret = password.path();
    let changes: Vec<(&str, Value)> = vec![
        ("backends", json!([{"addresses": [two]}])),
        ("backends", json!([{"addresses": [one], "weight": 0}, {"addresses": [two], "weight": 7}])),
        ("balance", json!("RoundRobin")),
        ("balance", json!("TwoChoices")),
        ("balance", json!("Random")),
        ("balance", json!("SourceHash")),
        ("slowStart", json!("10s")),
        ("trafficDistribution", json!("None")),
        ("health", json!({"interval": "100ms", "jitterPercent": 1, "timeout": "1s", "panic": true})),
        ("health", json!({"port": two.port(), "healthyThreshold": 2, "unhealthyThreshold": 2})),
        ("health", json!({"http": {"path": "/", "host": "a", "expectedStatuses": ["200-299"]}})),
        ("health", json!({"postgres": {"user": "a", "database": "b", "passwordFile": secret}})),
        ("health", json!({"postgres": {"role": "Primary"}, "tls": {"insecureSkipVerify": true}})),
        ("health", json!({"redis": {"user": "a", "passwordFile": secret, "role": "Master"}})),
        ("outlierDetection", json!({"consecutiveErrors": 1})),
        ("backendLimits", json!({"maxConnections": 100})),
        ("timeouts", json!({"connect": "1s", "idle": "10m"})),
        ("connectTries", json!(1)),
        ("timeouts", json!({"user": "1m"})),
        ("keepAlive", json!({"after": "10s", "interval": "1s", "probes": 9})),
        ("onBackendDown", json!("Close")),
        ("rebalance", json!({"connectionsPerSecond": 10, "quiet": "1h"})),
        ("accessLog", json!({"format": "Text"})),
        ("proxyProtocol", json!({"accept": true})),
        ("protocol", json!("Postgres")),
        (
            "routes",
            json!([{"name": "a", "serverNames": ["a.example.com"], "backends": [{"addresses": [two]}]}]),
        ),
        ("tls", json!({"selfSigned": {"hosts": ["localhost"]}})),
        (
            "tls",
            json!({"selfSigned": {"hosts": ["localhost"]}, "startTls": "Postgres", "plainText": "Allow"}),
        ),
        ("backendTls", json!({"insecureSkipVerify": true, "startTls": "Postgres"})),
        ("backendTls", json!({"insecureSkipVerify": true})),
    ];
    let checked = changed_checks(&changes);
    assert_eq!(checked["health"], fields_of::<ServerCheck>(&["udp"]));
    assert_eq!(checked["postgres"], fields_of::<PostgresCheck>(&[]));
    assert_eq!(checked["redis"], fields_of::<RedisCheck>(&[]));
    for (round, (field, value)) in (1u8..).zip(changes) {
        // Nothing goes to servers whose role is asked for before they have told it, and these never do.
        let by_role = ["postgres", "redis"].iter().any(|words| value[words]["role"].is_string());
        subject.config = before.clone();
        subject.config["tcp"][0][field] = value;
        changed.insert(field.to_owned());
        subject.write();
        for stream in &open {
            assert!(talk(stream, round).unwrap_or(false), "{field}: an open connection has ended");
        }
        // With these, single bytes are not what is spoken with new clients, or by these backends.
        if !by_role && !["protocol", "routes", "proxyProtocol", "tls", "backendTls"].contains(&field) {
            for _ in 0..4 {
                assert!(talk(&connect(address), round).unwrap_or(false), "{field}: no new connection");
            }
        }
    }
    assert_eq!(changed, fields_of::<Tcp>(&["name", "address", "port"]), "each field has a change");
}

#[test]
fn a_check_whose_password_is_not_there_changes_nothing_until_it_is() {
    let (backend, port) = (echo_tcp(), free_port());
    let secrets = tempfile::tempdir().unwrap();
    let secret = secrets.path().join("password");
    let config = |health: Value| {
        let listener =
            json!({"name": "db", "port": port, "backends": [{"addresses": [backend]}], "health": health});
        json!({"tcp": [listener]}).to_string()
    };
    let sidecar = Sidecar::start(&[]);
    sidecar.write(&config(json!({})));
    sidecar.wait_ready();
    let shows = |line: &str| {
        retry(line, || get(sidecar.admin, "/metrics")?.1.contains(&format!("{line}\n")).then_some(()));
    };
    sidecar.write(&config(json!({"redis": {"passwordFile": secret}})));
    shows("sidecar_config_last_reload_success 0");
    assert!(talk(&connect(([127, 0, 0, 1], port).into()), 1).unwrap());
    fs::write(&secret, "secret\n").unwrap();
    shows("sidecar_config_last_reload_success 1");
}

#[test]
fn a_check_within_tls_counts_as_it_is_configured_now() {
    let (plain, inner, outer) = (echo_tcp(), free_port(), free_port());
    let within_tls = SocketAddr::from(([127, 0, 0, 1], inner));
    let server = json!({
        "name": "server", "port": inner, "backends": [{"addresses": [plain]}],
        "tls": {"selfSigned": {"hosts": ["localhost"]}, "minVersion": "TLSv1.3"},
    });
    let sidecar = Sidecar::start(&[]);
    for (tls, live) in [
        (json!({"insecureSkipVerify": true}), 1),
        (json!({"insecureSkipVerify": true, "maxVersion": "TLSv1.2"}), 0),
        (json!({"insecureSkipVerify": true, "minVersion": "TLSv1.3"}), 1),
    ] {
        let db = json!({
            "name": "db", "port": outer, "backends": [{"addresses": [plain, within_tls]}],
            "health": {"tls": tls, "interval": "100ms", "timeout": "5s", "panic": false},
        });
        sidecar.write(&json!({"tcp": [server, db]}).to_string());
        retry("the checks", || {
            let (_, metrics) = get(sidecar.admin, "/metrics")?;
            let is = |backend: SocketAddr, up: u8| {
                let series =
                    format!("sidecar_tcp_backend_up{{listener=\"db\",backend=\"{backend}\"}} {up}.0\n");
                metrics.contains(&series)
            };
            (is(plain, 0) && is(within_tls, live)).then_some(())
        });
    }
}

#[test]
fn no_kind_of_change_to_a_udp_listener_ends_a_session_or_refuses_one() {
    let (one, two) = (echo_udp(), echo_udp());
    let port = free_port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let listener = json!({"name": "names", "port": port, "backends": [{"addresses": [one, two]}]});
    let mut subject = Subject::with(json!({"udp": [listener]}));
    let before = subject.config.clone();
    let client = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket
    };
    let open = client();
    exchange(&open, 0);
    let mut changed = BTreeSet::new();
    let changes: Vec<(&str, Value)> = vec![
        ("backends", json!([{"addresses": [two]}])),
        ("balance", json!("RoundRobin")),
        ("balance", json!("SourceHash")),
        ("trafficDistribution", json!("None")),
        ("health", json!({"port": echo_tcp().port(), "interval": "100ms"})),
        ("health", json!({"udp": {"send": "a", "expect": "a"}})),
        ("health", json!({"udp": {"sendHex": "00", "expectHex": "00"}})),
        ("health", json!({"udp": {"send": "a", "expect": "b"}})),
        ("sessionTimeout", json!("10s")),
        ("maxSessions", json!(10)),
        ("accessLog", json!({"format": "Text"})),
    ];
    assert_eq!(changed_checks(&changes)["udp"], fields_of::<UdpCheck>(&[]));
    for (round, (field, value)) in (1u8..).zip(changes) {
        subject.config = before.clone();
        subject.config["udp"][0][field] = value;
        changed.insert(field.to_owned());
        subject.write();
        exchange(&open, round);
        exchange(&client(), round);
    }
    assert_eq!(changed, fields_of::<Udp>(&["name", "address", "port"]), "each field has a change");
}
