//! What reads foreign bytes, as functions of bytes that panic when a promise is broken: the fuzzer calls them with what it makes
//! up, and a test with the corpus that it has left.

#![allow(clippy::unwrap_used, reason = "a broken promise panics")]

use std::{
    fmt::{Debug, Display},
    io::ErrorKind,
    net::SocketAddr,
    str::FromStr,
};

use crds::{
    config::{AddressFamily, ProxyVersion, ServiceBackend, Transport},
    units::{
        Address, AddressPattern, DnsName, Duration, HexBytes, HttpUrl, ListenAddress, Quantity,
        ServerNamePattern, StatusRange,
    },
};
use k8s_openapi::api::{core::v1::Endpoints, discovery::v1::EndpointSlice};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    runtime::{Builder, Runtime},
};

use crate::{
    command::fuzzing as command,
    config,
    discovery::kubernetes::{endpoints, slices},
    http::fuzzing as http,
    net::{
        Socket,
        postgres::fuzzing as postgres,
        proxy_protocol::{self, Ends},
    },
    probe::fuzzing as probe,
    telemetry::spans,
    top::fuzzing as top,
};

/// A name, which is that of a folder in the corpus, and what is done with each input.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 25] = [
    ("api-keys", http::api_keys),
    ("chunks", http::chunks),
    ("command-line", command::command_line),
    ("config", configuration),
    ("endpoints", discovered),
    ("exposition", top::page),
    ("forwarded", http::forwarded_lines),
    ("h2-answer", http::h2_answer),
    ("h2-request", http::h2_request),
    ("headers-file", headers_file),
    ("key-set", http::key_set),
    ("postgres-answer", probe::postgres_answer),
    ("postgres-client", postgres::client),
    ("postgres-server", postgres::server),
    ("proxy-protocol", proxy_protocol),
    ("redaction", http::redaction),
    ("redis-answer", probe::redis_answer),
    ("request-head", http::request_head),
    ("requests", http::requests),
    ("response-head", http::response_head),
    ("site", command::site),
    ("token", http::token),
    ("trace", http::trace),
    ("units", units),
    ("verdict", http::verdict),
];

/// A configuration is taken, or refused with a reason and a remedy.
fn configuration(bytes: &[u8]) {
    let admin = ([127, 0, 0, 1], crds::names::ADMIN_PORT).into();
    match config::load(bytes, admin) {
        Ok(_) => assert!(std::str::from_utf8(bytes).is_ok()),
        Err(rejected) => {
            assert!(!rejected.problems.is_empty());
            let told = |text: &str| !text.is_empty();
            assert!(rejected.problems.iter().all(|problem| told(&problem.message) && told(&problem.remedy)));
        }
    }
}

/// A text is a value of each unit or is none, and a value is the same after it was written and read.
fn units(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    stays::<Address>(text);
    stays::<AddressPattern>(text);
    stays::<DnsName>(text);
    stays::<Duration>(text);
    stays::<HexBytes>(text);
    stays::<HttpUrl>(text);
    stays::<ListenAddress>(text);
    stays::<Quantity>(text);
    stays::<ServerNamePattern>(text);
    stays::<StatusRange>(text);
}

fn stays<T: FromStr<Err: Debug> + Display + PartialEq + Debug>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string().parse::<T>().unwrap(), value, "{text:?}");
    }
}

/// Whatever the API sends, there are no more backends than it has addresses, and none without a port.
fn discovered(bytes: &[u8]) {
    let service = |port_name: &str| ServiceBackend {
        namespace: "default".to_owned(),
        name: "web".to_owned(),
        port_name: port_name.to_owned(),
        family: AddressFamily::IPv4,
        transport: Transport::default(),
    };
    for service in [service(""), service("http")] {
        if let Ok(slice) = serde_json::from_slice::<EndpointSlice>(bytes) {
            let part = slices::read(&slice, &service, Some("zone"));
            assert!(part.endpoints.len() + part.not_ready <= slice.endpoints.len());
        }
        if let Ok(object) = serde_json::from_slice::<Endpoints>(bytes) {
            endpoints::read(&object, &service);
        }
    }
}

/// The front of a connection is a header, of which not one byte is left and none behind it is missing, or is refused after no
/// more than the longest header has. Who it tells of is the same after it was written and read, in both versions.
fn proxy_protocol(bytes: &[u8]) {
    let (told, rest) = received(bytes);
    let length = bytes.len() - rest.len();
    assert!(bytes.ends_with(&rest) && length <= LONGEST_HEADER, "{length} bytes are taken");
    let Ok(ends) = told else { return };
    // Without its last byte it is no header, and with others behind it the same.
    assert!(received(&bytes[..length - 1]).0.is_err());
    assert_eq!(received(&[&bytes[..length], b"\r\n"].concat()), (Ok(ends), b"\r\n".to_vec()));
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let written = proxy_protocol::write(version, ends);
        let read = received(&written).0.unwrap();
        assert_eq!(proxy_protocol::write(version, read), written);
        let canonical = |end: SocketAddr| (end.ip().to_canonical(), end.port());
        let both = |ends: Ends| [canonical(ends.source), canonical(ends.destination)];
        assert_eq!(read.map(both), ends.map(both));
    }
}

/// What is read from a connection that brings these bytes and ends, and the bytes that are left.
fn received(bytes: &[u8]) -> (Result<Option<Ends>, ErrorKind>, Vec<u8>) {
    thread_local! {
        static RUNTIME: Runtime = Builder::new_current_thread().enable_all().build().unwrap();
    }
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (mut client, server) = UnixStream::pair().unwrap();
            client.write_all(bytes).await.unwrap();
            drop(client);
            let mut socket = Socket::Unix(server);
            let told = proxy_protocol::read(&mut socket).await.map_err(|error| error.kind());
            let mut rest = Vec::new();
            socket.read_to_end(&mut rest).await.unwrap();
            (told, rest)
        })
    })
}

/// Each header of a file is known for a secret, or the file is refused in words that hold nothing of it.
fn headers_file(bytes: &[u8]) {
    match spans::parse_headers("file", bytes) {
        Ok(headers) => assert!(headers.values().all(::http::HeaderValue::is_sensitive)),
        Err(error) => assert_silent(&error, bytes),
    }
}

/// Signature, command, family and length of the PROXY protocol's second version, and what may follow them.
const LONGEST_HEADER: usize = 16 + 4096;

/// Words of this length are no words of an error's own.
const LONG: usize = 12;

/// What is said of a file of secrets holds none of its words.
pub(crate) fn assert_silent(error: &impl Display, file: &[u8]) {
    let error = error.to_string();
    let text = String::from_utf8_lossy(file);
    let told = text.split_whitespace().find(|word| word.len() >= LONG && error.contains(word));
    assert_eq!(told, None, "{error}");
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use proptest::{collection::vec, prelude::*, sample::Index, sample::select};

    use super::*;

    const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus");

    /// All inputs of a target.
    fn corpus(name: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(CORPUS).join(name);
        let mut inputs: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
        inputs.sort();
        inputs
    }

    #[test]
    fn what_the_fuzzer_has_found_stays_found() {
        let folders = fs::read_dir(CORPUS).unwrap().map(|entry| entry.unwrap().file_name());
        let folders: BTreeSet<_> = folders.map(|name| name.into_string().unwrap()).collect();
        assert_eq!(folders, TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect());
        for (name, target) in TARGETS {
            corpus(name).iter().for_each(|input| target(input));
        }
    }

    /// One small change: what a byte becomes, what goes, what is there twice.
    fn change(input: &mut Vec<u8>, (kind, at, length, byte): (u8, Index, usize, u8)) {
        let at = at.index(input.len() + 1);
        let end = (at + length).min(input.len());
        match kind {
            0 if at < input.len() => input[at] = byte,
            1 => input.insert(at, byte),
            2 => drop(input.drain(at..end)),
            _ => {
                let run = input[at..end].to_vec();
                input.splice(at..at, run);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn changes_to_the_corpus_break_no_promise(
            target in select(&TARGETS[..]), one in any::<Index>(), other in any::<Index>(), cut in any::<(Index, Index)>(),
            crossed in any::<bool>(), changes in vec((0u8..4, any::<Index>(), 1usize..9, byte()), 0..6),
        ) {
            let (name, target) = target;
            let corpus = corpus(name);
            let (one, other) = (one.get(&corpus), other.get(&corpus));
            let mut input = one.clone();
            if crossed {
                input.truncate(cut.0.index(one.len() + 1));
                input.extend_from_slice(&other[cut.1.index(other.len() + 1)..]);
            }
            changes.into_iter().for_each(|one| change(&mut input, one));
            target(&input);
        }
    }

    /// Any byte, and those more often that mean something to somebody.
    fn byte() -> impl Strategy<Value = u8> {
        prop_oneof![any::<u8>(), select(&b"\r\n\t :;,=0123456789abcfx-+/*?{}[]\"\\\0#.%"[..])]
    }
}
