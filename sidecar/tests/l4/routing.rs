//! Backends by the server name that clients ask for, whose TLS goes through unopened.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, crypto::ring::default_provider, pki_types::ServerName,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::task::AbortOnDropHandle;

use crate::support::{Backend, Sidecar, in_time, refusing, set, until};

/// What a client of this name begins with; more protocols make it longer.
fn hello(name: &str, protocols: usize) -> Vec<u8> {
    let mut config = ClientConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols =
        (0..protocols).map(|number| format!("protocol-{number:0>50}").into_bytes()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = ClientConnection::new(config.into(), name).unwrap();
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// What a client of TLS 1.0 begins with: it names no signature algorithms.
fn old_hello(name: &[u8]) -> Vec<u8> {
    let prefixed = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
    let name = [&[0][..], &prefixed(&prefixed(&[&[0][..], &prefixed(name)].concat()))].concat();
    let body =
        [&[3, 1][..], &[7; 32], &[0], &prefixed(&[0, 0x2f]), &[1, 0], &prefixed(&[&[0][..], &name].concat())];
    let body = body.concat();
    let message = [&[1, 0][..], &prefixed(&body)].concat();
    [&[0x16, 3, 1][..], &prefixed(&message)].concat()
}

/// The same message in records of a few bytes.
fn cut(hello: &[u8]) -> Vec<u8> {
    let records = hello[5..].chunks(7);
    records.flat_map(|piece| [&hello[..3], &(piece.len() as u16).to_be_bytes(), piece].concat()).collect()
}

fn routes(routes: &[(&str, &[SocketAddr])]) -> Value {
    let route = |(index, (name, addresses)): (usize, &(&str, &[SocketAddr]))| json!({"name": format!("r{index}"), "serverNames": [name], "backends": [{"addresses": addresses}]});
    json!({"routes": routes.iter().enumerate().map(route).collect::<Vec<_>>()})
}

/// Which backend a client reaches, which must hear all that the client said.
async fn reaches(sidecar: &Sidecar, said: &[u8]) -> Option<u8> {
    let mut stream = sidecar.connect().await;
    stream.write_all(said).await.unwrap();
    let name = in_time("a greeting", stream.read_u8()).await.ok()?;
    let mut back = vec![0; said.len()];
    in_time("an echo", stream.read_exact(&mut back)).await.unwrap();
    assert!(back == said, "the server hears what the client said");
    Some(name)
}

#[tokio::test]
async fn a_client_reaches_the_backends_of_the_name_that_it_asks_for() {
    let (a, b, rest) = (Backend::start(b'a').await, Backend::start(b'b').await, Backend::start(b'r').await);
    let mut fields = routes(&[("a.example.com", &[a.address]), ("*.example.com", &[b.address])]);
    fields["backends"] = json!([{"addresses": [rest.address]}]);
    let sidecar = Sidecar::start(fields, &[rest.address]).await;
    for (said, name) in [
        (hello("a.example.com", 1), b'a'),
        (hello("A.Example.COM", 1), b'a'),
        (hello("b.example.com", 1), b'b'),
        (cut(&hello("a.example.com", 1)), b'a'),
        (hello("a.example.com", 100), b'a'),
        (hello("example.com", 1), b'r'),
        (hello("127.0.0.1", 1), b'r'),
        (b"plain text".to_vec(), b'r'),
        (old_hello(b"a.example.com"), b'r'),
        (old_hello(b"no name at all"), b'r'),
        (cut(&old_hello(b"a.example.com")), b'r'),
    ] {
        assert_eq!(reaches(&sidecar, &said).await, Some(name));
    }
}

#[tokio::test]
async fn a_client_that_no_route_is_for_is_closed_where_there_are_no_other_backends() {
    let a = Backend::start(b'a').await;
    let sidecar = Sidecar::start(routes(&[("a.example.com", &[a.address])]), &[]).await;
    assert_eq!(reaches(&sidecar, &hello("a.example.com", 1)).await, Some(b'a'));
    for said in [hello("b.example.com", 1), b"plain text".to_vec()] {
        assert_eq!(reaches(&sidecar, &said).await, None);
    }
    until("it is counted", || {
        sidecar.metric("sidecar_tcp_failed_total{listener=\"db\",cause=\"NoRoute\"") > 1.5
    })
    .await;
}

#[tokio::test]
async fn a_client_that_says_too_much_or_nonsense_within_tls_is_closed() {
    let a = Backend::start(b'a').await;
    let sidecar = Sidecar::start(routes(&[("a.example.com", &[a.address])]), &[a.address]).await;
    let long = hello("a.example.com", 300);
    assert!(long.len() > 16 * 1024);
    for said in [long, vec![0x16; 100]] {
        let mut stream = sidecar.connect().await;
        // It may be closed before it has said all that.
        let _ = stream.write_all(&said).await;
        assert!(in_time("the end", stream.read_u8()).await.is_err());
    }
    until("it is counted", || {
        sidecar.metric("sidecar_tcp_failed_total{listener=\"db\",cause=\"Handshake\"") > 1.5
    })
    .await;
}

#[tokio::test]
async fn a_dead_backend_of_a_route_costs_its_clients_nothing_and_other_routes_never() {
    let (a, b) = (Backend::start(b'a').await, Backend::start(b'b').await);
    let dead = refusing().await;
    let leaving = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let left = leaving.local_addr().unwrap();
    let leaves = tokio::spawn(async move { while leaving.accept().await.is_ok() {} });
    let fields = routes(&[("a.example.com", &[dead, left, a.address]), ("b.example.com", &[b.address])]);
    let sidecar = Sidecar::start(fields, &[]).await;
    for _ in 0..5 {
        assert_eq!(reaches(&sidecar, &hello("a.example.com", 1)).await, Some(b'a'));
        assert_eq!(reaches(&sidecar, &hello("b.example.com", 1)).await, Some(b'b'));
    }
    leaves.abort();
}

/// A server that hears a client and leaves it without a word; how many it has heard is counted.
async fn leaving(heard: &Arc<AtomicUsize>) -> (SocketAddr, AbortOnDropHandle<()>) {
    let (socket, heard) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Arc::clone(heard));
    let address = socket.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            // A check says nothing.
            if stream.read(&mut vec![0; 32 * 1024]).await.is_ok_and(|count| count > 0) {
                heard.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    (address, AbortOnDropHandle::new(task))
}

#[tokio::test]
async fn what_a_server_may_have_acted_on_no_other_one_hears() {
    let first = hello("a.example.com", 1);
    for (said, expected) in
        [(b"INCR orders\r\n".to_vec(), 1), ([&first[..], b"\x17\x03\x03\0\x05early"].concat(), 1), (first, 2)]
    {
        let heard = Arc::<AtomicUsize>::default();
        let ((a, _a), (b, _b)) = (leaving(&heard).await, leaving(&heard).await);
        let mut fields = routes(&[("a.example.com", &[a, b])]);
        fields["backends"] = json!([{"addresses": [a, b]}]);
        fields["connectTries"] = json!(2);
        let sidecar = Sidecar::start(fields, &[a, b]).await;
        let mut stream = sidecar.connect().await;
        stream.write_all(&said).await.unwrap();
        assert!(in_time("the end", stream.read_u8()).await.is_err());
        assert_eq!(heard.load(Ordering::Relaxed), expected, "{said:?}");
    }
}

#[tokio::test]
async fn other_routes_serve_new_clients_and_end_no_connection() {
    let (a, b) = (Backend::start(b'a').await, Backend::start(b'b').await);
    let sidecar = Sidecar::start(routes(&[("a.example.com", &[a.address])]), &[]).await;
    let said = hello("a.example.com", 1);
    let mut open = sidecar.connect().await;
    open.write_all(&said).await.unwrap();
    in_time("a greeting", open.read_exact(&mut vec![0; 1 + said.len()])).await.unwrap();
    sidecar.update(routes(&[("b.example.com", &[b.address])]));
    let served = async { while reaches(&sidecar, &hello("b.example.com", 1)).await != Some(b'b') {} };
    in_time("the new route", served).await;
    assert_eq!(reaches(&sidecar, &said).await, None);
    open.write_u8(1).await.unwrap();
    assert_eq!(in_time("an echo", open.read_u8()).await.unwrap(), 1);
}

#[tokio::test]
async fn a_change_takes_over_as_a_whole_once_its_backends_are_known() {
    let (a, b, rest) = (Backend::start(b'a').await, Backend::start(b'b').await, Backend::start(b'r').await);
    let fields = |each: &[(&str, &[SocketAddr])]| {
        let mut fields = routes(each);
        fields["backends"] = json!([{"addresses": [rest.address]}]);
        fields
    };
    let sidecar = Sidecar::start(fields(&[("a.example.com", &[a.address])]), &[rest.address]).await;
    let [of_a, of_b, of_c] = ["a", "b", "c"].map(|name| hello(&format!("{name}.example.com"), 1));
    assert_eq!(reaches(&sidecar, &of_a).await, Some(b'a'));
    assert_eq!(reaches(&sidecar, &of_b).await, Some(b'r'));

    // The first route has other names and other backends, and the second one is new.
    let next = fields(&[("c.example.com", &[b.address]), ("b.example.com", &[])]);
    let answers = sidecar.update_unanswered(next, "r1");
    for _ in 0..3 {
        assert_eq!(reaches(&sidecar, &of_a).await, Some(b'a'));
        assert_eq!(reaches(&sidecar, &of_b).await, Some(b'r'), "it has a backend at every moment");
        assert_eq!(reaches(&sidecar, &of_c).await, Some(b'r'));
    }
    answers.send_replace(set(&[b.address]));
    in_time("the change", async {
        while reaches(&sidecar, &of_b).await != Some(b'b') {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(reaches(&sidecar, &of_c).await, Some(b'b'));
    assert_eq!(reaches(&sidecar, &of_a).await, Some(b'r'));
}

#[tokio::test]
async fn a_change_that_waits_is_overtaken_by_the_next_one() {
    let (a, b) = (Backend::start(b'a').await, Backend::start(b'b').await);
    let sidecar = Sidecar::start(routes(&[("x.example.com", &[a.address])]), &[]).await;
    let said = hello("x.example.com", 1);
    let answers = sidecar.update_unanswered(routes(&[("gone.example.com", &[])]), "r0");
    sidecar.update(routes(&[("x.example.com", &[b.address])]));
    answers.send_replace(set(&[a.address]));
    in_time("the change", async {
        while reaches(&sidecar, &said).await != Some(b'b') {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for _ in 0..3 {
        assert_eq!(reaches(&sidecar, &said).await, Some(b'b'));
    }
}
