//! Choosing a backend: sets (discovery) + checks (probe) -> route -> pick. Knows no protocol.
//!
//! One task per listener writes the route; whoever forwards reads snapshots of it, and reports what it saw through the
//! atomics of a [`Backend`], which lives as long as site and address stay in the sets.

mod backend;
mod budget;
mod check;
mod follow;
mod health;
mod pick;
mod route;
mod set;

pub use backend::{Backend, Busy};
pub use budget::RetryBudget;
pub use follow::{Balancer, SiteInput};
pub use health::Condition;
pub use route::Route;
pub use set::{BackendSet, Endpoint, Unavailable};
