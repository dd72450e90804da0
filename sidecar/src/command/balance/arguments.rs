//! The flags of `sidecar balance`: those of MinIO's sidekick, with its defaults.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    time::Duration,
};

use clap::Args;

use crate::command::duration;

/// MinIO's sidekick, but for what it got wrong.
#[derive(Debug, Clone, Args)]
pub(in crate::command) struct Arguments {
    /// Sites in failover order: comma-separated pools of URLs, with ranges such as http://minio{1...4}:9000
    #[arg(value_name = "SITE", required = true, num_args = 1..)]
    pub(super) sites: Vec<String>,

    /// Address to listen on; without a host on all of the machine's
    #[arg(short, long, value_name = "[HOST]:PORT", env = "SIDEKICK_ADDRESS", default_value = ":8080")]
    pub(super) address: ListenAddress,

    /// Path of the health check, which must be answered with 200
    #[arg(short = 'p', long, value_name = "PATH", env = "SIDEKICK_HEALTH_PATH", default_value = "/")]
    pub(super) health_path: CheckPath,

    /// Path of the health check for the last site, which may be good for reading alone [default: the other path]
    #[arg(short, long, value_name = "PATH", env = "SIDEKICK_READ_HEALTH_PATH")]
    pub(super) read_health_path: Option<CheckPath>,

    /// Port of the health check; 0 for the server's own
    #[arg(long, value_name = "PORT", env = "SIDEKICK_HEALTH_PORT", default_value = "0")]
    pub(super) health_port: u16,

    /// Time between two checks of a server; a number alone is seconds
    #[arg(short = 'd', long, value_name = "DURATION", env = "SIDEKICK_HEALTH_DURATION", default_value = "5s", value_parser = time)]
    pub(super) health_duration: Duration,

    /// Time for one check
    #[arg(long, value_name = "DURATION", env = "SIDEKICK_HEALTH_TIMEOUT", default_value = "10s", value_parser = time)]
    pub(super) health_timeout: Duration,

    /// Check a server only while it is down; while it is up, requests tell
    #[arg(long, env = "SIDEKICK_HEALTH_OPTIMISTIC")]
    pub(super) health_optimistic: bool,

    /// Which server of a site gets a request
    #[arg(long, value_name = "HOW", env = "SIDEKICK_HOST_BALANCE", value_enum, default_value = "least")]
    pub(super) host_balance: HostBalance,

    /// One name stands for many servers. It always does: each address of a name is a server of its own
    #[arg(long, env = "SIDEKICK_RR_DNS_MODE")]
    pub(super) rr_dns_mode: bool,

    /// Ask for names again after this time at the latest, however long their records may be kept
    #[arg(long, value_name = "DURATION", env = "SIDEKICK_DNS_TTL", default_value = "10m", value_parser = time)]
    pub(super) dns_ttl: Duration,

    /// Do not verify the servers' certificates: whoever is in between can read and change everything
    #[arg(short, long, env = "SIDEKICK_INSECURE")]
    pub(super) insecure: bool,

    /// PEM file of the CAs that sign the servers' certificates [default: those of the system]
    #[arg(long, value_name = "FILE", env = "SIDEKICK_CACERT")]
    pub(super) cacert: Option<PathBuf>,

    /// PEM file of the certificate to show to the servers
    #[arg(long, value_name = "FILE", env = "SIDEKICK_CLIENT_CERT", requires = "client_key")]
    pub(super) client_cert: Option<PathBuf>,

    /// PEM file of its key
    #[arg(long, value_name = "FILE", env = "SIDEKICK_CLIENT_KEY", requires = "client_cert")]
    pub(super) client_key: Option<PathBuf>,

    /// PEM file of the certificate to show to clients; read again when it is replaced
    #[arg(long, value_name = "FILE", env = "SIDEKICK_CERT", requires = "key")]
    pub(super) cert: Option<PathBuf>,

    /// PEM file of its key
    #[arg(long, value_name = "FILE", env = "SIDEKICK_KEY", requires = "cert")]
    pub(super) key: Option<PathBuf>,

    /// Password of that key. Others can read arguments: SIDEKICK_KEY_PASSWORD is the better place
    #[arg(
        long,
        value_name = "PASSWORD",
        env = "SIDEKICK_KEY_PASSWORD",
        hide_env_values = true,
        requires = "key"
    )]
    pub(super) key_password: Option<Password>,

    /// Serve TLS with a certificate made for these hosts at each start; /v1/certificates gives it to clients
    #[arg(
        long,
        value_name = "HOST",
        env = "SIDEKICK_AUTO_TLS_HOST",
        value_delimiter = ',',
        conflicts_with = "cert"
    )]
    pub(super) auto_tls_host: Vec<String>,

    /// Newest version of TLS to speak, with clients and with servers
    #[arg(long, value_name = "VERSION", env = "SIDEKICK_TLS_MAX", value_enum, default_value = "1.3")]
    pub(super) tls_max: TlsMax,

    /// Log servers that go down and come back
    #[arg(short, long, env = "SIDEKICK_LOG")]
    pub(super) log: bool,

    /// Print a line on standard output for each request (application), each health check (minio), or both (all)
    #[arg(short, long, value_name = "WHAT", env = "SIDEKICK_TRACE", value_enum)]
    pub(super) trace: Option<Trace>,

    /// Print nothing but errors: no table, and no lines of --trace
    #[arg(short, long, env = "SIDEKICK_QUIET")]
    pub(super) quiet: bool,

    /// Log and trace in JSON, one object on each line
    #[arg(long, env = "SIDEKICK_JSON")]
    pub(super) json: bool,

    /// Log much more
    #[arg(long, env = "SIDEKICK_DEBUG")]
    pub(super) debug: bool,

    /// Trace only what failed: requests answered with 400 or above or not to their end, and bad health checks
    #[arg(short, long, env = "SIDEKICK_ERRORS")]
    pub(super) errors: bool,

    /// Trace only what was answered with this status; several with commas between. With --errors, what is both
    #[arg(long, value_name = "STATUS", env = "SIDEKICK_STATUS_CODE", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(100..=599))]
    pub(super) status_code: Vec<u16>,

    /// Has no effect: there is no Go program to profile
    #[arg(long, value_name = "ADDRESS", env = "SIDEKICK_PPROF", hide = true)]
    pub(super) pprof: Option<String>,

    /// Threads that serve requests [default: one for each CPU]
    #[arg(long, value_name = "N", env = "SIDEKICK_THREADS")]
    pub(super) threads: Option<NonZeroUsize>,

    /// Address of /live, /ready and /metrics, which `sidecar top` reads [default: a free port of 127.0.0.1]
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "SIDEKICK_ADMIN_ADDRESS",
        default_value = "127.0.0.1:0",
        hide_default_value = true
    )]
    pub(super) admin_address: SocketAddr,
}

impl Arguments {
    /// What there is a line of: who asks for some lines alone wants lines, and who wants quiet wants none.
    pub(super) fn traced(&self) -> Option<Trace> {
        let confined = self.errors || !self.status_code.is_empty();
        self.trace.or(confined.then_some(Trace::All)).filter(|_| !self.quiet)
    }
}

pub(in crate::command) const EXAMPLES: &str = "\
Examples:
  sidecar balance --health-path /minio/health/ready http://minio{1...4}:9000
  sidecar balance --health-path /minio/health/cluster --address :8000 \\
      http://site1-minio{1...4}:9000,http://site1-minio{5...8}:9000 http://site2-minio{1...8}:9000
  sidecar balance --cacert ca.crt --cert public.crt --key private.key https://minio{1...4}:9000
  ln -s sidecar sidekick && ./sidekick http://minio{1...4}:9000

All requests go to the first site that has a live server. While none has, they are answered with 502 BackendDown.
/v1/health, /v1/certificates and /.prometheus/metrics are the listener's own. Each flag has a variable, such as
SIDEKICK_HEALTH_PATH for --health-path; the flag wins.
On a terminal a live table is shown, unless --log, --trace, --errors or --status-code asks for lines.";

/// Where to listen: a port, and an address unless it is all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ListenAddress {
    pub(super) ip: Option<IpAddr>,
    pub(super) port: u16,
}

impl std::str::FromStr for ListenAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const REMEDY: &str =
            "write [HOST]:PORT, such as :8080 or 127.0.0.1:8080, with a port from 1 to 65535";
        let (host, port) = text.rsplit_once(':').ok_or(REMEDY)?;
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|port| digits && *port != 0).ok_or(REMEDY)?;
        let ip = match host {
            "" => None,
            "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
            _ => {
                let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
                let ip: IpAddr = bracketed.unwrap_or(host).parse().map_err(|_| REMEDY)?;
                if bracketed.is_some() != ip.is_ipv6() {
                    return Err(REMEDY);
                }
                Some(ip)
            }
        };
        Ok(Self { ip, port })
    }
}

/// A path to GET, with its leading slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CheckPath(pub(super) String);

impl std::str::FromStr for CheckPath {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = if text.starts_with('/') { text.to_owned() } else { format!("/{text}") };
        if path.len() > 1024 || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("write a path such as /minio/health/ready, with spaces and other letters as %20");
        }
        Ok(Self(path))
    }
}

/// Text that no log and no message shows.
#[derive(Clone)]
pub(super) struct Password(pub(super) String);

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password")
    }
}

/// How a server is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum HostBalance {
    /// Of two drawn at random, the one with fewer requests.
    Least,
    /// Any.
    Random,
}

/// Versions of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum TlsMax {
    #[value(name = "1.2")]
    V1_2,
    #[value(name = "1.3")]
    V1_3,
}

/// What is traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Trace {
    All,
    /// Requests.
    Application,
    /// Health checks.
    Minio,
}

fn time(text: &str) -> Result<Duration, String> {
    let time = duration::parse(text).map_err(|error| error.to_string())?;
    if time < Duration::from_millis(1) {
        return Err("it is shorter than 1ms; write it like 5s, or 5 for seconds".to_owned());
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_go_reads_them() {
        for (text, ip, port) in [
            (":8080", None, 8080),
            ("127.0.0.1:1", Some("127.0.0.1"), 1),
            ("[::1]:80", Some("::1"), 80),
            ("localhost:9", Some("127.0.0.1"), 9),
        ] {
            let ip = ip.map(|ip| ip.parse().unwrap());
            assert_eq!(text.parse(), Ok(ListenAddress { ip, port }), "{text}");
        }
        for text in ["", "8080", ":", ":0", ":+1", ":65536", "::1:80", "[10.0.0.1]:80", "name:80", ":80 "] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_health_path_gets_its_slash() {
        assert_eq!("ready".parse(), Ok(CheckPath("/ready".to_owned())));
        assert_eq!("".parse(), Ok(CheckPath("/".to_owned())));
        assert!("/a b".parse::<CheckPath>().is_err());
    }

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(format!("{:?}", Password::from("secret".to_owned())), "Password");
    }
}
