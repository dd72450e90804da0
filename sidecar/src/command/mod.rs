//! The command line: arguments -> what to do. Environment variables of the pod fill in what no flag says.

mod balance;
mod check;
mod duration;
mod go_flags;
mod l4;
mod top;
mod usage;

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
#[cfg(any(test, fuzzing))]
pub(crate) use balance::fuzzing;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use tokio_util::sync::CancellationToken;

use crate::{
    runtime::{self, ConfigMapName, Configuration, Mode},
    telemetry::log,
};

/// Balances an application's HTTP requests over backends, with failover, from the application's loopback.
#[derive(Debug, Parser)]
#[command(name = SIDECAR, version, arg_required_else_help = true)]
struct Command {
    #[command(subcommand)]
    action: Action,
}

/// What is to be done, and the name by which the program was told so.
#[derive(Debug)]
pub struct Invocation {
    program: &'static str,
    command: Command,
}

/// High-performance sidecar load balancer: `sidecar balance` by the name of MinIO's sidekick
#[derive(Debug, Parser)]
#[command(name = SIDEKICK, version, disable_version_flag = true, after_help = balance::EXAMPLES, args_override_self = true)]
struct Sidekick {
    #[command(flatten)]
    balance: balance::Arguments,

    /// Print the version
    #[arg(short, long, action = clap::ArgAction::Version)]
    version: Option<bool>,
}

/// Sidecar load balancer for TCP and UDP: `sidecar l4` by the name of SideLB
#[derive(Debug, Parser)]
#[command(name = SIDELB, version, after_help = l4::EXAMPLES, arg_required_else_help = true)]
struct Sidelb {
    #[command(flatten)]
    l4: l4::Arguments,
}

/// Names by which the program is called for one command line alone.
const SIDEKICK: &str = "sidekick";
const SIDELB: &str = "sidelb";
const SIDECAR: &str = "sidecar";

#[derive(Debug, Subcommand)]
enum Action {
    /// Serve a configuration until SIGTERM, following its changes
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<Run>),
    /// Balance over the servers on the command line, as MinIO's sidekick does
    #[command(after_help = balance::EXAMPLES, args_override_self = true)]
    Balance(Box<balance::Arguments>),
    /// Pass TCP connections or UDP datagrams on to the servers on the command line, as SideLB does
    #[command(after_help = l4::EXAMPLES)]
    L4(l4::Arguments),
    /// Print everything that is wrong with a configuration
    #[command(after_help = CHECK_EXAMPLES)]
    Check {
        /// A file, or a directory with sidecar.vN.yaml files
        #[arg(long, value_name = "PATH")]
        config: PathBuf,
    },
    /// Show what a running sidecar does: backends, rates, failures and latency, as they change
    #[command(after_help = top::EXAMPLES)]
    Top(top::Top),
    /// Tell a running sidecar that its pod is about to end: clients of HTTP listeners that serve other pods are asked to
    /// go elsewhere as they are answered, while new ones are still served
    Leave {
        /// That of the sidecar
        #[arg(long, value_name = "DIR")]
        state_dir: PathBuf,
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

impl Invocation {
    /// Reads the arguments of the process, of which the first says by what name it was called. Help, and one line on wrong
    /// usage, are printed; then there is an exit code instead of a command.
    pub fn of_process() -> Result<Self, ExitCode> {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        let program = called(arguments.first());
        match Command::read(arguments) {
            Ok(command) => Ok(Self { program, command }),
            Err(error) => Err(ExitCode::from(usage::tell(&error, program))),
        }
    }

    /// Does it, and says in one line why that could not be. Exit code 0 is success, 1 failure and 2 wrong usage.
    pub fn execute(self) -> ExitCode {
        self.command.execute().unwrap_or_else(|error| {
            // There is nobody left to tell of a terminal that has gone.
            let _ = writeln!(io::stderr(), "{}: {error:#}", self.program);
            ExitCode::FAILURE
        })
    }
}

impl Command {
    /// By the name in the first argument.
    fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut arguments: Vec<OsString> = arguments.into_iter().collect();
        let program = called(arguments.first());
        if program == SIDELB {
            return Ok(Self { action: Action::L4(Sidelb::try_parse_from(arguments)?.l4) });
        }
        if program == SIDEKICK {
            let flags = go_flags::rewrite(arguments.drain(1..), &Sidekick::command());
            let sidekick = Sidekick::try_parse_from([SIDEKICK.into()].into_iter().chain(flags))?;
            return Ok(Self { action: Action::Balance(Box::new(sidekick.balance)) });
        }
        if arguments.get(1).is_some_and(|action| action == "balance") {
            let flags = go_flags::rewrite(arguments.drain(2..), &Sidekick::command());
            arguments.extend(flags);
        }
        Self::try_parse_from(arguments)
    }

    fn execute(self) -> anyhow::Result<ExitCode> {
        match self.action {
            Action::Run(run) => run.execute().map(|()| ExitCode::SUCCESS),
            Action::Balance(balance) => balance.execute().map(|()| ExitCode::SUCCESS),
            Action::L4(l4) => l4.execute(),
            Action::Check { config } => check::check(&config, &mut io::stdout(), &mut io::stderr())
                .context("the result cannot be printed"),
            Action::Top(top) => top.execute().map(|()| ExitCode::SUCCESS).map_err(Into::into),
            Action::Leave { state_dir } => {
                runtime::leaving::tell(&state_dir).map(|()| ExitCode::SUCCESS).map_err(Into::into)
            }
            Action::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), SIDECAR, &mut script);
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
            config: Configuration::Followed { path: self.config, config_map },
            state_dir: self.state_dir,
            threads: self.threads,
            admin_address: self
                .admin_address
                .unwrap_or_else(|| default_admin_address(self.pod_ip.as_deref())),
            zone: self.zone.filter(|zone| !zone.is_empty()),
            mode: self.mode,
            stop: CancellationToken::new(),
            serving: None,
            status_socket: None,
        })?;
        Ok(())
    }
}

/// By what name the program was called, as a link to it may have another.
fn called(program: Option<&OsString>) -> &'static str {
    let name = program.and_then(|program| Path::new(program).file_name());
    [SIDEKICK, SIDELB].into_iter().find(|other| name == Some(OsStr::new(other))).unwrap_or(SIDECAR)
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
    fn the_hook_that_pods_get_is_understood() {
        let hook = ["sidecar", "leave", "--state-dir", crds::names::volumes::STATE_PATH];
        let command = Command::try_parse_from(hook).unwrap();
        assert!(matches!(command.action, Action::Leave { .. }));
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
