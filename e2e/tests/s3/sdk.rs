//! The AWS SDK for Rust. Over plain HTTP it signs a body that it streams chunk by chunk, with its checksum in a signed trailer.

mod stream;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aws_sdk_s3::{
    Client,
    config::{Credentials, Region},
    presigning::PresigningConfig,
    primitives::ByteStream,
    types::{CompletedMultipartUpload, CompletedPart},
};
use aws_smithy_http_client::Builder;
use e2e::Minio;

use crate::origin::Origin;

const MIB: usize = 1 << 20;

/// A client of the sidecar, and a bucket of this name.
async fn client(origin: &Origin, bucket: &str) -> Result<Client> {
    let config = aws_sdk_s3::Config::builder()
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(Minio::USER, Minio::PASSWORD, None, None, "tests"))
        .endpoint_url(origin.through())
        .force_path_style(true)
        .http_client(Builder::new().build_http())
        .build();
    let client = Client::from_conf(config);
    client.create_bucket().bucket(bucket).send().await?;
    Ok(client)
}

async fn shared() -> Result<&'static Origin> {
    Ok(tokio::task::spawn_blocking(Origin::shared).await?)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect()
}

#[tokio::test]
async fn the_sdk_puts_and_gets_objects_and_ranges_of_them() -> Result<()> {
    let s3 = client(shared().await?, "sdk-objects").await?;
    for (key, length) in [("empty", 0), ("small", 10), ("ü +%2b/鍵", 300_001)] {
        let body = pattern(length);
        let put = s3.put_object().bucket("sdk-objects").key(key).body(body.clone().into()).send().await?;
        let got = s3.get_object().bucket("sdk-objects").key(key).send().await?;
        ensure!(put.e_tag == got.e_tag, "{key}");
        ensure!(got.body.collect().await?.to_vec() == body, "{key}");
        let head = s3.head_object().bucket("sdk-objects").key(key).send().await?;
        ensure!(head.content_length == Some(length as i64), "{key}: {head:?}");
        if length > 100 {
            let part = s3.get_object().bucket("sdk-objects").key(key).range("bytes=77-99").send().await?;
            ensure!(part.body.collect().await?.to_vec() == body[77..100], "{key}");
        }
    }
    let listed = s3.list_objects_v2().bucket("sdk-objects").send().await?;
    let keys: Vec<_> = listed.contents().iter().filter_map(|object| object.key()).collect();
    ensure!(keys == ["empty", "small", "ü +%2b/鍵"], "{keys:?}");
    Ok(())
}

#[tokio::test]
async fn the_sdk_uploads_in_parts_and_copies() -> Result<()> {
    let bucket = "sdk-parts";
    let s3 = client(shared().await?, bucket).await?;
    let body = pattern(11 * MIB);
    let upload = s3.create_multipart_upload().bucket(bucket).key("whole").send().await?;
    let id = upload.upload_id().context("no upload id")?;
    let uploads = body.chunks(5 * MIB).zip(1..).map(|(part, number)| {
        let put = s3.upload_part().bucket(bucket).key("whole").upload_id(id).part_number(number);
        let put = put.body(part.to_vec().into());
        async move {
            let done = put.send().await?;
            anyhow::Ok(CompletedPart::builder().set_e_tag(done.e_tag).part_number(number).build())
        }
    });
    let parts = futures::future::try_join_all(uploads).await?;
    let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
    let complete = s3.complete_multipart_upload().bucket(bucket).key("whole").upload_id(id);
    complete.multipart_upload(parts).send().await?;
    s3.copy_object().bucket(bucket).key("copy").copy_source("sdk-parts/whole").send().await?;
    let copy = s3.get_object().bucket(bucket).key("copy").send().await?;
    ensure!(copy.body.collect().await?.to_vec() == body);
    Ok(())
}

#[tokio::test]
async fn the_sdks_presigned_urls_verify() -> Result<()> {
    let bucket = "sdk-presigned";
    let s3 = client(shared().await?, bucket).await?;
    s3.put_object().bucket(bucket).key("a+b ü").body(pattern(1000).into()).send().await?;
    let hour = PresigningConfig::expires_in(Duration::from_secs(3600))?;
    let url = s3.get_object().bucket(bucket).key("a+b ü").presigned(hour).await?;
    let (status, body) = stream::fetch(url.uri()).await?;
    ensure!((status, body) == (200, pattern(1000)));
    let (status, _) = stream::fetch(&url.uri().replace("Expires=3600", "Expires=3601")).await?;
    ensure!(status == 403, "a changed signature was accepted: {status}");
    Ok(())
}

#[tokio::test]
async fn gigabytes_stream_both_ways_with_flat_memory() -> Result<()> {
    let bucket = "sdk-stream";
    // Of its own, so that no other test has a part in its memory.
    let origin = tokio::task::spawn_blocking(|| Origin::start("stream")).await??;
    let s3 = client(&origin, bucket).await?;
    s3.put_object().bucket(bucket).key("first").body(pattern(MIB).into()).send().await?;
    let before = origin.sidecar.peak_memory()?;
    let body = ByteStream::from_body_1_x(stream::Pattern::of(stream::LENGTH));
    let put = s3.put_object().bucket(bucket).key("large").content_length(stream::LENGTH as i64);
    put.body(body).send().await?;
    let uploaded = origin.sidecar.peak_memory()?;
    let got = s3.get_object().bucket(bucket).key("large").send().await?;
    let length = stream::compare(got.body).await?;
    let downloaded = origin.sidecar.peak_memory()?;
    eprintln!(
        "1 GiB each way: {before} MiB before, {uploaded} after the upload, {downloaded} after the download"
    );
    ensure!(length == stream::LENGTH, "{length}");
    ensure!(downloaded <= before + 16, "{before} MiB before, {uploaded} MiB, {downloaded} MiB");
    Ok(())
}
