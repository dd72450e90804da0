//! UDP listeners.

mod access;
mod lifecycle;
mod passing;
mod support;
