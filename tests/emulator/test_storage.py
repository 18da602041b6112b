from __future__ import annotations

from urllib.parse import parse_qs

import pytest

from kling_async.emulator.storage import UPLOAD_TYPES, StorageError, StoredFile, Uploads, parse_range


@pytest.fixture
def uploads():
    return Uploads(seed=0)


def sign(uploads, file_type="png"):
    path, query = uploads.sign(file_type, now=0.0)
    return path, parse_qs(query)["X-Goog-Signature"][0]


@pytest.mark.parametrize("file_type, content_type", UPLOAD_TYPES.items())
def test_a_put_with_the_signed_type_is_stored(uploads, file_type, content_type):
    path, signature = sign(uploads, file_type)
    uploads.check(path, signature=signature, content_type=content_type, now=899.0)
    uploads.put(path, b"bytes")

    assert uploads.get(path) == StoredFile(b"bytes", content_type)
    assert path.endswith(f".{file_type}")


@pytest.mark.parametrize(
    "change, status, code",
    [
        ({"content_type": "image/jpeg"}, 403, "SignatureDoesNotMatch"),
        ({"content_type": None}, 400, "MalformedSecurityHeader"),
        ({"signature": "forged"}, 403, "SignatureDoesNotMatch"),
        ({"signature": None}, 403, "AccessDenied"),
        ({"now": 900.0}, 400, "ExpiredToken"),
        ({"path": "/elsewhere.png"}, 403, "AccessDenied"),
    ],
)
def test_any_other_put_gets_an_xml_error(uploads, change, status, code):
    path, signature = sign(uploads)
    call = {"path": path, "signature": signature, "content_type": "image/png", "now": 0.0, **change}

    with pytest.raises(StorageError) as refused:
        uploads.check(
            call["path"], signature=call["signature"], content_type=call["content_type"], now=call["now"]
        )
    assert refused.value.status == status
    assert f"<Code>{code}</Code>" in refused.value.xml


def test_every_upload_has_its_own_path(uploads):
    assert len({uploads.sign("png", now=0.0)[0] for _ in range(10)}) == 10


def test_a_path_has_no_file_before_the_put(uploads):
    assert uploads.get(sign(uploads)[0]) is None


def test_an_etag_depends_only_on_the_bytes():
    assert StoredFile(b"a", "x/y").etag == StoredFile(b"a", "x/z").etag != StoredFile(b"b", "x/y").etag


@pytest.mark.parametrize(
    "header, wanted",
    [
        (None, None),
        ("bytes=0-3", slice(0, 4)),
        ("BYTES=4-", slice(4, 10)),
        ("bytes=-4", slice(6, 10)),
        ("bytes=-99", slice(0, 10)),
        ("bytes=8-99", slice(8, 10)),
        ("bytes=9-9", slice(9, 10)),
        ("bytes=10-", "unsatisfiable"),
        (f"bytes={'9' * 5000}-", "unsatisfiable"),
        (f"bytes=2-{'9' * 5000}", slice(2, 10)),
        (f"bytes=-{'9' * 5000}", slice(0, 10)),
        (f"bytes={'0' * 4000}2-{'0' * 4000}3", slice(2, 4)),
        (f"bytes={'9' * 5000}-4", None),
        ("bytes=-0", "unsatisfiable"),
        ("bytes=5-4", None),
        ("bytes=-", None),
        ("bytes=0-1,4-5", None),
        ("rows=0-1", None),
        ("bytes=a-b", None),
    ],
)
def test_ranges_are_parsed_as_in_rfc_9110(header, wanted):
    assert parse_range(header, size_bytes=10) == wanted
