//! Every metric of the sidecar, as the reference lists it.

use crds::metrics::{self, Group};

use super::{lines, metrics::Control, process, spans};
use crate::{http, l4, net::tls};

const INTRODUCTION: &str = "At `/metrics` on port 15470 of each injected pod, and at `--admin-address` of a sidecar elsewhere. A listener, a site
and a backend are labelled as the configuration calls them, a backend by its address; the series of a backend that has gone
go with it, so that their number is bounded by the backends there are. A backend of a route of a TCP listener has the label
`route` too.";

/// The sidecar's section of the reference.
pub fn page() -> String {
    metrics::reference("The sidecar", INTRODUCTION, &groups())
}

/// All families.
pub fn groups() -> Vec<Group> {
    let mut groups = Vec::from(http::groups());
    groups.extend(l4::groups());
    groups.push(Group { title: "TLS", metrics: tls::FAMILIES.to_vec() });
    groups.push(Group { title: "Configuration", metrics: Control::FAMILIES.to_vec() });
    groups.push(Group { title: "Access log", metrics: vec![&lines::DROPPED] });
    groups.push(Group { title: "Traces", metrics: spans::FAMILIES.to_vec() });
    groups.push(Group { title: "Process", metrics: process::FAMILIES.to_vec() });
    groups
}
