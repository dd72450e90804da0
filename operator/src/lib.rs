//! The operator: a mutating admission webhook and a controller in one process, around one pure function, [`inject`].

pub mod certificates;
pub mod command;
pub mod controller;
pub mod inject;
pub mod run;
pub mod telemetry;
mod watches;
pub mod webhook;
