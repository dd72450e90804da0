//! What the project promises, each promise a test with real pods on a real cluster. These scenarios run beside each other.

mod admission;
mod balancing;
mod configuration;
mod examples;
mod pods;
mod references;
mod refusals;
mod tcp;
mod webhooks;
