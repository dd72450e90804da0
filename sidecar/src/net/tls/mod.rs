//! TLS as the data plane wants it: by rustls alone, with ring.

mod identity;

pub use identity::Identity;
