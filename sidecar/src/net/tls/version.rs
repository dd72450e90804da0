//! Versions of TLS, from the settings' words to rustls's.

use std::ops::RangeInclusive;

use crds::config::TlsVersion;
use rustls::{SupportedProtocolVersion, version};

/// Those that may be spoken; none where the range is empty, which rustls refuses.
pub(super) fn versions(range: &RangeInclusive<TlsVersion>) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(TlsVersion::V12, &version::TLS12), (TlsVersion::V13, &version::TLS13)];
    all.into_iter().filter(|(version, _)| range.contains(version)).map(|(_, version)| version).collect()
}
