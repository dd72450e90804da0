//! Configuration: bytes -> [`load`] -> [`Checked`], and where the bytes come from ([`source`]).
//!
//! A [`Checked`] cannot hold a wrong value; what is wrong with a file is told in full, each error with line, field and
//! remedy. Unknown fields are warnings, so that a sidecar of this release reads what a newer operator writes.

mod checked;
mod diagnose;
pub mod files;
mod l4;
mod lines;
mod load;
mod places;
mod problem;
mod rules;
mod shape;
pub mod source;
mod stack;

#[cfg(test)]
mod tests;

pub use checked::{Checked, CheckedHttp, CheckedListener, CheckedSite, CheckedTcp, CheckedUdp};
pub use load::{Loaded, MAX_SIZE, load};
pub use problem::{Problem, Rejected};
