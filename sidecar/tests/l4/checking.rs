//! Which backends get connections, by what they answer to the checks.

use std::{
    io::Write as _,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use crds::units::Address;
use serde_json::json;
use sidecar::{
    net::{
        Socket, Target,
        tls::{Beginning, Client, Peer, Server},
    },
    probe::{Failure, Postgres, Probe},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::task::AbortOnDropHandle;

use crate::support::{DEADLINE, Sidecar, in_time};

/// A server that speaks as Redis does, and tells its name to who asks for it.
struct Redis {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _accepts: AbortOnDropHandle<()>,
}

#[derive(Clone, Copy)]
struct State {
    role: &'static str,
    loads: bool,
}

impl Redis {
    async fn start(name: u8, role: &'static str) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { role, loads: false }));
        let seen = Arc::clone(&state);
        let accepts = tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                tokio::spawn(serve(stream, name, Arc::clone(&seen)));
            }
        });
        Self { address, state, _accepts: AbortOnDropHandle::new(accepts) }
    }

    fn becomes(&self, role: &'static str) {
        self.state.lock().unwrap().role = role;
    }

    fn loads(&self, loads: bool) {
        self.state.lock().unwrap().loads = loads;
    }
}

async fn serve(mut stream: TcpStream, name: u8, state: Arc<Mutex<State>>) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let State { role, loads } = *state.lock().unwrap();
        let said = &buffer[..count];
        let answer = match said {
            b"WHO" => vec![name],
            _ if loads => b"-LOADING Redis is loading the dataset in memory\r\n".to_vec(),
            _ if said.ends_with(b"PING\r\n") => b"+PONG\r\n".to_vec(),
            _ if said.ends_with(b"ROLE\r\n") => format!("*1\r\n${}\r\n{role}\r\n", role.len()).into_bytes(),
            _ => b"-ERR unknown command\r\n".to_vec(),
        };
        let _ = stream.write_all(&answer).await;
    }
}

/// Who serves a new connection; none where nobody does.
async fn who(sidecar: &Sidecar) -> Option<u8> {
    let mut stream = sidecar.connect().await;
    stream.write_all(b"WHO").await.ok()?;
    in_time("a name, or the end", stream.read_u8()).await.ok()
}

/// Waits until this is who serves, ten times in a row.
async fn settles(sidecar: &Sidecar, name: Option<u8>) {
    let settled = async {
        let mut row = 0;
        while row < 10 {
            row = if who(sidecar).await == name { row + 1 } else { 0 };
        }
    };
    in_time("the right one serves", settled).await;
}

#[tokio::test]
async fn connections_follow_the_role_and_go_nowhere_where_nobody_has_it() {
    let (a, b) = (Redis::start(b'a', "master").await, Redis::start(b'b', "slave").await);
    let fields = |role| json!({"balance": "RoundRobin", "health": {"interval": "100ms", "timeout": "5s", "redis": {"role": role}}});
    let sidecar = Sidecar::start(fields("Master"), &[a.address, b.address]).await;
    settles(&sidecar, Some(b'a')).await;
    a.becomes("slave");
    b.becomes("master");
    settles(&sidecar, Some(b'b')).await;
    // A changed configuration counts as well.
    sidecar.update(fields("Replica"));
    settles(&sidecar, Some(b'a')).await;
    a.becomes("master");
    settles(&sidecar, None).await;
    b.becomes("slave");
    settles(&sidecar, Some(b'b')).await;
}

#[tokio::test]
async fn nothing_goes_to_a_server_before_its_role_is_known() {
    let replica = Redis::start(b'a', "slave").await;
    let fields = json!({"health": {"interval": "1h", "redis": {"role": "Master"}}});
    let sidecar = Sidecar::start(fields, &[replica.address]).await;
    for _ in 0..10 {
        assert_eq!(who(&sidecar).await, None);
    }
}

#[tokio::test]
async fn a_server_that_loads_its_data_gets_nothing_until_it_has_it() {
    let (a, b) = (Redis::start(b'a', "master").await, Redis::start(b'b', "master").await);
    a.loads(true);
    let fields =
        json!({"balance": "RoundRobin", "health": {"interval": "100ms", "timeout": "5s", "redis": {}}});
    let sidecar = Sidecar::start(fields, &[a.address, b.address]).await;
    settles(&sidecar, Some(b'b')).await;
    a.loads(false);
    in_time("the other serves again", async { while who(&sidecar).await != Some(b'a') {} }).await;
}

/// What a PostgreSQL server that lets everyone in says, once it was greeted.
async fn welcome<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let Ok(length) = stream.read_u32().await else { return };
    let mut greeting = vec![0; length as usize - 4];
    stream.read_exact(&mut greeting).await.unwrap();
    assert!(greeting.starts_with(&[0, 3, 0, 0]), "{greeting:?}");
    stream.write_all(&[b'R', 0, 0, 0, 8, 0, 0, 0, 0]).await.unwrap();
    stream.flush().await.unwrap();
    let _ = stream.read(&mut [0]).await;
}

/// A server that has a certificate of its own as `db.example.com`, and that certificate. TLS begins at once, or after PostgreSQL's
/// question for it, which is answered so.
async fn named(agrees: Option<bool>) -> (Address, tempfile::NamedTempFile, AbortOnDropHandle<()>) {
    let settings = serde_json::from_value(json!({"selfSigned": {"hosts": ["db.example.com"]}})).unwrap();
    let tls = Arc::new(Server::load(&settings, &[]).unwrap());
    let mut certificate = tempfile::NamedTempFile::new().unwrap();
    certificate.write_all(tls.self_signed_pem().unwrap().as_bytes()).unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap().into();
    let accepts = tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            let tls = Arc::clone(&tls);
            tokio::spawn(async move {
                if let Some(agrees) = agrees {
                    let mut request = [0; 8];
                    stream.read_exact(&mut request).await.unwrap();
                    assert_eq!(request, [0, 0, 0, 8, 4, 210, 22, 47], "it asks for TLS first");
                    stream.write_all(if agrees { b"S" } else { b"N" }).await.unwrap();
                }
                // A client that does not believe the certificate goes.
                if let Ok(stream) = tls.accept(Socket::Tcp(stream)).await {
                    welcome(stream).await;
                }
            });
        }
    });
    (address, certificate, AbortOnDropHandle::new(accepts))
}

async fn check_as(
    name: &str,
    (probe, beginning): (&Probe, Beginning),
    address: &Address,
    ca: &tempfile::NamedTempFile,
) -> Result<(), Failure> {
    let settings = serde_json::from_value(json!({"caFile": ca.path(), "serverName": name})).unwrap();
    let client = Client::load_as(&settings, beginning).unwrap();
    let peer = Peer::new(Arc::new(client), address, None);
    probe.check(Target::new(address, Some(&peer)), None, &[], DEADLINE).await.map(drop)
}

#[tokio::test]
async fn a_check_within_tls_verifies_the_name_and_asks_postgres_for_tls_first() {
    let postgres = Probe::Postgres(Postgres {
        user: "sidecar".to_owned(),
        database: None,
        password_file: None,
        role: None,
    });
    let postgres = (&postgres, Beginning::WhenPostgresAgrees);
    for (probe, agrees) in [((&Probe::Tcp, Beginning::AtOnce), None), (postgres, Some(true))] {
        let (address, ca, _server) = named(agrees).await;
        check_as("db.example.com", probe, &address, &ca).await.unwrap();
        let error = check_as("other.example.com", probe, &address, &ca).await.unwrap_err().to_string();
        assert!(error.contains("db.example.com"), "it says whose certificate it is: {error}");
    }
    let (address, ca, _server) = named(Some(false)).await;
    let error = check_as("db.example.com", postgres, &address, &ca).await.unwrap_err().to_string();
    assert!(error.contains("the server does not speak TLS"), "{error}");
}

#[tokio::test]
async fn a_check_says_that_it_is_no_client_where_backends_are_told_of_clients() {
    for (version, header) in [("V1", &b"PROXY UNKNOWN\r\n"[..]), ("V2", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")] {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fields = json!({"proxyProtocol": {"send": version}});
        let _sidecar = Sidecar::start(fields, &[socket.local_addr().unwrap()]).await;
        let (mut check, _) = in_time("the check", socket.accept()).await.unwrap();
        let mut said = Vec::new();
        in_time("its end", check.read_to_end(&mut said)).await.unwrap();
        assert_eq!(said, header, "{version}");
    }
}
