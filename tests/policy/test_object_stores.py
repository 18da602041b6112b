from __future__ import annotations

import pytest

from kling_async._policy.object_stores import (
    Name,
    StoredObject,
    StoreFailure,
    explain_failure,
    job_mark,
    judge_name,
)

ANSWER = "Error performing PUT http://store/videos/a in 1ms - Server returned non-2xx status code: {}: {}"
MARK = job_mark("job-1")


@pytest.mark.parametrize(
    "found, name",
    [
        (None, Name.FREE),
        (StoredObject(10, mark=MARK, sha256="ab"), Name.OURS),
        (StoredObject(0, mark=MARK, sha256="ab"), Name.TAKEN),
        (StoredObject(10, mark=job_mark("job-2"), sha256="ab"), Name.TAKEN),
        (StoredObject(10), Name.TAKEN),
    ],
)
def test_a_name_is_ours_only_with_the_mark_of_the_job(found, name):
    assert judge_name(found, mark=MARK) is name


@pytest.mark.parametrize("request_id", ["", "job-1", "é" * 5000, "\ud800", "a\r\nx: y"])
def test_the_mark_of_any_job_fits_into_a_header(request_id):
    assert len(job_mark(request_id)) == 32
    assert job_mark(request_id).isalnum()


def test_two_jobs_have_two_marks():
    assert job_mark("job-1") != job_mark("job-2")


def explain(kind, text, *, scheme="s3", step="write to"):
    return explain_failure(kind, text, scheme=scheme, step=step)


@pytest.mark.parametrize(
    "kind, status, code, words",
    [
        ("FileNotFoundError", "404 Not Found", "NoSuchBucket", "there is no bucket of this name"),
        ("FileNotFoundError", "404 Not Found", "", "there is no bucket of this name"),
        (
            "PermissionDeniedError",
            "403 Forbidden",
            "AccessDenied",
            "may not write to it (it answered 403 AccessDenied)",
        ),
        (
            "PermissionDeniedError",
            "403 Forbidden",
            "SignatureDoesNotMatch",
            "does not accept the credentials",
        ),
        ("UnauthenticatedError", "401 Unauthorized", "", "does not accept the credentials"),
        ("UnauthenticatedError", "401 Unauthorized", "Other", "may not write to it"),
        (
            "PermissionDeniedError",
            "403 Forbidden",
            "RequestTimeTooSkewed",
            "the clock of this machine is wrong",
        ),
        ("GenericError", "301 Moved Permanently", "", "another region: set AWS_REGION"),
        ("GenericError", "400 Bad Request", "AuthorizationHeaderMalformed", "another region: set AWS_REGION"),
        ("GenericError", "501 Not Implemented", "NotImplemented", "AWS_CONDITIONAL_PUT=disabled"),
        ("GenericError", "400 Bad Request", "EntityTooLarge", "it answered 400 EntityTooLarge"),
    ],
)
def test_a_failure_that_stays_has_one_reason(kind, status, code, words):
    failure = explain(kind, ANSWER.format(status, f"<Error><Code>{code}</Code></Error>" if code else ""))
    assert words in failure.reason
    assert not failure.is_transient


@pytest.mark.parametrize(
    "text",
    [
        ANSWER.format("503 Slow Down", "<Error><Code>SlowDown</Code></Error>"),
        ANSWER.format("500 Internal Server Error", ""),
        ANSWER.format("429 Too Many Requests", '{"error": {"code": "rateLimited"}}'),
        ANSWER.format("400 Bad Request", "<Error><Code>RequestTimeout</Code></Error>"),
        "Generic S3 error: Error performing PUT http://store/videos/a - HTTP error: error sending request",
    ],
)
def test_a_failure_that_goes_away_is_transient(text):
    assert explain("GenericError", text).is_transient


@pytest.mark.parametrize(
    "scheme, text, words",
    [
        (
            "s3",
            "Error performing PUT http://169.254.169.254/latest/api/token - HTTP error",
            "AWS_ACCESS_KEY_ID",
        ),
        (
            "gs",
            "Error performing GET http://metadata.google.internal/token",
            "GOOGLE_APPLICATION_CREDENTIALS",
        ),
        ("s3", "Generic S3 error: Missing SecretAccessKey", "AWS_SECRET_ACCESS_KEY"),
        ("az", "Generic MicrosoftAzure error: Account must be specified", "AZURE_STORAGE_ACCOUNT_NAME"),
    ],
)
def test_missing_credentials_are_named_by_the_variables_of_the_store(scheme, text, words):
    assert words in explain("GenericError", text, scheme=scheme).reason


@pytest.mark.parametrize("scheme, is_named", [("s3", True), ("gs", False), ("az", False)])
def test_a_store_that_cannot_be_reached_names_the_variable_with_its_address(scheme, is_named):
    failure = explain("GenericError", "HTTP error: connection refused", scheme=scheme)
    assert failure.is_transient
    assert ("AWS_ENDPOINT_URL" in failure.reason) is is_named


@pytest.mark.parametrize("code", ["InvalidBucketName", "InvalidResourceName"])
def test_a_name_that_no_bucket_can_have_says_what_to_choose(code):
    reason = explain(
        "GenericError", ANSWER.format("400 Bad Request", f"<Error><Code>{code}</Code></Error>")
    ).reason
    assert (
        reason
        == f"no bucket can have this name (it answered 400 {code}): choose the name of a bucket that exists"
    )


def test_no_address_and_no_answer_of_a_store_is_quoted():
    text = "Generic S3 error: bad URL http://user:password@store/a?signature=x, no more\nDebug source: secret"
    assert explain("GenericError", text) == StoreFailure("Generic S3 error: bad URL … no more")
    assert explain("GenericError", "").reason == "GenericError"


@pytest.mark.parametrize("step", ["read from", "delete from"])
def test_a_refusal_names_the_right_that_is_missing(step):
    text = ANSWER.format("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>")
    assert f"may not {step} it" in explain("PermissionDeniedError", text, step=step).reason


@pytest.mark.parametrize(
    "kind, text",
    [("RustPanic", "rust future panicked"), ("GenericError", "Unable to parse url user:secret@host/a")],
)
def test_an_endpoint_that_is_no_url_is_not_quoted(kind, text):
    assert "is not usable, such as its endpoint" in explain(kind, text).reason


@pytest.mark.parametrize("piece", ["a", "a:", "://", "<Code>", "status code: ", "\n", "http://a "])
def test_a_text_of_millions_of_characters_is_read_in_no_time(piece):
    """A search that begins again at each character of it would take an hour."""
    failure = explain_failure("GenericError", piece * 1_000_000, scheme="s3", step="write to")
    assert len(failure.reason) <= 200
