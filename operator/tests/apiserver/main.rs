//! Controller and certificates against a real API server: etcd and kube-apiserver, no kubelet, no other controller.
//!
//! Two replicas of the controller run for the whole program, with a lease, and with the rights that the chart gives them
//! and no others; each test has namespaces of its own.

mod certificates;
mod controller;
mod lifecycle;
mod support;
mod sweeping;
