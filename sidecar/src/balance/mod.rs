//! Choosing a backend: sets (discovery) + checks (probe) + outcomes of requests -> route -> pick. Knows no protocol.
//!
//! One task per listener writes the route; whoever forwards reads snapshots of it, and reports what it saw through the
//! atomics of a [`Backend`], which lives as long as site and address stay in the sets. A pick allocates and locks nothing.

mod backend;
mod budget;
mod check;
mod downtime;
mod ejection;
mod entry;
mod follow;
mod hash;
mod health;
mod method;
mod outcome;
mod ring;
mod route;
mod rules;
mod set;
mod shared;
mod tier;
mod watcher;
mod zone;

pub use backend::{Backend, Busy, Connecting, Open};
pub use budget::RetryBudget;
pub use follow::{Balancer, SiteInput};
pub use hash::hash;
pub use health::Condition;
pub use outcome::Outcome;
pub use route::{Picked, Route, Wish};
pub use rules::Rules;
pub use set::{BackendSet, Endpoint, Nearness, Unavailable};
pub use watcher::{Checked, Watcher};
