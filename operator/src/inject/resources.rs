//! CPU and memory of the sidecar: the pod's annotation, else the policy, else a default that yields to what was written.

use std::fmt;

use crds::{names::annotations, policy::Resources, units::Quantity};
use serde_json::{Map, Value, json};

use super::{InjectError, overrides::Overrides};

const CPU_REQUEST: &str = "50m";
const MEMORY_REQUEST: &str = "32Mi";
const MEMORY_LIMIT: &str = "128Mi";
/// Below this the sidecar is killed for memory before it can say why.
const LEAST_MEMORY: &str = "16Mi";
/// More threads than this only cost memory.
const MAX_THREADS: u128 = 64;

/// What the container asks for. There is always a request and a memory limit; a request is never above its limit.
#[derive(Debug)]
pub(super) struct Amounts {
    cpu_request: Quantity,
    cpu_limit: Option<Quantity>,
    memory_request: Quantity,
    memory_limit: Quantity,
}

impl Amounts {
    pub(super) fn new(
        overrides: &Overrides,
        resources: &Resources,
        policy: &str,
    ) -> Result<Self, InjectError> {
        let Resources { requests, limits } = resources;
        let pick = |own: &Option<Quantity>, annotation, shared: &Option<Quantity>, field| {
            let own =
                own.clone().map(|quantity| Written { quantity, source: Source::Annotation(annotation) });
            own.or_else(|| {
                let source = Source::Policy { policy: policy.to_owned(), field };
                shared.clone().map(|quantity| Written { quantity, source })
            })
        };
        let cpu_request =
            pick(&overrides.cpu_request, annotations::CPU_REQUEST, &requests.cpu, "requests.cpu");
        let cpu_limit = pick(&overrides.cpu_limit, annotations::CPU_LIMIT, &limits.cpu, "limits.cpu");
        let memory_request =
            pick(&overrides.memory_request, annotations::MEMORY_REQUEST, &requests.memory, "requests.memory");
        let memory_limit =
            pick(&overrides.memory_limit, annotations::MEMORY_LIMIT, &limits.memory, "limits.memory");

        for (request, limit) in [(&cpu_request, &cpu_limit), (&memory_request, &memory_limit)] {
            within(request.as_ref(), limit.as_ref())?;
        }
        if let Some(limit) = &cpu_limit {
            at_least(limit, "1m")?;
        }
        if let Some(limit) = &memory_limit {
            at_least(limit, LEAST_MEMORY)?;
        }

        let cpu_limit = cpu_limit.map(|written| written.quantity);
        let memory_limit = memory_limit.map(|written| written.quantity);
        let cpu_request = match cpu_request {
            Some(written) => written.quantity,
            None => smaller(default(CPU_REQUEST)?, cpu_limit.as_ref()),
        };
        let memory_request = match memory_request {
            Some(written) => written.quantity,
            None => smaller(default(MEMORY_REQUEST)?, memory_limit.as_ref()),
        };
        let memory_limit = match memory_limit {
            Some(limit) => limit,
            None => larger(default(MEMORY_LIMIT)?, &memory_request),
        };
        Ok(Self { cpu_request, cpu_limit, memory_request, memory_limit })
    }

    /// Threads of the data plane: the CPU limit rounded up. Without a limit the sidecar's own default holds.
    pub(super) fn threads(&self) -> Option<u128> {
        self.cpu_limit.as_ref().map(|limit| limit.ceil().clamp(1, MAX_THREADS))
    }

    pub(super) fn to_json(&self) -> Value {
        let mut limits = Map::new();
        if let Some(cpu) = &self.cpu_limit {
            limits.insert("cpu".to_owned(), cpu.as_str().into());
        }
        limits.insert("memory".to_owned(), self.memory_limit.as_str().into());
        json!({
            "limits": limits,
            "requests": {"cpu": self.cpu_request.as_str(), "memory": self.memory_request.as_str()},
        })
    }
}

/// An amount that somebody wrote, and where.
struct Written {
    quantity: Quantity,
    source: Source,
}

enum Source {
    Annotation(&'static str),
    Policy { policy: String, field: &'static str },
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Annotation(annotation) => write!(f, "annotation {annotation} ({})", self.quantity),
            Source::Policy { policy, field } => {
                write!(f, "spec.injection.resources.{field} of policy {policy} ({})", self.quantity)
            }
        }
    }
}

fn within(request: Option<&Written>, limit: Option<&Written>) -> Result<(), InjectError> {
    match (request, limit) {
        (Some(request), Some(limit)) if request.quantity.thousandths() > limit.quantity.thousandths() => {
            let problem = format!("{request} is more than {limit}: lower the request or raise the limit");
            Err(InjectError::Resources { problem })
        }
        _ => Ok(()),
    }
}

fn at_least(written: &Written, least: &str) -> Result<(), InjectError> {
    if written.quantity.thousandths() < default(least)?.thousandths() {
        let problem = format!("{written} is too little for the sidecar: write at least {least}");
        return Err(InjectError::Resources { problem });
    }
    Ok(())
}

fn default(text: &str) -> Result<Quantity, InjectError> {
    text.parse().map_err(|_| InjectError::Encoding)
}

fn smaller(quantity: Quantity, limit: Option<&Quantity>) -> Quantity {
    match limit {
        Some(limit) if limit.thousandths() < quantity.thousandths() => limit.clone(),
        _ => quantity,
    }
}

fn larger(quantity: Quantity, request: &Quantity) -> Quantity {
    if request.thousandths() > quantity.thousandths() { request.clone() } else { quantity }
}
