"""Decides about objects in a store: whose an object is, how a video is sent, and what an error of a store means."""

from __future__ import annotations

import re
from enum import Enum
from typing import Literal

import attrs

from kling_async._policy.file_names import whole_tag

LARGEST_SINGLE_PUT_BYTES = 32 * 1024**2
"""A video up to this size is sent in one request, which creates the object or fails if the name is taken.

The request is held in memory. A larger video is sent in parts, whose end no store of ours makes conditional.
"""
PART_BYTES = 8 * 1024**2
"""S3 wants at least 5 MiB a part, and takes 10,000 parts."""
PARTS_AT_ONCE = 4
"""A video in parts takes no more memory than one in a single request."""
LONGEST_SIGNATURE = 7 * 24 * 3600
"""Seconds for which a signed URL can hold. Source: Amazon S3 and Google Cloud Storage."""

Step = Literal["write to", "read from", "delete from"]
"""What was tried in a store, for an error."""


@attrs.frozen
class StoredObject:
    """An object that a store has."""

    size_bytes: int
    mark: str | None = None
    """The mark of the job whose video it is; None if kling_async did not store it."""
    sha256: str | None = None
    """The digest of its content, in hex; None if kling_async did not store it."""


class Name(Enum):
    """What a name in a store is to a job."""

    FREE = "free"
    OURS = "ours"
    """It has the video of the job, whole: an object appears when its last byte is stored."""
    TAKEN = "taken"
    """It has something else, which stays as it is."""


def job_mark(request_id: str) -> str:
    """The mark of a job, by which a later run knows its object: the job's whole tag, which is ASCII and of one length."""
    return whole_tag(request_id)


def judge_name(found: StoredObject | None, *, mark: str) -> Name:
    """What a name is to the job with this mark.

    Args:
        found: The object of that name; None if there is none.
        mark: See `job_mark`.
    """
    if found is None:
        return Name.FREE
    return Name.OURS if found.mark == mark and found.size_bytes > 0 else Name.TAKEN


@attrs.frozen
class StoreFailure:
    """Why a store did not do something."""

    reason: str
    """In one clause, without secrets."""
    is_transient: bool = False


_STATUS = re.compile(r"status code: (\d{3})", re.ASCII)
_CODE = re.compile(r"<Code>(\w{1,60})</Code>|\"code\": ?\"(\w{1,60})\"", re.ASCII)
_ADDRESS = re.compile(r"\b\w+://\S+")
_LONGEST_REASON, _LONGEST_TEXT = 200, 10_000
_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound"})
_NO_BUCKET_NAME = frozenset({"InvalidBucketName", "InvalidResourceName"})
_WRONG_CREDENTIALS = frozenset(
    {
        "AuthenticationFailed",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
_WRONG_REGION = frozenset(
    {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
)
_REFUSALS = frozenset({"PermissionDeniedError", "UnauthenticatedError"})
_NOT_IMPLEMENTED = 501
_PANICS = frozenset({"RustPanic"})
"""What obstore raises where it stumbles over a setting, such as an endpoint that is no URL."""
_REDIRECTS = frozenset({301, 307})
_REGIONS = {"s3": "AWS_REGION", "gs": "its endpoint", "az": "its endpoint"}
_WRONG_CLOCK = "RequestTimeTooSkewed"
_TRANSIENT_CODES = frozenset({"ConditionalRequestConflict", "OperationAborted", "RequestTimeout", "SlowDown"})
_TRANSIENT_STATUSES = frozenset({408, 429, *range(500, 600)})
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_HAS_NO_CREDENTIALS = (
    "169.254.169.254",
    "metadata.google.internal",
    "Account must be specified",
    "Missing AccessKeyId",
    "Missing SecretAccessKey",
)
"""Addresses that are asked for credentials where the environment has none, and what a store says without an account."""


def explain_failure(kind: str, text: str, *, scheme: str, step: Step) -> StoreFailure:
    """Why a store did not do something, from what its client raised.

    The text of the client is not shown: it quotes addresses, and whole answers of the store.

    Args:
        kind: The name of the exception's class.
        text: What the exception says.
        scheme: The scheme of the store's URL.
        step: What was tried.
    """
    text = text[:_LONGEST_TEXT]
    status_match, code_match = _STATUS.search(text), _CODE.search(text)
    status = int(status_match[1]) if status_match else None
    code = (code_match[1] or code_match[2]) if code_match else ""
    answer = f"it answered {' '.join(filter(None, [str(status or ''), code]))}"
    is_refused = kind in _REFUSALS
    permanent = (
        (
            any(sign in text for sign in _HAS_NO_CREDENTIALS),
            f"no credentials were found: set {_CREDENTIALS[scheme]} in the environment",
        ),
        (
            code in _NO_BUCKET or (kind == "FileNotFoundError" and step == "write to"),
            "there is no bucket of this name, or it is in another region or account",
        ),
        (
            code in _NO_BUCKET_NAME,
            f"no bucket can have this name ({answer}): choose the name of a bucket that exists",
        ),
        (
            kind in _PANICS or "Unable to parse url" in text,
            "a setting of the store in the environment is not usable, such as its endpoint",
        ),
        (code == _WRONG_CLOCK, "the clock of this machine is wrong, so the store refuses its signatures"),
        (
            code in _WRONG_REGION or status in _REDIRECTS or "redirect" in text,
            f"the bucket is in another region: set {_REGIONS[scheme]} in the environment",
        ),
        (
            code in _WRONG_CREDENTIALS or (kind == "UnauthenticatedError" and not code),
            f"it does not accept the credentials of the environment ({answer})",
        ),
        (
            status == _NOT_IMPLEMENTED,
            f"it cannot do what was asked ({answer}): AWS_CONDITIONAL_PUT=disabled asks for no conditional writes",
        ),
        (is_refused, f"the credentials of the environment may not {step} it ({answer})"),
    )
    reason = next((reason for is_so, reason in permanent if is_so), None)
    if reason is not None:
        return StoreFailure(reason)
    if status is not None:
        is_transient = status in _TRANSIENT_STATUSES or code in _TRANSIENT_CODES
        return StoreFailure(answer, is_transient=is_transient)
    if "HTTP error" in text:
        server = " (AWS_ENDPOINT_URL names the server)" if scheme == "s3" else ""
        return StoreFailure(
            f"no connection to it could be made, or the connection was cut{server}", is_transient=True
        )
    first_line = _ADDRESS.sub("…", text.partition("\n")[0])[:_LONGEST_REASON]
    return StoreFailure(first_line.rstrip(". ") or kind)
