//! A DNS name: ask -> publish -> wait for the TTL -> ask again. An error keeps what was found and is retried.
//!
//! Which servers a name stands for is the business of [`servers`]: its addresses, those of its SRV records, and which of them
//! are one.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crds::config::DnsBackend;
use futures::future::BoxFuture;
use hickory_resolver::{
    TokioResolver,
    config::LookupIpStrategy,
    lookup_ip::LookupIp,
    net::NetError,
    proto::rr::{RData, RecordType},
};
use tokio::{sync::OnceCell, time};

use super::{Publisher, cluster::Backoff, servers::Servers};
use crate::balance::Unavailable;

/// A TTL below this would make a query of every request's worth of time.
const SHORTEST_TTL: Duration = Duration::from_secs(1);
/// A name is asked for again after this time, whatever its TTL, unless its source says another.
const LONGEST_TTL: Duration = Duration::from_secs(300);
/// Time for all of one lookup: every search domain, every server, every attempt.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(15);
/// Time for one query to one server.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// An SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub host: String,
    pub port: u16,
    /// The lowest comes first.
    pub priority: u16,
    pub weight: u16,
}

/// What a name stands for, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub addresses: Vec<IpAddr>,
    pub ttl: Duration,
}

/// Why a name gives no addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    #[error("it does not exist; check its spelling, and whether the pod's search domains complete it")]
    NoSuchName,
    #[error("it has no A or AAAA records; check its spelling")]
    NoAddresses,
    #[error("no DNS server has answered in time; check that this pod reaches its DNS servers")]
    Timeout,
    #[error("the DNS servers gave an error ({0})")]
    Server(String),
    #[error("/etc/resolv.conf cannot be used ({0})")]
    Setup(String),
}

/// Who answers for names.
pub trait Lookup: Send + Sync {
    /// `known` are the addresses of the answer before: those of a family whose servers fail are kept.
    fn lookup<'a>(&'a self, host: &'a str, known: &'a [IpAddr])
    -> BoxFuture<'a, Result<Answer, LookupError>>;

    /// The SRV records of a name, and for how long they hold.
    fn services<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<(Vec<Service>, Duration), LookupError>>;

    /// The name of an address in reverse DNS, the first one of several.
    fn reverse(&self, address: IpAddr) -> BoxFuture<'_, Result<String, LookupError>>;
}

/// Publishes the servers of a name until it is dropped.
pub(super) async fn follow(lookup: &dyn Lookup, dns: &DnsBackend, publisher: &Publisher) {
    let what = format!("DNS name {}", dns.host);
    let reason = |error: &LookupError| Unavailable { what: what.clone(), message: error.to_string() };
    let mut backoff = Backoff::new();
    let mut failing: Option<LookupError> = None;
    let mut servers = Servers::default();
    loop {
        let before = publisher.endpoints();
        let answer = time::timeout(LOOKUP_TIMEOUT, servers.find(lookup, dns, &before)).await;
        let delay = match answer.unwrap_or(Err(LookupError::Timeout)) {
            Ok((endpoints, ttl)) => {
                if failing.take().is_some() {
                    tracing::info!(what, "the name resolves again");
                }
                backoff = Backoff::new();
                publisher.answered(endpoints, || reason(&LookupError::NoAddresses));
                let longest = dns.refresh.map_or(LONGEST_TTL, crds::units::Duration::as_std);
                ttl.min(longest).max(SHORTEST_TTL)
            }
            Err(error) => {
                if failing.as_ref() != Some(&error) {
                    tracing::warn!(what, %error, "the name does not resolve; the last good backends stay");
                }
                if before.is_empty() && matches!(error, LookupError::NoSuchName | LookupError::NoAddresses) {
                    // That is an answer, if not one that helps.
                    publisher.answered(Vec::new(), || reason(&error));
                } else {
                    publisher.failed(reason(&error));
                }
                failing = Some(error);
                backoff.next()
            }
        };
        time::sleep(delay).await;
    }
}

/// The DNS servers and search domains of /etc/resolv.conf, read when the first name is asked for.
#[derive(Default)]
pub struct SystemDns {
    resolver: OnceCell<TokioResolver>,
}

impl SystemDns {
    /// One resolver that is made already.
    pub fn with_resolver(resolver: TokioResolver) -> Arc<Self> {
        Arc::new(Self { resolver: OnceCell::new_with(Some(resolver)) })
    }

    async fn resolver(&self) -> Result<&TokioResolver, LookupError> {
        self.resolver.get_or_try_init(|| async { system_resolver() }).await
    }

    async fn ask(&self, host: &str, known: &[IpAddr]) -> Result<Answer, LookupError> {
        let resolver = self.resolver().await?;
        let found = resolver.lookup_ip(host).await.map_err(|error| lookup_error(&error))?;
        let mut addresses: Vec<IpAddr> = found.iter().collect();
        for (family, is_of) in
            [(RecordType::A, IpAddr::is_ipv4 as fn(&IpAddr) -> bool), (RecordType::AAAA, IpAddr::is_ipv6)]
        {
            let lost = known.iter().any(is_of) && !addresses.iter().any(is_of);
            if lost && fails(resolver, &found, family).await {
                addresses.extend(known.iter().copied().filter(is_of));
            }
        }
        let ttl = found.valid_until().saturating_duration_since(Instant::now());
        Ok(Answer { addresses, ttl })
    }
}

impl Lookup for SystemDns {
    fn lookup<'a>(
        &'a self,
        host: &'a str,
        known: &'a [IpAddr],
    ) -> BoxFuture<'a, Result<Answer, LookupError>> {
        Box::pin(self.ask(host, known))
    }

    fn services<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<(Vec<Service>, Duration), LookupError>> {
        Box::pin(async move {
            let found =
                self.resolver().await?.srv_lookup(host).await.map_err(|error| lookup_error(&error))?;
            let ttl = found.valid_until().saturating_duration_since(Instant::now());
            let services = found.answers().iter().filter_map(|record| match &record.data {
                RData::SRV(srv) => Some(Service {
                    host: srv.target.to_utf8(),
                    port: srv.port,
                    priority: srv.priority,
                    weight: srv.weight,
                }),
                _ => None,
            });
            Ok((services.collect(), ttl))
        })
    }

    fn reverse(&self, address: IpAddr) -> BoxFuture<'_, Result<String, LookupError>> {
        Box::pin(async move {
            let found = self.resolver().await?.reverse_lookup(address);
            let found = found.await.map_err(|error| lookup_error(&error))?;
            let names = found.answers().iter().filter_map(|record| match &record.data {
                RData::PTR(name) => Some(name.0.to_utf8().to_ascii_lowercase()),
                _ => None,
            });
            names.min().ok_or(LookupError::NoAddresses)
        })
    }
}

/// Whether the servers fail for a family, rather than say that the name has no such addresses. The resolver gives one
/// family as the whole answer when the other one fails.
async fn fails(resolver: &TokioResolver, found: &LookupIp, family: RecordType) -> bool {
    let name = found.query().name().clone();
    let answer = resolver.lookup(name, family).await;
    answer.is_err_and(|error| !error.is_no_records_found())
}

fn system_resolver() -> Result<TokioResolver, LookupError> {
    let setup = |error: NetError| LookupError::Setup(error.to_string());
    let mut builder = TokioResolver::builder_tokio().map_err(setup)?;
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.timeout = QUERY_TIMEOUT;
    // A name is asked for when its TTL has passed and not before, so that a cache would only cost memory.
    options.cache_size = 0;
    builder.build().map_err(setup)
}

fn lookup_error(error: &NetError) -> LookupError {
    if error.is_nx_domain() {
        LookupError::NoSuchName
    } else if error.is_no_records_found() {
        LookupError::NoAddresses
    } else if matches!(error, NetError::Timeout) {
        LookupError::Timeout
    } else {
        LookupError::Server(error.to_string())
    }
}
