"""One promise about S3 through the sidecar, kept or not, with boto3 and with requests signed by hand.

    boto.py CHECK THROUGH DIRECT USER PASSWORD

THROUGH and DIRECT are the URLs of the sidecar and of MinIO behind it. Exit code 0 if CHECK holds. Each check has a bucket of its own.
"""
import base64
import datetime
import gzip
import hashlib
import hmac
import http.client
import io
import sys
import urllib.error
import urllib.parse
import urllib.request
import zlib

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.client import Config
from botocore.exceptions import ClientError

CHECK, THROUGH, DIRECT, USER, PASSWORD = sys.argv[1:]
REGION = "us-east-1"
BUCKET = "check-" + CHECK.replace("_", "-")
MIB = 1 << 20

# Keys that a proxy which decodes, normalises or encodes anew would change, and with them the signature.
ODD_KEYS = [
    "plain",
    "a%2bb",
    "a+b",
    "a b",
    "a%20b",
    "a%2fb",
    "schlüssel/ключ/鍵",
    "emoji-😀",
    "q?a=b&c=d#e",
    "semi;colon:at@comma,equals=",
    "brackets[]{}()<>",
    "quotes'\"`",
    "tilde~star*bang!dollar$",
    "back\\slash|pipe^caret",
    "percent%",
    "percent%zz",
]


def client(endpoint=THROUGH, **config):
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=USER,
        aws_secret_access_key=PASSWORD,
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": 1}, **config),
    )


def pattern(length):
    """Bytes of which no two MiB are alike."""
    block = hashlib.sha256(b"block").digest() * (MIB // 32)
    return b"".join(
        bytes([n % 256]) + block[1 : min(MIB, length - n * MIB)] for n in range((length + MIB - 1) // MIB)
    )[:length]


def error_of(call, *args, **kwargs):
    """Code and status of a refusal; none when it was granted."""
    try:
        call(*args, **kwargs)
    except ClientError as error:
        return error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    return None


def put_get_head_delete():
    s3 = client()
    for length in [0, 1, 1000, 65536, 300_001, 5 * MIB]:
        body = pattern(length)
        put = s3.put_object(Bucket=BUCKET, Key="key", Body=body, ContentType="text/x-odd; a=b", Metadata={"some-name": "some value"})
        got = s3.get_object(Bucket=BUCKET, Key="key")
        assert got["Body"].read() == body, length
        head = s3.head_object(Bucket=BUCKET, Key="key")
        for answer in [got, head]:
            assert answer["ContentLength"] == length
            assert answer["ETag"] == put["ETag"]
            assert answer["ContentType"] == "text/x-odd; a=b"
            assert answer["Metadata"] == {"some-name": "some value"}, answer["Metadata"]
    s3.delete_object(Bucket=BUCKET, Key="key")
    assert error_of(s3.get_object, Bucket=BUCKET, Key="key") == ("NoSuchKey", 404)
    assert error_of(s3.head_object, Bucket=BUCKET, Key="key") == ("404", 404)


def ranges():
    s3 = client()
    body = pattern(3 * MIB)
    s3.put_object(Bucket=BUCKET, Key="key", Body=body)
    for text, expected in [
        ("bytes=0-0", body[:1]),
        ("bytes=10-99", body[10:100]),
        ("bytes=1048576-", body[MIB:]),
        ("bytes=-7", body[-7:]),
        ("bytes=0-99999999", body),
    ]:
        got = s3.get_object(Bucket=BUCKET, Key="key", Range=text)
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206, text
        assert got["Body"].read() == expected, text
    assert error_of(s3.get_object, Bucket=BUCKET, Key="key", Range="bytes=99999999-") == ("InvalidRange", 416)


def conditions():
    s3 = client()
    etag = s3.put_object(Bucket=BUCKET, Key="key", Body=b"body")["ETag"]
    assert error_of(s3.get_object, Bucket=BUCKET, Key="key", IfNoneMatch=etag) == ("304", 304)
    assert error_of(s3.get_object, Bucket=BUCKET, Key="key", IfMatch='"other"') == ("PreconditionFailed", 412)
    assert s3.get_object(Bucket=BUCKET, Key="key", IfMatch=etag)["Body"].read() == b"body"


def multipart():
    s3 = client()
    body = pattern(27 * MIB + 5)
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB, max_concurrency=4)
    s3.upload_fileobj(io.BytesIO(body), BUCKET, "key", Config=config)
    head = s3.head_object(Bucket=BUCKET, Key="key")
    assert head["ContentLength"] == len(body) and head["ETag"].endswith('-6"'), head["ETag"]
    target = io.BytesIO()
    s3.download_fileobj(BUCKET, "key", target, Config=config)
    assert target.getvalue() == body
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="other")["UploadId"]
    s3.upload_part(Bucket=BUCKET, Key="other", UploadId=upload, PartNumber=1, Body=body[:100])
    assert s3.list_parts(Bucket=BUCKET, Key="other", UploadId=upload)["Parts"][0]["Size"] == 100
    s3.abort_multipart_upload(Bucket=BUCKET, Key="other", UploadId=upload)


def presigned():
    s3 = client()
    for key in ["plain", "a b+c%2b/ü"]:
        put = s3.generate_presigned_url("put_object", {"Bucket": BUCKET, "Key": key}, ExpiresIn=60)
        request = urllib.request.Request(put, data=b"presigned", method="PUT")
        assert urllib.request.urlopen(request).status == 200
        get = s3.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": key, "ResponseContentType": "a/b; c=d"}, ExpiresIn=60)
        answer = urllib.request.urlopen(get)
        assert answer.read() == b"presigned" and answer.headers["content-type"] == "a/b; c=d"
        try:
            urllib.request.urlopen(get.replace("X-Amz-Expires=60", "X-Amz-Expires=61"))
            raise AssertionError("a changed signature was accepted")
        except urllib.error.HTTPError as error:
            assert error.code == 403 and b"SignatureDoesNotMatch" in error.read()


def copy():
    s3 = client()
    body = pattern(6 * MIB)
    s3.put_object(Bucket=BUCKET, Key="from+plus ü%2b", Body=body, Metadata={"one": "1"})
    source = {"Bucket": BUCKET, "Key": "from+plus ü%2b"}
    s3.copy_object(Bucket=BUCKET, Key="to", CopySource=source)
    got = s3.get_object(Bucket=BUCKET, Key="to")
    assert got["Body"].read() == body and got["Metadata"] == {"one": "1"}
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="parts")["UploadId"]
    part = s3.upload_part_copy(
        Bucket=BUCKET, Key="parts", UploadId=upload, PartNumber=1, CopySource=source, CopySourceRange=f"bytes=0-{5 * MIB - 1}"
    )
    parts = [{"PartNumber": 1, "ETag": part["CopyPartResult"]["ETag"]}]
    s3.complete_multipart_upload(Bucket=BUCKET, Key="parts", UploadId=upload, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket=BUCKET, Key="parts")["Body"].read() == body[: 5 * MIB]


def odd_keys():
    through, direct = client(), client(DIRECT)
    for key in ODD_KEYS:
        through.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
        assert through.get_object(Bucket=BUCKET, Key=key)["Body"].read() == key.encode(), key
        assert direct.get_object(Bucket=BUCKET, Key=key)["Body"].read() == key.encode(), key
    # MinIO refuses these names itself: what counts is that both ways get the same words, and none about a signature.
    for key in ["a//b", "/a", "a/./b", "a/../b"]:
        by_sidecar = error_of(through.put_object, Bucket=BUCKET, Key=key, Body=b"x")
        by_itself = error_of(direct.put_object, Bucket=BUCKET, Key=key, Body=b"x")
        assert by_sidecar == by_itself, (key, by_sidecar, by_itself)
        assert by_sidecar is None or by_sidecar[0] != "SignatureDoesNotMatch", key
    listed = {entry["Key"] for entry in through.list_objects_v2(Bucket=BUCKET)["Contents"]}
    assert listed == {entry["Key"] for entry in direct.list_objects_v2(Bucket=BUCKET)["Contents"]}
    assert set(ODD_KEYS) <= listed, set(ODD_KEYS) - listed
    objects = [{"Key": key} for key in ODD_KEYS]
    deleted = through.delete_objects(Bucket=BUCKET, Delete={"Objects": objects})
    assert len(deleted["Deleted"]) == len(ODD_KEYS) and not deleted.get("Errors")


def lists():
    through, direct = client(), client(DIRECT)
    for n in range(25):
        direct.put_object(Bucket=BUCKET, Key=f"a+b/ü %2b/{n:02}", Body=b"")
    direct.put_object(Bucket=BUCKET, Key="a+b/other", Body=b"")
    for arguments in [
        {},
        {"Prefix": "a+b/ü %2b/"},
        {"Prefix": "a+b/", "Delimiter": "/"},
        {"StartAfter": "a+b/ü %2b/07", "MaxKeys": 3},
        {"Delimiter": "//"},
        {"EncodingType": "url"},
    ]:
        ways = []
        for s3 in [through, direct]:
            answer = s3.list_objects_v2(Bucket=BUCKET, **arguments)
            ways.append([[entry["Key"] for entry in answer.get("Contents", [])], answer.get("CommonPrefixes"), answer["IsTruncated"]])
        assert ways[0] == ways[1], (arguments, ways)
    pages = through.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, PaginationConfig={"PageSize": 4})
    assert sum(len(page["Contents"]) for page in pages) == 26


def encoding_is_kept():
    s3 = client()
    body = gzip.compress(pattern(300_000), mtime=0)
    s3.put_object(Bucket=BUCKET, Key="key", Body=body, ContentEncoding="gzip")
    # As urllib does not decode, these are the bytes and the header that came.
    url = s3.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": "key"}, ExpiresIn=60)
    for wanted in [None, "gzip", "identity"]:
        request = urllib.request.Request(url, headers={"Accept-Encoding": wanted} if wanted else {})
        answer = urllib.request.urlopen(request)
        assert answer.headers["content-encoding"] == "gzip", (wanted, answer.headers.items())
        assert answer.headers["content-length"] == str(len(body))
        assert answer.read() == body, wanted
    assert s3.head_object(Bucket=BUCKET, Key="key")["ContentEncoding"] == "gzip"


def sign(method, path, query, headers, payload_hash, now):
    """Signature version 4: the Authorization header, the signature, and the key and scope for those of chunks."""
    day, stamp = now.strftime("%Y%m%d"), now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{day}/{REGION}/s3/aws4_request"
    names = sorted(headers)
    canonical = "\n".join(
        [method, path, query, *(f"{name}:{headers[name]}" for name in names), "", ";".join(names), payload_hash]
    )
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("AWS4" + PASSWORD).encode()
    for word in [day, REGION, "s3", "aws4_request"]:
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    authorization = f"AWS4-HMAC-SHA256 Credential={USER}/{scope}, SignedHeaders={';'.join(names)}, Signature={signature}"
    return authorization, signature, key, scope, stamp


def chunked(kind, key, body, spoil=False):
    """A PUT in aws-chunked encoding: every chunk is signed over the one before it, and the trailer over the last."""
    host = urllib.parse.urlsplit(THROUGH).netloc
    now = datetime.datetime.now(datetime.timezone.utc)
    checksum = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
    headers = {
        "content-encoding": "aws-chunked",
        "host": host,
        "x-amz-content-sha256": kind,
        "x-amz-date": now.strftime("%Y%m%dT%H%M%SZ"),
        "x-amz-decoded-content-length": str(len(body)),
    }
    trailer = kind.endswith("-TRAILER")
    signed = not kind.startswith("STREAMING-UNSIGNED")
    if trailer:
        headers["x-amz-trailer"] = "x-amz-checksum-crc32"
    authorization, previous, signing_key, scope, stamp = sign("PUT", f"/{BUCKET}/{key}", "", headers, kind, now)

    def signature_of(algorithm, *hashes):
        text = "\n".join([algorithm, stamp, scope, previous, *hashes])
        return hmac.new(signing_key, text.encode(), hashlib.sha256).hexdigest()

    empty = hashlib.sha256(b"").hexdigest()
    wire = b""
    for start in [*range(0, len(body), 64 * 1024), len(body)]:
        chunk = body[start : start + 64 * 1024]
        if signed:
            previous = signature_of("AWS4-HMAC-SHA256-PAYLOAD", empty, hashlib.sha256(chunk).hexdigest())
            wire += f"{len(chunk):x};chunk-signature={previous}\r\n".encode()
        else:
            wire += f"{len(chunk):x}\r\n".encode()
        wire += chunk + (b"\r\n" if chunk or not trailer else b"")
    if trailer:
        line = f"x-amz-checksum-crc32:{checksum}"
        wire += f"{line}\r\n".encode()
        if signed:
            last = signature_of("AWS4-HMAC-SHA256-TRAILER", hashlib.sha256(f"{line}\n".encode()).hexdigest())
            wire += f"x-amz-trailer-signature:{last}\r\n".encode()
        wire += b"\r\n"
    if spoil:
        wire = wire.replace(body[-50:], bytes(50))
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.request("PUT", f"/{BUCKET}/{key}", body=wire, headers={**headers, "Authorization": authorization})
    answer = connection.getresponse()
    return answer.status, answer.read()


def chunk_signatures():
    s3 = client()
    body = pattern(200_000)
    for kind in [
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    ]:
        status, text = chunked(kind, "key", body)
        assert status == 200, (kind, text)
        got = s3.get_object(Bucket=BUCKET, Key="key")
        assert got["Body"].read() == body and "aws-chunked" not in got.get("ContentEncoding", ""), kind
        # MinIO does verify: what is spoilt on the way is refused.
        status, text = chunked(kind, "key", body, spoil=True)
        assert status in (400, 403), (kind, status, text)


def checksums():
    """The trailers that boto3 sends by itself, and those that it can be told to send."""
    s3 = client(request_checksum_calculation="when_supported")
    for algorithm in ["CRC32", "SHA256"]:
        body = pattern(700_000)
        put = s3.put_object(Bucket=BUCKET, Key="key", Body=io.BytesIO(body), ChecksumAlgorithm=algorithm)
        name = f"Checksum{algorithm}"
        got = s3.get_object(Bucket=BUCKET, Key="key", ChecksumMode="ENABLED")
        assert got["Body"].read() == body and got[name] == put[name], (put, got)


CHECKS = [
    put_get_head_delete, ranges, conditions, multipart, presigned, copy, odd_keys, lists, encoding_is_kept, chunk_signatures, checksums,
]
client(DIRECT).create_bucket(Bucket=BUCKET)
{check.__name__: check for check in CHECKS}[CHECK]()
