//! MinIO with the sidecar in front of it, one pair for all tests.

use std::{path::Path, sync::OnceLock};

use anyhow::Result;
use e2e::{LocalSidecar, Minio};

pub(crate) struct Origin {
    pub(crate) sidecar: LocalSidecar,
    minio: Minio,
}

impl Origin {
    /// The pair of this program, started by the first call.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Result<Origin>> = OnceLock::new();
        match SHARED.get_or_init(|| Self::start("shared")) {
            Ok(origin) => origin,
            Err(error) => panic!("the origin of this test did not start: {error:#}"),
        }
    }

    /// A pair of its own, by this name.
    pub(crate) fn start(name: &str) -> Result<Self> {
        let minio = Minio::start(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("minio").join(name))?;
        let sidecar = LocalSidecar::start(minio.address, Some(Minio::HEALTH))?;
        Ok(Self { sidecar, minio })
    }

    pub(crate) fn through(&self) -> String {
        format!("http://{}", self.sidecar.address)
    }

    pub(crate) fn direct(&self) -> String {
        format!("http://{}", self.minio.address)
    }
}
