//! The command line: arguments -> what to do. Environment variables of the pod fill in what no flag says.

mod check;

use std::{
    fs,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    runtime::{self, ConfigMapName, Mode},
    telemetry::log,
};

/// Balances an application's HTTP requests over backends, with failover, from the application's loopback.
#[derive(Debug, Parser)]
#[command(name = "sidecar", version, arg_required_else_help = true)]
pub struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Serve a configuration until SIGTERM, following its changes
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<Run>),
    /// Print everything that is wrong with a configuration
    #[command(after_help = CHECK_EXAMPLES)]
    Check {
        /// A file, or a directory with sidecar.vN.yaml files
        #[arg(long, value_name = "PATH")]
        config: PathBuf,
    },
    /// Print completions for a shell
    Completions { shell: Shell },
}

#[derive(Debug, Args)]
struct Run {
    /// A file, or a directory with sidecar.vN.yaml files as a mounted ConfigMap has them
    #[arg(long, value_name = "PATH")]
    config: PathBuf,

    /// ConfigMap to follow through the Kubernetes API too, in the pod's namespace
    #[arg(long, value_name = "NAME")]
    config_map: Option<String>,

    /// Namespace of the ConfigMap [default: that of the pod's ServiceAccount]
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", hide_env_values = true)]
    namespace: Option<String>,

    /// Directory for the last good configuration and backends, for a restart while they cannot be asked for
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Threads that serve requests
    #[arg(long, value_name = "N", default_value = "2")]
    threads: NonZeroUsize,

    /// Address of /live, /ready and /metrics [default: all addresses, port 15470]
    #[arg(long, value_name = "ADDRESS")]
    admin_address: Option<SocketAddr>,

    /// Address of the pod, which tells the family of the admin address
    #[arg(long, value_name = "IP", env = "POD_IP", hide = true)]
    pod_ip: Option<String>,

    /// Zone of the machine, for backends that are preferred in the same zone
    #[arg(long, value_name = "NAME", env = "SIDECAR_ZONE", hide_env_values = true)]
    zone: Option<String>,

    /// How the pod runs this container: it tells when to stop accepting after SIGTERM
    #[arg(long, value_enum, default_value = "native")]
    mode: Mode,

    /// How much to log
    #[arg(long, value_enum, default_value = "info")]
    log_level: log::Level,

    /// How to log [default: text on a terminal, json elsewhere]
    #[arg(long, value_enum)]
    log_format: Option<log::Format>,
}

const RUN_EXAMPLES: &str = "\
Examples:
  sidecar run --config sidecar.yaml
  sidecar run --config sidecar.yaml --threads 4 --admin-address 127.0.0.1:15470
  sidecar run --config /etc/sidecar --config-map sidecar-data --state-dir /var/run/sidecar

A smallest configuration:
  http:
  - name: web
    port: 8080
    sites:
    - name: main
      backends: [{addresses: [\"10.0.0.{1...3}:80\"]}]";

const CHECK_EXAMPLES: &str = "\
Examples:
  sidecar check --config sidecar.yaml

Errors are printed as FILE:LINE: FIELD: MESSAGE; REMEDY, and the exit code is 1.";

impl Command {
    /// Does it. Exit code 0 is success and 1 failure; clap has ended the process with 2 on wrong usage.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        match self.action {
            Action::Run(run) => run.execute().map(|()| ExitCode::SUCCESS),
            Action::Check { config } => check::check(&config, &mut io::stdout(), &mut io::stderr())
                .context("the result cannot be printed"),
            Action::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "sidecar", &mut script);
                io::stdout().write_all(&script).context("the completions cannot be printed")?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

impl Run {
    fn execute(self) -> anyhow::Result<()> {
        log::start(self.log_level, self.log_format);
        let config_map = match self.config_map {
            Some(name) => Some(ConfigMapName { namespace: namespace(self.namespace)?, name }),
            None => None,
        };
        runtime::run(runtime::Options {
            config: self.config,
            config_map,
            state_dir: self.state_dir,
            threads: self.threads,
            admin_address: self
                .admin_address
                .unwrap_or_else(|| default_admin_address(self.pod_ip.as_deref())),
            zone: self.zone.filter(|zone| !zone.is_empty()),
            mode: self.mode,
        })?;
        Ok(())
    }
}

fn namespace(given: Option<String>) -> anyhow::Result<String> {
    if let Some(namespace) = given.filter(|namespace| !namespace.is_empty()) {
        return Ok(namespace);
    }
    let path = format!("{}/namespace", crds::names::volumes::TOKEN_PATH);
    let namespace = fs::read_to_string(&path).with_context(|| {
        format!("the namespace of --config-map is unknown ({path} cannot be read); set --namespace or POD_NAMESPACE")
    })?;
    Ok(namespace.trim().to_owned())
}

/// A pod with an IPv6 address alone is not reached at 0.0.0.0.
fn default_admin_address(pod_ip: Option<&str>) -> SocketAddr {
    let ip = match pod_ip.and_then(|ip| ip.parse().ok()) {
        Some(IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    SocketAddr::new(ip, crds::names::ADMIN_PORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Command::command().debug_assert();
    }

    #[test]
    fn the_arguments_that_pods_get_are_understood() {
        let arguments = "sidecar run --config /etc/sidecar --config-map sidecar-data --state-dir /var/run/sidecar \
                         --threads 3 --mode container --log-level debug";
        let command = Command::try_parse_from(arguments.split_whitespace()).unwrap();
        let Action::Run(run) = command.action else { panic!("not run") };
        assert_eq!(run.threads.get(), 3);
        assert_eq!(run.mode, Mode::Container);
        assert_eq!(run.config_map.as_deref(), Some("sidecar-data"));
        assert!(Command::try_parse_from(["sidecar", "run", "--config", "a", "--threads", "0"]).is_err());
        assert!(Command::try_parse_from(["sidecar", "check"]).is_err());
    }

    #[test]
    fn the_admin_address_is_of_the_pods_family() {
        for (pod_ip, address) in [
            (None, "0.0.0.0:15470"),
            (Some("10.1.2.3"), "0.0.0.0:15470"),
            (Some("fd00::1"), "[::]:15470"),
            (Some(""), "0.0.0.0:15470"),
        ] {
            assert_eq!(default_admin_address(pod_ip).to_string(), address);
        }
    }
}
