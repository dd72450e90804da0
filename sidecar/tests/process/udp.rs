//! UDP listeners of a sidecar process: while its configuration changes, and while it has no descriptors.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{Backend, Sidecar, free_port, get, retry};

const PATIENCE: Duration = Duration::from_secs(10);

/// A server that sends back what it gets, for as long as the test runs.
fn echo() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
    address
}

fn client(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", port)).unwrap();
    socket
}

/// Whether the answer comes in this time.
fn asks(client: &UdpSocket, text: &str, patience: Duration) -> bool {
    client.set_read_timeout(Some(patience)).unwrap();
    let mut buffer = [0; 64];
    client.send(text.as_bytes()).is_ok()
        && client.recv(&mut buffer).is_ok_and(|length| &buffer[..length] == text.as_bytes())
}

fn write(sidecar: &Sidecar, generation: u64, listener: &Value) {
    let policy = json!({"namespace": "a", "name": "b", "generation": generation});
    sidecar.write(&json!({"policy": policy, "udp": [listener]}).to_string());
    let expected = format!("sidecar_config_generation {generation}\n");
    retry("the change", || get(sidecar.admin, "/metrics")?.1.contains(&expected).then_some(()));
}

#[test]
fn a_change_loses_no_datagram_of_clients_that_come_and_go() {
    let (one, two) = (echo(), echo());
    // There is no telling over UDP whether anybody is there.
    let checked = Backend::start("checked");
    let port = free_port();
    let before = json!({"name": "dns", "port": port, "backends": [{"addresses": [one, two]}]});
    let sidecar = Sidecar::start(&[]);
    write(&sidecar, 1, &before);
    sidecar.wait_ready();

    let (asked, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let load = {
        let (asked, stop) = (Arc::clone(&asked), Arc::clone(&stop));
        thread::spawn(move || {
            let (kept, mut lost) = (client(port), Vec::new());
            while !stop.load(Ordering::Relaxed) {
                let number = asked.fetch_add(1, Ordering::Relaxed);
                // One client stays, and the others are new.
                if !asks(&kept, &format!("kept {number}"), PATIENCE) || !asks(&client(port), "new", PATIENCE)
                {
                    lost.push(number);
                }
            }
            lost
        })
    };
    for (generation, (field, value)) in (2..).zip([
        ("balance", json!("RoundRobin")),
        ("balance", json!("TwoChoices")),
        ("balance", json!("Random")),
        ("balance", json!("SourceHash")),
        ("backends", json!([{"addresses": [one]}])),
        ("backends", json!([{"addresses": [two]}])),
        ("backends", json!([{"addresses": [one], "weight": 0}, {"addresses": [two], "weight": 7}])),
        ("trafficDistribution", json!("None")),
        ("health", json!({"port": checked.address.port(), "interval": "100ms"})),
        ("sessionTimeout", json!("1s")),
        ("maxSessions", json!(8)),
    ]) {
        let mut listener = before.clone();
        listener[field] = value;
        write(&sidecar, generation, &listener);
        let seen = asked.load(Ordering::Relaxed);
        retry("more questions", || (asked.load(Ordering::Relaxed) > seen + 20).then_some(()));
    }
    stop.store(true, Ordering::Relaxed);
    assert_eq!(load.join().unwrap(), Vec::<usize>::new());
}

#[test]
fn another_listener_takes_the_address_over_while_sessions_are_in_use() {
    let backend = echo();
    let port = free_port();
    let listener = |name: &str, address: &str| json!({"name": name, "address": address, "port": port, "backends": [{"addresses": [backend]}]});
    let sidecar = Sidecar::start(&[]);
    write(&sidecar, 1, &listener("one", "127.0.0.1"));
    sidecar.wait_ready();
    let client = client(port);
    assert!(asks(&client, "one", PATIENCE));
    for (generation, name, address) in [(2, "two", "127.0.0.1"), (3, "two", "0.0.0.0")] {
        write(&sidecar, generation, &listener(name, address));
        assert!(asks(&client, name, PATIENCE));
    }
}

#[test]
fn without_descriptors_new_sessions_wait_and_all_is_well_as_soon_as_there_are_some() {
    let backend = echo();
    let port = free_port();
    let listener =
        json!({"name": "dns", "port": port, "sessionTimeout": "2s", "backends": [{"addresses": [backend]}]});
    let mut sidecar = Sidecar::start(&["--threads", "1"]);
    write(&sidecar, 1, &listener);
    sidecar.wait_ready();
    let id = sidecar.id().to_string();
    let open = || fs::read_dir(format!("/proc/{id}/fd")).unwrap().count();
    let limit = |soft: usize| {
        let status = Command::new("prlimit").args(["--pid", &id, &format!("--nofile={soft}:")]).status();
        assert!(status.unwrap().success());
    };
    assert!(asks(&client(port), "before", PATIENCE));
    let before = open();
    // The limit is one of numbers, below which there is some room where others lie above.
    limit(before + 4);
    let mut answered = 0;
    for _ in 0..100 {
        answered += usize::from(asks(&client(port), "without", Duration::from_millis(5)));
    }
    assert!(answered < 100, "the limit was not met");
    limit(4096);
    let clients: Vec<_> = (0..50).map(|_| client(port)).collect();
    assert!(clients.iter().all(|client| asks(client, "after", PATIENCE)));
    let (_, page) = get(sidecar.admin, "/metrics").unwrap();
    let dropped = page.lines().find(|line| line.contains("cause=\"NoSocket\"")).unwrap();
    assert!(!dropped.ends_with(" 0"), "{dropped}");
    retry("descriptors are given back", || (open() <= before).then_some(()));
    assert_eq!(sidecar.terminate(), Some(0));
}
