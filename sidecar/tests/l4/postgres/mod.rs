//! Listeners whose clients and backends speak PostgreSQL.

mod cancelling;
mod proving;
mod server;
mod starting;
