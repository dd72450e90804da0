//! Arguments -> the configuration that a policy or a file would give. Pure.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use crds::{
    config::{
        AccessLog, AccessLogFormat, BackendLimits, BackendSource, BackendTls, Balance, DnsBackend,
        DownAnswer, HealthCheck, HttpListener, InitialHealth, KeyPairFiles, ListenerTls, LoggedKind,
        OutlierDetection, Protocol, SelfSigned, SidecarConfig, SidekickPaths, Site, Timeouts, TlsVersion,
        TrafficDistribution, WeightedSource,
    },
    units::{self, ListenAddress, StatusRange, UnitError},
};

use super::{
    arguments::{Arguments, HostBalance, TlsMax, Trace},
    site::{Endpoint, SiteArgument, SiteError},
};

/// Names the listener in logs and metrics.
const LISTENER: &str = "sidekick";

/// Addresses that one source holds, by the schema.
const ADDRESSES: usize = 16;

/// One failed check of a server that serves takes nobody out, and a second one does: within the time that sidekick took.
const UNHEALTHY_THRESHOLD: u32 = 2;

/// What the arguments do not say.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Sockets of this machine can be bound to IPv6 addresses.
    pub(super) ipv6: bool,
    /// Where the password of `--key` can be read, if there is one.
    pub(super) key_password_file: Option<String>,
}

/// Why arguments make no configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ArgumentsError {
    #[error("SITE {number}: {cause}")]
    Site { number: usize, cause: SiteError },
    #[error("--auto-tls-host: {0}")]
    AutoTlsHost(UnitError),
    #[error("{flag}: a path that is not UTF-8 cannot be used; rename the file")]
    Path { flag: &'static str },
}

pub(super) fn config(arguments: &Arguments, facts: &Facts) -> Result<SidecarConfig, ArgumentsError> {
    let mut sites = Vec::new();
    for (text, number) in arguments.sites.iter().zip(1..) {
        let site = SiteArgument::parse(text).map_err(|cause| ArgumentsError::Site { number, cause })?;
        sites.push(self::site(&site, number, arguments)?);
    }
    let listener = HttpListener {
        name: LISTENER.to_owned(),
        address: ListenAddress::Ip(arguments.address.ip.unwrap_or_else(|| everywhere(facts))),
        port: arguments.address.port,
        tls: listener_tls(arguments, facts)?,
        sites,
        health: health(arguments),
        balance: match arguments.host_balance {
            HostBalance::Least => Balance::LeastRequest,
            HostBalance::Random => Balance::Random,
        },
        hash_header: None,
        slow_start: None,
        traffic_distribution: TrafficDistribution::default(),
        outlier_detection: OutlierDetection::default(),
        backend_limits: BackendLimits::default(),
        timeouts: Timeouts::default(),
        forwarded_headers: true,
        down_answer: DownAnswer::BackendDown,
        sidekick: SidekickPaths { health: true, certificates: true, metrics: true },
        access_log: access_log(arguments),
        tracing: None,
        max_body_size: None,
        rate_limits: Vec::new(),
        authentication: None,
    };
    Ok(SidecarConfig { http: vec![listener], ..SidecarConfig::default() })
}

impl From<TlsMax> for TlsVersion {
    fn from(newest: TlsMax) -> Self {
        match newest {
            TlsMax::V1_2 => Self::V12,
            TlsMax::V1_3 => Self::V13,
        }
    }
}

/// `::` takes IPv4 too.
fn everywhere(facts: &Facts) -> IpAddr {
    if facts.ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

fn listener_tls(arguments: &Arguments, facts: &Facts) -> Result<Option<ListenerTls>, ArgumentsError> {
    if !arguments.auto_tls_host.is_empty() {
        let hosts = arguments.auto_tls_host.iter().map(|host| host.parse());
        let hosts = hosts.collect::<Result<_, _>>().map_err(ArgumentsError::AutoTlsHost)?;
        return Ok(Some(ListenerTls {
            self_signed: Some(SelfSigned { hosts }),
            max_version: arguments.tls_max.into(),
            ..ListenerTls::default()
        }));
    }
    let (Some(certificate), Some(key)) = (&arguments.cert, &arguments.key) else { return Ok(None) };
    Ok(Some(ListenerTls {
        certificate_file: Some(path(certificate, "--cert")?),
        key_file: Some(path(key, "--key")?),
        key_password_file: facts.key_password_file.clone(),
        max_version: arguments.tls_max.into(),
        ..ListenerTls::default()
    }))
}

fn backend_tls(arguments: &Arguments) -> Result<BackendTls, ArgumentsError> {
    let client_certificate = match (&arguments.client_cert, &arguments.client_key) {
        (Some(certificate), Some(key)) => Some(KeyPairFiles {
            certificate_file: path(certificate, "--client-cert")?,
            key_file: path(key, "--client-key")?,
            key_password_file: None,
        }),
        _ => None,
    };
    Ok(BackendTls {
        ca_file: arguments.cacert.as_ref().map(|file| path(file, "--cacert")).transpose()?,
        insecure_skip_verify: arguments.insecure,
        client_certificate,
        max_version: arguments.tls_max.into(),
        ..BackendTls::default()
    })
}

fn path(path: &Path, flag: &'static str) -> Result<String, ArgumentsError> {
    path.to_str().map(str::to_owned).ok_or(ArgumentsError::Path { flag })
}

fn site(site: &SiteArgument, number: usize, arguments: &Arguments) -> Result<Site, ArgumentsError> {
    let mut addresses = Vec::new();
    let mut sources = Vec::new();
    for endpoint in &site.endpoints {
        match endpoint {
            Endpoint::Address(address) => addresses.push(address.clone()),
            Endpoint::Name(host, port) => sources.push(BackendSource::Dns(DnsBackend {
                refresh: Some(span(arguments.dns_ttl)),
                ..DnsBackend::new(host.clone(), *port)
            })),
        }
    }
    sources.extend(addresses.chunks(ADDRESSES).map(|some| BackendSource::Addresses(some.to_vec())));
    let backends = sources.into_iter().map(|source| WeightedSource::from(source).into()).collect();
    let tls = site.tls.then(|| backend_tls(arguments)).transpose()?;
    Ok(Site { name: format!("site{number}"), backends, tls, protocol: Protocol::Http1 })
}

fn health(arguments: &Arguments) -> HealthCheck {
    HealthCheck {
        path: Some(arguments.health_path.0.clone()),
        last_site_path: arguments.read_health_path.as_ref().map(|path| path.0.clone()),
        port: Some(arguments.health_port).filter(|port| *port != 0),
        initial: InitialHealth::Down,
        // The next check comes after the duration and up to as much again, chosen at random.
        interval: span(arguments.health_duration * 3 / 2),
        jitter_percent: 33,
        timeout: span(arguments.health_timeout),
        unhealthy_threshold: UNHEALTHY_THRESHOLD,
        optimistic: arguments.health_optimistic,
        // With all servers down, users of sidekick want to be told so.
        panic: false,
        ..HealthCheck::default()
    }
}

fn access_log(arguments: &Arguments) -> Option<AccessLog> {
    let traced = arguments.traced()?;
    Some(AccessLog {
        format: if arguments.json { AccessLogFormat::Json } else { AccessLogFormat::Text },
        of: match traced {
            Trace::All => LoggedKind::All,
            Trace::Application => LoggedKind::Requests,
            Trace::Minio => LoggedKind::Checks,
        },
        statuses: arguments.status_code.iter().map(|status| StatusRange::one(*status)).collect(),
        errors_only: arguments.errors,
        ..AccessLog::default()
    })
}

/// Whole milliseconds: less than one is refused with the argument.
fn span(time: std::time::Duration) -> units::Duration {
    units::Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
