//! Every kind of change to TCP and UDP listeners, while connections and sessions stay open and new ones are opened.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use crds::config::{TcpListener as Tcp, UdpListener as Udp};
use serde_json::{Value, json};

use crate::{
    reload::{Subject, fields_of},
    support::{free_port, retry},
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
    let changes: Vec<(&str, Value)> = vec![
        ("backends", json!([{"addresses": [two]}])),
        ("backends", json!([{"addresses": [one], "weight": 0}, {"addresses": [two], "weight": 7}])),
        ("balance", json!("RoundRobin")),
        ("balance", json!("TwoChoices")),
        ("balance", json!("Random")),
        ("balance", json!("SourceHash")),
        ("slowStart", json!("10s")),
        ("trafficDistribution", json!("None")),
        ("health", json!({"interval": "100ms"})),
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
        ("tls", json!({"selfSigned": {"hosts": ["localhost"]}})),
        (
            "tls",
            json!({"selfSigned": {"hosts": ["localhost"]}, "startTls": "Postgres", "plainText": "Allow"}),
        ),
        ("backendTls", json!({"insecureSkipVerify": true, "startTls": "Postgres"})),
        ("backendTls", json!({"insecureSkipVerify": true})),
    ];
    for (round, (field, value)) in (1u8..).zip(changes) {
        subject.config = before.clone();
        subject.config["tcp"][0][field] = value;
        changed.insert(field.to_owned());
        subject.write();
        for stream in &open {
            assert!(talk(stream, round).unwrap_or(false), "{field}: an open connection has ended");
        }
        // With these, single bytes are not what is spoken with new clients, or by these backends.
        if !["protocol", "proxyProtocol", "tls", "backendTls"].contains(&field) {
            for _ in 0..4 {
                assert!(talk(&connect(address), round).unwrap_or(false), "{field}: no new connection");
            }
        }
    }
    assert_eq!(changed, fields_of::<Tcp>(&["name", "address", "port"]), "each field has a change");
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
        ("sessionTimeout", json!("10s")),
        ("maxSessions", json!(10)),
        ("accessLog", json!({"format": "Text"})),
    ];
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
