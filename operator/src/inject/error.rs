//! Why an opted-in pod cannot get the sidecar. Every message names what is wrong and the remedy.

/// Why an opted-in pod cannot get the sidecar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    /// The pod's author can fix it.
    #[error("annotation {annotation}: {problem}")]
    Annotation { annotation: String, problem: String },
}
