//! Listeners whose clients and backends speak PostgreSQL.

mod cancelling;
mod server;
mod starting;
