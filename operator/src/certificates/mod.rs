//! CA and serving certificate of the webhook: Secret -> every replica serves -> caBundle.
//!
//! One Secret, written by the holder of the lease alone and only over the version it read. Every replica serves what the
//! Secret says. At every moment the caBundle holds the CA of every certificate that a replica may serve: a new CA is in the
//! bundle before a certificate from it is, and an old one leaves after its last certificate has.
//!
//! With certificates from files (cert-manager) all but the serving is left to whoever writes them.

mod bundle;
mod manager;
mod material;
mod plan;
mod replicas;
mod serving;
mod watched;

pub use manager::{Manager, Names};
pub use material::{Material, MaterialError, Validities};
pub(crate) use serving::EXPIRY;
pub use serving::{Serving, ServingError, follow_directory};
pub use watched::Watched;
