//! DNS names: TTLs by virtual time with scripted answers, and the real resolver against a server of a few lines.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::Mutex,
};

use crds::config::{DnsBackend, DnsGrouping, DnsRecord};
use futures::future::BoxFuture;
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
    proto::{
        op::{Message, MessageType, OpCode, ResponseCode},
        rr::{Name, RData, Record, RecordType},
    },
};
use tokio::net::UdpSocket;

use super::*;
use crate::discovery::dns::{Answer, LookupError, Service, SystemDns};

/// Gives the answers of a script, in order, and notes when it was asked.
struct Scripted {
    start: time::Instant,
    /// SRV records of any name.
    services: Vec<Service>,
    /// Names of addresses in reverse DNS; those of the others cannot be had.
    names: Vec<(IpAddr, &'static str)>,
    answers: Mutex<VecDeque<Result<Answer, LookupError>>>,
    asked: Mutex<Vec<Duration>>,
}

impl Lookup for Scripted {
    fn lookup<'a>(&'a self, _: &'a str, _: &'a [IpAddr]) -> BoxFuture<'a, Result<Answer, LookupError>> {
        self.asked.lock().unwrap().push(self.start.elapsed());
        let answer = self.answers.lock().unwrap().pop_front();
        Box::pin(async move {
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        })
    }

    fn services<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(Vec<Service>, Duration), LookupError>> {
        Box::pin(async { Ok((self.services.clone(), Duration::from_secs(30))) })
    }

    fn reverse(&self, address: IpAddr) -> BoxFuture<'_, Result<String, LookupError>> {
        let name = self.names.iter().find(|(ip, _)| *ip == address).map(|(_, name)| (*name).to_owned());
        Box::pin(async move { name.ok_or(LookupError::NoSuchName) })
    }
}

fn scripted(answers: Vec<Result<Answer, LookupError>>) -> Scripted {
    Scripted {
        start: time::Instant::now(),
        services: Vec::new(),
        names: Vec::new(),
        answers: Mutex::new(answers.into()),
        asked: Mutex::default(),
    }
}

fn answer(addresses: &[&str], seconds: u64) -> Result<Answer, LookupError> {
    let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
    Ok(Answer { addresses, ttl: Duration::from_secs(seconds) })
}

fn name(host: &str) -> BackendSource {
    BackendSource::Dns(DnsBackend::new(host.parse().unwrap(), 80))
}

#[tokio::test(start_paused = true)]
async fn several_addresses_of_one_server_are_one_backend() {
    let [four, six, other]: [IpAddr; 3] = ["10.0.0.1", "fd00::1", "10.0.0.2"].map(|ip| ip.parse().unwrap());
    let lookup = Scripted {
        names: vec![(four, "db1.example.com."), (six, "db1.example.com.")],
        answers: Mutex::new(
            vec![Ok(Answer { addresses: vec![four, six, other], ttl: DEADLINE * 100 })].into(),
        ),
        ..scripted(Vec::new())
    };
    let grouped =
        DnsBackend { group_by: DnsGrouping::ReverseName, ..DnsBackend::new("db".parse().unwrap(), 80) };
    let source = BackendSource::Dns(grouped);
    let mut backends =
        discovery(Arc::default(), Arc::new(lookup), StateDir::default()).subscribe(&[source.into()]);
    wait(&mut backends, "two servers", |set| addresses(set) == ["10.0.0.1:80", "10.0.0.2:80"]).await;
    let others = backends.borrow().endpoints[0].others.clone().unwrap();
    assert_eq!(others[..], ["[fd00::1]:80".parse().unwrap()]);
}

#[tokio::test(start_paused = true)]
async fn srv_records_of_the_best_priority_give_ports_and_weights() {
    let service =
        |host: &str, port, priority, weight| Service { host: host.to_owned(), port, priority, weight };
    let lookup = Scripted {
        services: vec![service("far", 1, 20, 1), service("a", 5432, 10, 3), service("b", 5433, 10, 1)],
        answers: Mutex::new(vec![answer(&["10.0.0.1"], 60), answer(&["10.0.0.2"], 60)].into()),
        ..scripted(Vec::new())
    };
    let records = DnsBackend { record: DnsRecord::Srv, ..DnsBackend::new("_pg._tcp.db".parse().unwrap(), 0) };
    let source = BackendSource::Dns(records);
    let mut backends =
        discovery(Arc::default(), Arc::new(lookup), StateDir::default()).subscribe(&[source.into()]);
    wait(&mut backends, "two servers", |set| addresses(set) == ["10.0.0.1:5432", "10.0.0.2:5433"]).await;
    let weights: Vec<u32> = backends.borrow().endpoints.iter().map(|endpoint| endpoint.weight).collect();
    assert_eq!(weights, [3, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_name_is_asked_again_when_its_ttl_has_passed() {
    let lookup = Arc::new(scripted(vec![
        answer(&["10.0.0.1"], 30),
        answer(&["10.0.0.2", "fd00::2"], 0),
        answer(&["10.0.0.3"], 86_400),
        answer(&["10.0.0.4"], 60),
    ]));
    let mut backends =
        discovery(Arc::default(), lookup.clone(), StateDir::default()).subscribe(&[name("a.b").into()]);
    wait(&mut backends, "both families", |set| addresses(set) == ["10.0.0.2:80", "[fd00::2]:80"]).await;
    time::timeout(DEADLINE * 10, backends.wait_for(|set| addresses(set) == ["10.0.0.4:80"]))
        .await
        .unwrap()
        .unwrap();
    let seconds: Vec<u64> = lookup.asked.lock().unwrap().iter().map(Duration::as_secs).collect();
    assert_eq!(seconds, [0, 30, 31, 331], "the floor is 1 s and the ceiling 300 s");
}

#[tokio::test(start_paused = true)]
async fn an_error_keeps_what_was_found() {
    let lookup = Arc::new(scripted(vec![
        answer(&["10.0.0.1"], 5),
        Err(LookupError::Timeout),
        Err(LookupError::NoSuchName),
        Err(LookupError::Server("refused".to_owned())),
        answer(&["10.0.0.2"], 5),
    ]));
    let mut backends =
        discovery(Arc::default(), lookup.clone(), StateDir::default()).subscribe(&[name("a.b").into()]);
    wait(&mut backends, "the first answer", |set| addresses(set) == ["10.0.0.1:80"]).await;
    let set = wait(&mut backends, "the next", |set| addresses(set) != ["10.0.0.1:80"]).await;
    assert_eq!(addresses(&set), ["10.0.0.2:80"]);
    assert_eq!(lookup.asked.lock().unwrap().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_never_resolved_says_why() {
    let lookup = Arc::new(scripted(vec![Err(LookupError::Timeout), Err(LookupError::NoSuchName)]));
    let mut backends =
        discovery(Arc::default(), lookup, StateDir::default()).subscribe(&[name("a.b").into()]);
    let set = wait(&mut backends, "the error", |set| !set.unavailable.is_empty()).await;
    assert!(!set.answered && set.unavailable[0].message.contains("in time"), "{set:?}");
    let set = wait(&mut backends, "the answer", |set| set.answered).await;
    assert_eq!(set.unavailable[0].what, "DNS name a.b");
    assert!(set.unavailable[0].message.contains("does not exist"), "{set:?}");
}

/// Records by name; a family whose name is in `failing` gives SERVFAIL.
async fn dns_server(records: Arc<Mutex<Vec<Record>>>, failing: Arc<Mutex<Option<RecordType>>>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let bytes = respond(&buffer[..length], &records.lock().unwrap(), *failing.lock().unwrap());
            socket.send_to(&bytes, from).await.unwrap();
        }
    });
    address
}

fn respond(request: &[u8], records: &[Record], failing: Option<RecordType>) -> Vec<u8> {
    let request = Message::from_vec(request).unwrap();
    let query = request.queries[0].clone();
    let mut response = Message::new(request.metadata.id, MessageType::Response, OpCode::Query);
    response.add_query(query.clone());
    let of_name: Vec<&Record> = records.iter().filter(|record| record.name == *query.name()).collect();
    if failing == Some(query.query_type()) {
        response.metadata.response_code = ResponseCode::ServFail;
        return response.to_vec().unwrap();
    }
    if of_name.is_empty() {
        response.metadata.response_code = ResponseCode::NXDomain;
    }
    for record in of_name.into_iter().filter(|record| record.record_type() == query.query_type()) {
        response.add_answer(record.clone());
    }
    response.to_vec().unwrap()
}

fn record(name: &str, ttl: u32, ip: &str) -> Record {
    Record::from_rdata(Name::from_ascii(name).unwrap(), ttl, RData::from(ip.parse::<IpAddr>().unwrap()))
}

fn resolver(server: SocketAddr) -> TokioResolver {
    let mut connection = ConnectionConfig::udp();
    connection.port = server.port();
    let server = NameServerConfig::new(server.ip(), true, vec![connection]);
    let search = vec![Name::from_ascii("ns.svc.cluster.local.").unwrap()];
    let config = ResolverConfig::from_parts(None, search, vec![server]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.ip_strategy = hickory_resolver::config::LookupIpStrategy::Ipv4AndIpv6;
    options.cache_size = 0;
    options.ndots = 5;
    builder.build().unwrap()
}

#[tokio::test]
async fn the_resolver_knows_search_domains_ttls_and_both_families() {
    let records = Arc::new(Mutex::new(vec![
        record("s3.ns.svc.cluster.local.", 7, "10.0.0.1"),
        record("s3.ns.svc.cluster.local.", 9, "fd00::1"),
        record("s3.example.com.", 60, "10.0.0.9"),
    ]));
    let failing = Arc::default();
    let server = dns_server(records.clone(), Arc::clone(&failing)).await;
    let dns = SystemDns::with_resolver(resolver(server));
    let ips = |list: &[&str]| -> Vec<IpAddr> { list.iter().map(|ip| ip.parse().unwrap()).collect() };

    let found = dns.lookup("s3", &[]).await.unwrap();
    assert_eq!(found.addresses, ips(&["10.0.0.1", "fd00::1"]));
    assert!((Duration::from_secs(5)..=Duration::from_secs(7)).contains(&found.ttl), "{:?}", found.ttl);
    assert_eq!(dns.lookup("s3.example.com.", &[]).await.unwrap().addresses, ips(&["10.0.0.9"]));
    assert_eq!(dns.lookup("no.example.com.", &[]).await, Err(LookupError::NoSuchName));

    *failing.lock().unwrap() = Some(RecordType::AAAA);
    let kept = dns.lookup("s3", &ips(&["10.0.0.1", "fd00::1"])).await.unwrap();
    assert_eq!(kept.addresses, ips(&["10.0.0.1", "fd00::1"]), "a family whose servers fail is kept");
    *failing.lock().unwrap() = None;
    records.lock().unwrap().retain(|record| record.record_type() == RecordType::A);
    let gone = dns.lookup("s3", &ips(&["10.0.0.1", "fd00::1"])).await.unwrap();
    assert_eq!(gone.addresses, ips(&["10.0.0.1"]), "a family that is gone is not");
}
