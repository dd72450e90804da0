//! `sidecar top`: flags -> what to show.

use std::{env, io, io::IsTerminal, time::Duration};

use clap::Args;

use super::duration;
use crate::top::{self, AdminAddress, Format, TopError};

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(3600);

#[derive(Debug, Args)]
pub(super) struct Top {
    /// Address at which the sidecar serves /metrics
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:15470")]
    admin_address: AdminAddress,

    /// Time between two looks, over which rates are taken
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    interval: Duration,

    /// Look twice, print once and end
    #[arg(long)]
    once: bool,

    /// How to print: a table, or a JSON object a line
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "text")]
    output: Format,

    /// No colours; the variable NO_COLOR says the same
    #[arg(long)]
    no_color: bool,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  sidecar top
  sidecar top --admin-address http://10.1.2.3:15470 --interval 5s
  kubectl exec -it POD -c sidecar -- /sidecar top
  sidecar top --once -o json | jq '.listeners[].sites[].backends[] | select(.state == \"down\")'

UPLOAD is what backends get, DOWNLOAD what they give. A listener's failures are what the application saw,
a backend's are its own: a request that another backend then answered counts there alone.";

impl Top {
    pub(super) fn execute(self) -> Result<(), TopError> {
        let silent = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        top::run(top::Options {
            address: self.admin_address,
            interval: self.interval,
            once: self.once,
            format: self.output,
            colour: !self.no_color && !silent && io::stdout().is_terminal(),
        })
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration::parse(text).map_err(|error| error.to_string())?;
    if (SHORTEST..=LONGEST).contains(&interval) {
        Ok(interval)
    } else {
        Err("it is not between 100ms and 1h".to_owned())
    }
}
