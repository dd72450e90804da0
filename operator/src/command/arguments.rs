//! What the command line says. Every flag of `run` has a default that fits the chart, but for what only the pod knows.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use crds::units::Duration;
use hyper::Uri;

/// Injects the sidecar into pods that ask for it.
#[derive(Debug, Parser)]
#[command(name = "operator", version, about, max_term_width = 110, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run webhook and controller inside a cluster
    Run(Box<RunArgs>),
    /// Print manifests with the sidecar in them, as the webhook would make the pods
    Inject(OfflineArgs),
    /// Say for each pod and pod template what the webhook would do, and why
    Explain(OfflineArgs),
    /// Ask a plain-HTTP URL until it answers 200, for 30 s at most; for tests in an image without a shell
    Probe { url: Uri },
    /// Print completions for a shell
    Completions { shell: Shell },
}

/// `operator run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Namespace of the operator itself
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pub namespace: String,

    /// Name of the pod that this process runs in; identifies it in the lease and in Events
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub pod_name: String,

    /// Image of the sidecar where a policy names none
    #[arg(long, value_name = "IMAGE")]
    pub sidecar_image: String,

    /// Where the webhook listens, with TLS
    #[arg(long, default_value = "0.0.0.0:10250", value_name = "IP:PORT")]
    pub webhook_address: SocketAddr,

    /// Where /healthz, /readyz and /metrics are served, without TLS
    #[arg(long, default_value = "0.0.0.0:8080", value_name = "IP:PORT")]
    pub admin_address: SocketAddr,

    /// Service of the webhook; the serving certificate is made for its name
    #[arg(long, default_value = "sidecar-operator-webhook", value_name = "NAME")]
    pub webhook_service: String,

    /// MutatingWebhookConfiguration whose caBundle is kept current
    #[arg(long, default_value = "sidecar-operator", value_name = "NAME")]
    pub webhook_configuration: String,

    /// Secret that keeps the CA and the serving certificate
    #[arg(long, default_value = "sidecar-operator-certificates", value_name = "NAME")]
    pub certificate_secret: String,

    /// Lease that decides which replica writes
    #[arg(long, default_value = "sidecar-operator", value_name = "NAME")]
    pub lease: String,

    /// Deployment of the operator, the owner of its Secret and Lease
    #[arg(long, default_value = "sidecar-operator", value_name = "NAME")]
    pub deployment: String,

    /// How long a new CA is valid; it is replaced after two thirds of that
    #[arg(long, default_value = "365d", value_parser = validity, value_name = "DURATION")]
    pub ca_validity: Duration,

    /// How long a new serving certificate is valid; it is replaced after two thirds of that
    #[arg(long, default_value = "7d", value_parser = validity, value_name = "DURATION")]
    pub leaf_validity: Duration,

    /// Read tls.crt and tls.key from this directory, and leave the caBundle to whoever writes them (cert-manager)
    #[arg(long, value_name = "DIRECTORY")]
    pub certificate_dir: Option<PathBuf>,

    /// How much is logged
    #[arg(long, value_enum, default_value_t, value_name = "LEVEL")]
    pub log_level: LogLevel,

    /// How log lines are written
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// `operator inject` and `operator explain`.
#[derive(Debug, Clone, Args)]
pub struct OfflineArgs {
    /// Manifests to read, YAML or JSON, of any number of documents; - is standard input
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// Policies to choose from; documents of other kinds in the file are left out
    #[arg(long = "policy", value_name = "FILE", required = true)]
    pub policies: Vec<PathBuf>,

    /// Namespace of the documents and policies that name none
    #[arg(short, long, default_value = "default", value_name = "NAMESPACE")]
    pub namespace: String,

    /// Image of the sidecar where the policy names none
    #[arg(long, default_value = concat!("sidecar:", env!("CARGO_PKG_VERSION")), value_name = "IMAGE")]
    pub sidecar_image: String,

    /// What mode Auto becomes, since there is no cluster to ask: native needs Kubernetes 1.29 or newer on every node
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    pub mode: AutoMode,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum AutoMode {
    #[default]
    Native,
    Container,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    #[default]
    Json,
    Text,
}

/// A duration that may also be written in days, which certificates are counted in.
fn validity(text: &str) -> Result<Duration, String> {
    let days =
        text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok()).filter(|days| *days <= 36_500);
    let duration = match days {
        Some(days) => Duration::from_secs(days * 86_400),
        None => text
            .parse::<Duration>()
            .map_err(|_| format!("{text:?} is not a duration; write it like 365d, 168h or 90s"))?,
    };
    if duration < Duration::from_secs(5) {
        return Err(format!("{text:?} is too short; write at least 5s"));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn validity_is_counted_in_days_or_less() {
        assert_eq!(validity("365d"), Ok(Duration::from_secs(365 * 86_400)));
        assert_eq!(validity("90s"), Ok(Duration::from_secs(90)));
        for text in ["1s", "7", "d", "-1d", "9999999d"] {
            assert!(validity(text).is_err(), "{text}");
        }
    }
}
