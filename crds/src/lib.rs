//! The API of the project: [`policy::SidecarPolicy`] is what users apply, [`config::SidecarConfig`] is what the
//! operator hands to each sidecar, and [`units`] are the values inside both. Parsed once, valid ever after.

pub mod config;
pub mod generate;
pub mod metrics;
pub mod names;
pub mod policy;
pub mod reference;
mod schema;
pub mod units;
