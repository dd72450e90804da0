//! boto3, and requests signed by hand, each check of `boto.py` as a test.

use anyhow::{Result, ensure};
use e2e::{Minio, python};

use crate::origin::Origin;

fn holds(check: &str) -> Result<()> {
    let origin = Origin::shared();
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/s3/boto.py");
    let (through, direct) = (origin.through(), origin.direct());
    let output = python(&script, &[check, &through, &direct, Minio::USER, Minio::PASSWORD])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{check}: {said}\nthe sidecar's log:\n{}", origin.sidecar.log());
    Ok(())
}

#[test]
fn objects_of_any_size_are_put_got_and_deleted() -> Result<()> {
    holds("put_get_head_delete")
}

#[test]
fn ranges_are_those_of_the_origin() -> Result<()> {
    holds("ranges")
}

#[test]
fn conditions_are_judged_by_the_origin() -> Result<()> {
    holds("conditions")
}

#[test]
fn parts_are_uploaded_at_once_and_downloaded_at_once() -> Result<()> {
    holds("multipart")
}

#[test]
fn presigned_urls_verify_and_changed_ones_do_not() -> Result<()> {
    holds("presigned")
}

#[test]
fn objects_and_parts_are_copied_from_odd_names() -> Result<()> {
    holds("copy")
}

#[test]
fn odd_keys_reach_the_origin_byte_for_byte() -> Result<()> {
    holds("odd_keys")
}

#[test]
fn lists_are_the_same_through_the_sidecar() -> Result<()> {
    holds("lists")
}

#[test]
fn a_content_encoding_is_kept_and_nothing_is_decoded() -> Result<()> {
    holds("encoding_is_kept")
}

#[test]
fn signatures_of_chunks_and_trailers_verify_at_the_origin() -> Result<()> {
    holds("chunk_signatures")
}

#[test]
fn checksums_in_trailers_verify_at_the_origin() -> Result<()> {
    holds("checksums")
}
