//! HTTP/2, translated where it comes in and where it goes out: the loop of HTTP/1.1 between sees nothing else, so that
//! retries, verdicts, budgets and limits exist once.
//!
//! client's connection -> [`Front`] -> a lane for each stream under way, which serves one request after the other ->
//! forward -> a stream of a [`Link`] that the pool of the backend shares. Nothing is read ahead of what the other side takes:
//! windows open as bytes go out. A stream that breaks off is reset, and never ended.

mod broken;
mod download;
mod fields;
mod front;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod inbound;
mod link;
mod links;
mod outbound;
mod pulse;
mod upload;

pub(super) use broken::Unsent;
pub(super) use front::{PREFACE, serve};
pub(super) use inbound::Inbound;
pub(super) use links::{Links, Met, NotMet};
pub(super) use outbound::Outbound;

/// Bytes of one stream that may come before they are taken: 256 MB/s at a millisecond's distance.
const STREAM_WINDOW: u32 = 256 * 1024;

/// Longer frames than the least cost less; one is held whole while it comes.
const FRAME: u32 = 64 * 1024;

/// Bytes of one stream that wait to be sent.
const SEND_BUFFER: usize = 128 * 1024;

/// All fields of a head, as the protocol counts them, which is more than their bytes.
#[expect(clippy::cast_possible_truncation, reason = "it is far below")]
const HEADERS: u32 = super::message::MAX_HEAD as u32;
