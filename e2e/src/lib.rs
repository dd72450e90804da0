//! What tests against a real API server or a real cluster share.

pub mod apiserver;
