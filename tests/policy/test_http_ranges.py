from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async._policy.http_ranges import (
    FileVersion,
    content_coding,
    dump,
    file_version,
    has_known_end,
    is_remaining_range,
    load,
    named_part,
    proof,
    range_headers,
    transfer_coding,
)

KNOWN = FileVersion(request_id="job-1", size_bytes=100, validator='"v1"', digest=None)
DATE = "Sat, 21 Nov 2026 10:00:00 GMT"
MD5 = "XUFAKrxLKna5cZ2REBfFkg=="
MD5_HEX = "5d41402abc4b2a76b9719d911017c592"
SHA256 = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="
SHA512 = "m3HSJL1i83hdltRq0+o9czGb+8KJDKra4t/3JRlnPKcjI8PZm6XBHXx6zG4UuMXaDEZjR1wuXDre9G9zvN7AQw=="


def version_of(**headers):
    return file_version({name.replace("_", "-"): text for name, text in headers.items()}, request_id="job-1")


@pytest.mark.parametrize(
    "headers, validator",
    [
        ({"etag": '"v1"'}, '"v1"'),
        ({"etag": '"v1"', "last_modified": DATE}, '"v1"'),
        ({"etag": 'W/"v1"', "last_modified": DATE}, DATE),
        ({"etag": 'W/"v1"'}, None),
        ({"etag": "v1"}, None),
        ({"last_modified": DATE}, DATE),
        ({"last_modified": ""}, None),
        ({}, None),
    ],
)
def test_the_validator_is_a_strong_etag_or_else_the_date(headers, validator):
    assert version_of(**headers).validator == validator


@pytest.mark.parametrize(
    "headers, size_bytes",
    [
        ({"content_length": "100"}, 100),
        ({"content_length": "0"}, None),
        ({"content_length": "-1"}, None),
        ({"content_length": "1e3"}, None),
        ({"content_length": "\u0661"}, None),
        ({"content_length": "9" * 5000}, None),
        ({"content_length": "100", "content_encoding": "gzip"}, None),
        ({"content_length": "100", "content_encoding": "Identity"}, 100),
        ({}, None),
    ],
    ids=str,
)
def test_the_size_is_known_if_the_response_names_that_of_the_file_itself(headers, size_bytes):
    assert version_of(**headers).size_bytes == size_bytes


@pytest.mark.parametrize(
    "headers, digest",
    [
        ({"x_goog_hash": f"crc32c=n03x6A==,md5={MD5}"}, f"md5={MD5}"),
        ({"x_goog_hash": f"md5={MD5}"}, f"md5={MD5}"),
        ({"x_goog_hash": "crc32c=n03x6A=="}, None),
        ({"content_md5": MD5}, f"md5={MD5}"),
        ({"content_md5": "short"}, None),
        ({"repr_digest": f"sha-256=:{SHA256}:"}, f"sha256={SHA256}"),
        ({"content_digest": f"sha-512=:{SHA512}:, sha-256=:{SHA256}:"}, f"sha512={SHA512}"),
        ({"digest": f"MD5={MD5},SHA-256={SHA256}"}, f"sha256={SHA256}"),
        ({"digest": "unixsum=30637"}, None),
        ({"repr_digest": f"sha-256=:{MD5}:"}, None),
        ({"repr_digest": f"sha-256=:{SHA256}:", "content_md5": MD5}, f"sha256={SHA256}"),
        ({"x_amz_checksum_sha256": f"{SHA256}-3"}, None),
        ({"etag": f'"{MD5_HEX}"'}, None),
        ({"x_goog_hash": f"md5={MD5}", "content_encoding": "gzip"}, None),
        ({"x_goog_hash": f"md5={MD5}", "x_goog_stored_content_encoding": "gzip"}, None),
        ({"x_goog_hash": f"md5={MD5}", "x_goog_stored_content_encoding": "identity"}, f"md5={MD5}"),
        ({"x_goog_hash": f"md5={MD5}", "content_md5": MD5}, f"md5={MD5}"),
        ({"x_goog_hash": f"md5={MD5}", "content_md5": "B" + MD5[1:]}, f"md5=B{MD5[1:]}, {MD5}"),
        (
            {"repr_digest": f"sha-256=:{SHA256}:", "digest": f"sha-256=A{SHA256[1:]}"},
            f"sha256=A{SHA256[1:]}, {SHA256}",
        ),
        ({}, None),
    ],
)
def test_the_digest_is_the_strongest_that_is_named_and_never_that_of_a_compressed_body(headers, digest):
    assert version_of(content_length="100", **headers).digest == version_of(**headers).digest == digest


@pytest.mark.parametrize(
    "headers, expected",
    [
        ({"etag": f'"{MD5_HEX}"'}, f"md5={MD5}"),
        ({"etag": f'"{MD5_HEX}"', "repr-digest": f"sha-256=:{SHA256}:"}, f"sha256={SHA256}"),
        ({"etag": f'W/"{MD5_HEX}"'}, None),
        ({"etag": f'"{MD5_HEX}-4"'}, None),
        ({"etag": f'"{MD5_HEX}"', "content-encoding": "gzip"}, None),
        ({"etag": '"v1"'}, None),
        ({}, None),
    ],
)
def test_a_strong_etag_that_looks_like_an_md5_can_prove_that_a_file_is_whole_where_no_digest_is_named(
    headers, expected
):
    assert proof(headers) == expected


@pytest.mark.parametrize(
    "headers, is_known",
    [
        ({"content-length": "100"}, True),
        ({"content-length": "100", "content-encoding": "gzip"}, True),
        ({"transfer-encoding": "chunked"}, True),
        ({"transfer-encoding": " Chunked "}, True),
        ({"transfer-encoding": "gzip, chunked"}, False),
        ({"transfer-encoding": "chunked", "content-encoding": "gzip"}, True),
        ({"transfer-encoding": "gzip"}, False),
        ({"transfer-encoding": "chunked, gzip"}, False),
        ({"transfer-encoding": "gzip", "content-length": "100"}, False),
        ({"content-length": "many"}, False),
        ({"content-encoding": "gzip"}, False),
        ({}, False),
    ],
    ids=str,
)
def test_the_end_of_a_body_is_known_by_a_length_or_by_a_last_chunk(headers, is_known):
    assert has_known_end(headers) is is_known


@pytest.mark.parametrize(
    "codings",
    ["gzip", "gzip, chunked", "chunked, gzip", "chunked, chunked", "identity", "xchunked", "chunked;q=1", ""],
)
def test_only_chunks_are_read(codings):
    assert transfer_coding({"transfer-encoding": codings})
    part = {"content-range": "bytes 60-99/100", "transfer-encoding": codings}
    assert not is_remaining_range(part, KNOWN, at=60)
    assert is_remaining_range({**part, "transfer-encoding": "Chunked"}, KNOWN, at=60)


@pytest.mark.parametrize(
    "field", ["bytes 0-89/100", "bytes 10-99/100", "bytes 0-89/*", "bytes=0-89/100", "BYTES 0 - 89 / 100"]
)
def test_a_whole_answer_that_names_a_part_is_a_part(field):
    assert named_part({"content-range": field}) == field


@pytest.mark.parametrize(
    "headers", [{}, *({"content-range": text} for text in ["bytes 0-99/100", "bytes */100", ""])]
)
def test_a_whole_answer_that_names_no_part_is_whole(headers):
    assert named_part(headers) is None


def test_a_content_coding_is_in_lower_case():
    assert content_coding({"content-encoding": " GZip "}) == "gzip"
    assert content_coding({"content-encoding": "identity"}) == content_coding({}) == ""


def test_the_headers_ask_for_the_remaining_bytes_unless_the_version_has_changed():
    assert range_headers(KNOWN, at=40) == {"Range": "bytes=40-", "If-Range": '"v1"'}
    without = FileVersion(request_id="job-1", size_bytes=100, validator=None, digest=None)
    assert range_headers(without, at=40) == {"Range": "bytes=40-"}
    assert range_headers(KNOWN, at=0) == range_headers(None, at=40) == {}


@pytest.mark.parametrize(
    "headers",
    [
        {"content-range": "bytes 40-99/100", "etag": '"v1"'},
        {"content-range": "bytes 40-99/100"},
        {"content-range": " BYTES 40-99/100 "},
        {"content-range": "bytes 40-60/100"},
        {"content-range": "bytes 40-40/100"},
    ],
    ids=str,
)
def test_a_range_that_begins_at_the_offset_is_used(headers):
    assert is_remaining_range(headers, KNOWN, at=40)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-range": "bytes 0-99/100"},
        {"content-range": "bytes 39-99/100"},
        {"content-range": "bytes 41-99/100"},
        {"content-range": "bytes 40-99/101"},
        {"content-range": "bytes 40-100/100"},
        {"content-range": "bytes 40-39/100"},
        {"content-range": "bytes 40-99/*"},
        {"content-range": "bytes */100"},
        {"content-range": "40-99/100"},
        {"content-range": f"bytes 40-99/{'9' * 5000}"},
        {"content-range": "bytes 40-99/100", "etag": '"v2"'},
        {"content-range": "bytes 40-99/100", "content-encoding": "gzip"},
    ],
    ids=lambda headers: str(headers)[:60],
)
def test_any_other_range_is_not_used(headers):
    assert not is_remaining_range(headers, KNOWN, at=40)


@given(
    request_id=st.text(),
    size_bytes=st.none() | st.integers(min_value=1),
    validator=st.none() | st.text(),
    digest=st.none() | st.text(),
)
def test_a_version_is_read_as_it_was_written(request_id, size_bytes, validator, digest):
    version = FileVersion(request_id=request_id, size_bytes=size_bytes, validator=validator, digest=digest)
    assert load(dump(version)) == version


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        "{}",
        '{"request_id": 7, "size_bytes": 1, "validator": null, "digest": null}',
        '{"request_id": "x", "size_bytes": "1", "validator": null, "digest": null}',
        '{"request_id": "x", "size_bytes": 0, "validator": null, "digest": null}',
        '{"request_id": "x", "size_bytes": 1, "validator": [], "digest": null}',
        '{"request_id": "x", "size_bytes": 1, "validator": null, "digest": 1}',
        '{"request_id": "x", "size_bytes": 1, "validator": null, "digest": null, "more": 1}',
        "[" * 100_000,
    ],
    ids=lambda text: text[-60:],
)
def test_any_other_text_loads_as_no_version(text):
    assert load(text) is None
