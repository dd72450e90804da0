//! What tests against a real API server or a real cluster share.
//!
//! A scenario on the cluster runs in [`with_namespace`], or alone in [`with_cluster_alone`]. What it promises is awaited
//! by [`eventually`], and a promise that is not kept is reported with what pods, events and logs say.

pub mod apiserver;
mod child;
mod cluster;
mod diagnosis;
mod eventually;
mod injected;
mod local;
pub mod manifests;
mod namespace;
mod operator;
mod process;
mod traffic;
pub mod workload;

pub use child::{Process, free_ports, path_from};
pub use cluster::Cluster;
pub use eventually::eventually;
pub use injected::{sidecar, sidecar_restarts};
pub use local::{LocalSidecar, Minio, PythonServer, built, interpreter, python};
pub use namespace::{Namespace, has_condition, with_cluster_alone, with_namespace};
pub use operator::Operator;
pub use process::Output;
pub use traffic::Load;
