//! HTTP/1.1 on sockets: read a head -> forward -> pass the answer on -> the next head. One task serves one client, and does
//! all of it: nothing is handed from task to task, and no byte is copied twice.
//!
//! Deadlines of a connection share one alarm. Buffers are attached while there are bytes in them.

mod attempt;
mod client;
mod goodbye;
mod pump;
mod relay;
mod wire;

pub(super) use attempt::{Attempt, Failure, Upload};
pub(super) use client::{Client, serve, serve_lane};
pub(super) use wire::Wire;
