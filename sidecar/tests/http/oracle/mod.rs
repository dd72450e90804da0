//! hyper as the oracle: the same bytes go to a sidecar and to a proxy made of hyper alone, and what reaches the backends is
//! compared. Where the two differ, the difference is one of a list that says why it is meant.

mod answers;
mod differences;
mod scripts;

use std::{
    fmt, mem,
    sync::{Arc, Mutex},
    time::Duration,
};

use differences::{Difference, MEANT};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    smuggling::corpus::{CHUNKED, SMUGGLED, ambiguous, endless, harmless, torn},
    support::{Backend, Message, Reference, Sidecar, in_time},
};

/// Stands behind each script, so that a connection comes to its end.
const LAST: &[u8] = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// Silence after which a client takes it that the proxy waits for more, and ends its side. A proxy that is only slow must not
/// look like one that waits, so that a difference counts only if it is there with patience too.
const PATIENCE: [Duration; 2] = [Duration::from_millis(150), Duration::from_secs(3)];

/// A request as a backend has got it to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Passed {
    start: String,
    /// In the order of their names: hyper keeps the order of fields of one name alone.
    fields: Vec<String>,
    body: Vec<u8>,
    trailers: Vec<String>,
}

/// Both proxies, each with a backend of its own.
struct Pair {
    sidecar: Sidecar,
    reference: Reference,
    ours: Arc<Mutex<Vec<Passed>>>,
    theirs: Arc<Mutex<Vec<Passed>>>,
    _backends: [Backend; 2],
}

impl From<Message> for Passed {
    fn from(message: Message) -> Self {
        let Message { start, headers: mut fields, body, mut trailers, .. } = message;
        fields.iter_mut().for_each(normalise);
        fields.sort_by(|one, other| name(one).cmp(name(other)));
        trailers.iter_mut().for_each(normalise);
        Self { start, fields, body, trailers }
    }
}

fn name(line: &str) -> &str {
    line.split(':').next().unwrap_or_default()
}

/// Space around a value is none of it, and what is said of a connection has no upper case.
fn normalise(line: &mut String) {
    let Some((name, value)) = line.split_once(':') else { return };
    let (name, value) = (name.to_ascii_lowercase(), value.trim_matches([' ', '\t']));
    let spoken = matches!(&*name, "connection" | "transfer-encoding" | "te");
    *line = format!("{name}: {}", if spoken { value.to_ascii_lowercase() } else { value.to_owned() });
}

/// Answers everything, and keeps what was complete.
async fn recording() -> (Backend, Arc<Mutex<Vec<Passed>>>) {
    let passed = Arc::<Mutex<Vec<Passed>>>::default();
    let kept = Arc::clone(&passed);
    let backend = Backend::start(move |mut visit| {
        let kept = Arc::clone(&kept);
        async move {
            while let Some(request) = visit.request().await {
                let body = if request.start.starts_with("HEAD ") { "" } else { "ok" };
                kept.lock().unwrap().push(request.into());
                visit.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{body}")).await;
            }
        }
    })
    .await;
    (backend, passed)
}

/// Sends it, and gives the number of answers that came from a backend.
async fn talk(address: std::net::SocketAddr, script: &[u8], patience: Duration) -> usize {
    let mut stream = in_time("connecting", TcpStream::connect(address)).await.unwrap();
    let mut received = Vec::new();
    let conversation = async {
        // What is refused before its end cannot be sent to its end.
        let _ = stream.write_all(&[script, LAST].concat()).await;
        loop {
            match timeout(patience, stream.read_buf(&mut received)).await {
                Ok(Ok(1..)) => {}
                Ok(_) => break,
                Err(_) => {
                    let _ = stream.shutdown().await;
                    while matches!(stream.read_buf(&mut received).await, Ok(1..)) {}
                    break;
                }
            }
        }
    };
    in_time("the end of the connection", conversation).await;
    String::from_utf8_lossy(&received).matches(" 200 OK\r\n").count()
}

impl Pair {
    async fn start() -> Self {
        let ((ours_behind, ours), (theirs_behind, theirs)) = tokio::join!(recording(), recording());
        let sidecar = Sidecar::start(&[ours_behind.address]).await;
        let reference = Reference::before(theirs_behind.address).await;
        Self { sidecar, reference, ours, theirs, _backends: [ours_behind, theirs_behind] }
    }

    /// What differs, if anything does.
    async fn difference(&self, script: &[u8]) -> Option<Found> {
        let mut found = None;
        for patience in PATIENCE {
            found = self.difference_with(script, patience).await;
            if found.is_none() {
                break;
            }
        }
        found
    }

    async fn difference_with(&self, script: &[u8], patience: Duration) -> Option<Found> {
        let (answers, _) = tokio::join!(
            talk(self.sidecar.address(), script, patience),
            talk(self.reference.address, script, patience),
        );
        let ours = mem::take(&mut *self.ours.lock().unwrap());
        let theirs = mem::take(&mut *self.theirs.lock().unwrap());
        let kind = if answers != ours.len() {
            Difference::Unanswered
        } else if ours == theirs {
            return None;
        } else if theirs.starts_with(&ours) {
            Difference::WeRefuse
        } else if ours.starts_with(&theirs) {
            Difference::TheyRefuse
        } else {
            Difference::PassedOnOtherwise
        };
        Some(Found { script: script.to_vec(), kind, answers, ours, theirs })
    }

    /// Says what differs, unless that is meant.
    async fn judge(&self, script: &[u8]) -> Result<(), Found> {
        match self.difference(script).await {
            Some(found) if !MEANT.iter().any(|meant| meant.explains(found.kind, script)) => Err(found),
            _ => Ok(()),
        }
    }
}

struct Found {
    script: Vec<u8>,
    kind: Difference,
    answers: usize,
    ours: Vec<Passed>,
    theirs: Vec<Passed>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let script = String::from_utf8_lossy(&self.script[..self.script.len().min(600)]);
        let Self { kind, answers, ours, theirs, .. } = self;
        write!(f, "{kind:?}: {script:?}\n  ours {ours:?}, {answers} answered\n  theirs {theirs:?}")
    }
}

/// The scripts of the tests of smuggling, but for heads that are too long: each server has bounds of its own.
fn known() -> Vec<Vec<u8>> {
    let bodies = torn().into_iter().map(|(body, _)| body.to_owned()).chain(endless());
    let broken = bodies.map(|body| format!("{CHUNKED}{body}{SMUGGLED}"));
    let refused = ambiguous().into_iter().map(|(script, _)| script);
    let good = harmless().into_iter().map(|(script, _)| script);
    broken.chain(refused).chain(good).map(String::into_bytes).collect()
}

#[tokio::test]
async fn what_hyper_passes_on_of_known_scripts_is_what_we_do_but_for_what_is_meant() {
    let pair = Pair::start().await;
    let mut differing = Vec::new();
    for script in known() {
        if let Err(found) = pair.judge(&script).await {
            differing.push(found.to_string());
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[tokio::test]
async fn each_difference_that_is_meant_is_there() {
    let pair = Pair::start().await;
    let mut missing = Vec::new();
    for meant in MEANT {
        let script = meant.example.as_bytes();
        let found = pair.difference(script).await;
        if !found.as_ref().is_some_and(|found| meant.explains(found.kind, script)) {
            let found = found.map_or("nothing differs".to_owned(), |found| found.to_string());
            missing.push(format!("{}: {found}", meant.why));
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// PROPTEST_CASES makes it a longer search.
#[test]
fn what_hyper_passes_on_of_any_script_is_what_we_do_but_for_what_is_meant() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let pair = runtime.block_on(Pair::start());
    let config = Config { failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&scripts::scripts(), |script| {
        runtime.block_on(pair.judge(&script)).map_err(|found| TestCaseError::fail(found.to_string()))
    });
    if let Err(found) = outcome {
        panic!("{found}");
    }
}
