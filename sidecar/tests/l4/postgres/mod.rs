//! Listeners whose clients and backends speak PostgreSQL.

mod asking;
mod cancelling;
mod proving;
mod server;
mod starting;
