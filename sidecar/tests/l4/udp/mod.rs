//! UDP listeners.

mod lifecycle;
mod passing;
mod support;
