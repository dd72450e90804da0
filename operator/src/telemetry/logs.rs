//! Structured logs on standard error.

use tracing_subscriber::{
    filter::LevelFilter, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::command::{LogFormat, LogLevel};

/// Logging is already set up in this process.
#[derive(Debug, thiserror::Error)]
#[error("logging is already set up")]
pub struct LogError(#[from] tracing_subscriber::util::TryInitError);

/// Sets up logging for the process. Libraries say no more than warnings, below the level debug.
pub fn init(level: LogLevel, format: LogFormat) -> Result<(), LogError> {
    let own = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let libraries = if own <= LevelFilter::INFO { own.min(LevelFilter::WARN) } else { LevelFilter::INFO };
    let filter = Targets::new().with_default(libraries).with_target("operator", own);
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Json => {
            registry.with(lines.json().flatten_event(true).with_current_span(false)).try_init()?
        }
        LogFormat::Text => registry.with(lines).try_init()?,
    }
    Ok(())
}
