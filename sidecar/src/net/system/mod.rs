//! Calls of the kernel that no safe library has as they are needed here: the one place with unsafe code. Each module says what
//! its own relies on.
#![allow(unsafe_code)]

pub mod datagrams;
pub(crate) mod options;
