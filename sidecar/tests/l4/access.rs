//! One line for each connection, however it ends.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{Backend, Sidecar, in_time, refusing, until};

async fn says(client: &mut TcpStream, words: &[u8]) {
    client.write_all(words).await.unwrap();
    in_time("an echo", client.read_exact(&mut vec![0; words.len()])).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_ends_as_both_sides_want_is_told_with_what_it_was() {
    let backend = Backend::start(b'a').await;
    let sidecar = Sidecar::start(json!({"accessLog": {}}), &[backend.address]).await;
    let (mut client, _) = sidecar.greeted().await;
    says(&mut client, b"nothing of this is told").await;
    assert_eq!(sidecar.output.text(), "", "it has not ended");
    let own = client.local_addr().unwrap().to_string();
    drop(client);
    let line = &sidecar.output.objects(1).await[0];
    let seconds = |field: &str| line[field].as_f64().unwrap();
    assert!(seconds("connectSeconds") <= seconds("durationSeconds"));
    let names: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = vec![
        "time",
        "listener",
        "client",
        "host",
        "receivedBytes",
        "sentBytes",
        "durationSeconds",
        "connectSeconds",
        "site",
        "backend",
        "tries",
        "cause",
        "kind",
    ];
    expected.sort_unstable();
    assert_eq!(names, expected);
    for (field, expected) in [
        ("listener", json!("db")),
        ("client", json!(own)),
        ("receivedBytes", json!(23)),
        ("sentBytes", json!(24)),
        ("site", json!("all")),
        ("backend", json!(backend.address.to_string())),
        ("tries", json!(1)),
        ("cause", Value::Null),
        ("kind", json!("Connection")),
    ] {
        assert_eq!(line[field], expected, "{field}");
    }
    assert!(!sidecar.output.text().contains("nothing of this"));
}

#[tokio::test]
async fn each_way_to_end_has_its_cause() {
    let (dead, checked) = (refusing().await, Backend::start(b'x').await);
    // Only connecting shows that nobody is there.
    let fields = json!({"accessLog": {"errorsOnly": true}, "connectTries": 1, "health": {"port": checked.address.port()}});
    let sidecar = Sidecar::start(fields, &[dead]).await;
    drop(sidecar.connect().await);
    let line = &sidecar.output.objects(1).await[0];
    assert_eq!((&line["cause"], &line["backend"]), (&json!("Connect"), &json!(dead.to_string())));
    assert!(line["tries"].as_u64().unwrap() >= 1 && line["connectSeconds"].is_null(), "{line}");

    let sidecar = Sidecar::start(json!({"accessLog": {}}), &[]).await;
    drop(sidecar.connect().await);
    let line = &sidecar.output.objects(1).await[0];
    assert_eq!(
        (&line["cause"], &line["backend"], &line["tries"]),
        (&json!("NoBackend"), &Value::Null, &json!(0))
    );

    let backend = Backend::start(b'a').await;
    let fields = json!({"accessLog": {}, "timeouts": {"idle": "200ms"}});
    let sidecar = Sidecar::start(fields, &[backend.address]).await;
    let _silent = sidecar.greeted().await;
    assert_eq!(sidecar.output.objects(1).await[0]["cause"], "Idle");

    let sidecar =
        Sidecar::start(json!({"accessLog": {}, "proxyProtocol": {"accept": true}}), &[backend.address]).await;
    let mut stranger = sidecar.connect().await;
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let line = &sidecar.output.objects(1).await[0];
    let own = stranger.local_addr().unwrap().to_string();
    assert_eq!((&line["cause"], &line["client"]), (&json!("Handshake"), &json!(own)));
}

#[tokio::test]
async fn a_client_is_who_the_proxy_in_front_says() {
    let backend = Backend::start(b'a').await;
    let fields = json!({"accessLog": {"format": "Text"}, "proxyProtocol": {"accept": true}});
    let sidecar = Sidecar::start(fields, &[backend.address]).await;
    let mut client = sidecar.connect().await;
    client.write_all(b"PROXY TCP6 fd00::1 fd00::2 4000 5432\r\n").await.unwrap();
    assert_eq!(in_time("a greeting", client.read_u8()).await.unwrap(), b'a');
    drop(client);
    let line = &sidecar.output.lines(1).await[0];
    assert!(
        line.contains(" client=[fd00::1]:4000 host=- ") && line.ends_with(" cause=- kind=Connection"),
        "{line}"
    );
}

#[tokio::test]
async fn what_is_cut_off_is_told_with_the_bytes_that_it_had() {
    let backend = Backend::start(b'a').await;
    let sidecar = Sidecar::start(json!({"accessLog": {}}), &[backend.address]).await;
    let (mut client, _) = sidecar.greeted().await;
    says(&mut client, b"1234").await;
    let output = sidecar.output.clone();
    in_time("the drain", sidecar.drain(Duration::from_millis(100))).await;
    let line = &output.objects(1).await[0];
    assert_eq!(
        (&line["cause"], &line["receivedBytes"], &line["sentBytes"]),
        (&json!("CutOff"), &json!(4), &json!(5))
    );
}

#[tokio::test]
async fn lines_begin_and_stop_with_the_configuration() {
    let backend = Backend::start(b'a').await;
    let sidecar = Sidecar::start(json!({}), &[backend.address]).await;
    let over = || sidecar.listener.connections() == 0;
    drop(sidecar.greeted().await);
    until("its end", over).await;
    sidecar.update(json!({"accessLog": {}}));
    drop(sidecar.greeted().await);
    // Switched off, while the line waits for others.
    until("its end", over).await;
    sidecar.update(json!({}));
    drop(sidecar.greeted().await);
    until("its end", over).await;
    assert_eq!(sidecar.output.objects(1).await.len(), 1);
}

/// Failures are told, however few of the others are.
#[tokio::test]
async fn of_many_that_end_well_some_are_told_and_of_those_that_do_not_all() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = socket.local_addr().unwrap();
    let fields = json!({"accessLog": {"sampleOneIn": 1_000_000}, "timeouts": {"idle": "200ms"}});
    let good = Backend::on(socket, b'a');
    let sidecar = Sidecar::start(fields, &[backend]).await;
    for _ in 0..20 {
        drop(sidecar.greeted().await);
    }
    let _silent = sidecar.greeted().await;
    let lines = sidecar.output.objects(1).await;
    assert_eq!((lines.len(), &lines[0]["cause"]), (1, &json!("Idle")));
    drop(good);
}
