"""Every error this package raises: one tree under `KlingError`.

Use the fields of an error instead of parsing its text. `str()` of an error names the call, says what happened, and
gives the next step. Every error can be pickled, and no error holds the API key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kling_async.lines import one_line

if TYPE_CHECKING:
    from kling_async.jobs import Job


class KlingError(Exception):
    """The root of all errors of this package.

    `str()` of an error is its message, after the call that raised it (the field `call`, such as `generate`; None in a
    `Result`) and before the advice.

    Args:
        message: What happened, in one sentence that is true in Python and on the command line.
        request_id: The service's id of the job concerned.
        status_code: The HTTP status of the reply.
        body: The body of the reply, cut to a few hundred characters.
        retry_after: Seconds that the service asked the client to wait.
        job: The last known record of the job concerned.
        advice: The next step in Python.
    """

    call: str | None

    def __init__(
        self,
        message: str,
        *,
        request_id: str | None = None,
        status_code: int | None = None,
        body: str | None = None,
        retry_after: float | None = None,
        job: Job | None = None,
        advice: str | None = None,
    ) -> None:
        message = one_line(message)
        super().__init__(message)
        self.message = message
        self.advice: str | None = None if advice is None else one_line(advice)
        self.call = None
        self.request_id = request_id
        self.status_code = status_code
        self.body = body
        self.retry_after = retry_after
        self.job = job

    def __str__(self) -> str:
        is_named = self.call is None or f"{self.call}(" in self.message
        message = self.message if is_named else f"{self.call}(): {self.message}"
        return f"{message} {self.advice}" if self.advice else message

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.message,), self.__dict__


class ConfigurationError(KlingError):
    """A setting is missing or wrong; nothing was sent.

    Args:
        message: What is wrong and what to do next, in one sentence.
        missing: The argument that has no value, neither in the call nor in the environment, such as `api_key`.
        advice: See `KlingError`.
    """

    def __init__(self, message: str, *, missing: str | None = None, advice: str | None = None) -> None:
        super().__init__(message, advice=advice)
        self.missing = missing


class InvalidRequestError(KlingError, ValueError):
    """A request breaks the model's rules; nothing was sent.

    The message lists every broken rule with its value, not only the first one.
    """


class APIConnectionError(KlingError):
    """No complete reply came: the connection was refused, reset or cut short, or the host was not found.

    Args:
        message: See `KlingError`.
        was_sent: False if no connection was made, so that the service cannot have received the call.
        request_id: See `KlingError`.
        advice: See `KlingError`.
    """

    def __init__(
        self,
        message: str,
        *,
        was_sent: bool = True,
        request_id: str | None = None,
        advice: str | None = None,
    ) -> None:
        super().__init__(message, request_id=request_id, advice=advice)
        self.was_sent = was_sent


class APITimeoutError(APIConnectionError):
    """One HTTP call took longer than the client's `timeout`."""


class ClientClosedError(APIConnectionError):
    """The client was closed while the call was under way, so nothing was sent. The client does not repeat the call."""

    def __init__(
        self,
        message: str,
        *,
        was_sent: bool = False,
        request_id: str | None = None,
        advice: str | None = None,
    ) -> None:
        super().__init__(message, was_sent=was_sent, request_id=request_id, advice=advice)


class CertificateError(APIConnectionError):
    """The certificate of the server or the proxy is not trusted, so nothing was sent.

    The client does not repeat the call. The environment variable `SSL_CERT_FILE` names a file of the certificates to
    trust.
    """

    def __init__(self, message: str, *, was_sent: bool = False, request_id: str | None = None) -> None:
        super().__init__(message, was_sent=was_sent, request_id=request_id)


class ProxyError(APIConnectionError):
    """The proxy refuses to reach the service, so nothing was sent: it wants a login, or does not allow the host.

    The client does not repeat the call.
    """

    def __init__(self, message: str, *, was_sent: bool = False, request_id: str | None = None) -> None:
        super().__init__(message, was_sent=was_sent, request_id=request_id)


class APIStatusError(KlingError):
    """The service answered with a status that is not a success."""


class BadRequestError(APIStatusError):
    """400: the service refused the request as malformed."""


class AuthenticationError(APIStatusError):
    """401: the API key is missing, wrong or revoked."""


class InsufficientCreditsError(APIStatusError):
    """402: the account has no credits left."""


class PermissionDeniedError(APIStatusError):
    """403: the key is known but may not do this."""


class NotFoundError(APIStatusError):
    """404: no such model, or no such job for this key."""


class RateLimitError(APIStatusError):
    """429: too many requests."""


class InternalServerError(APIStatusError):
    """5xx: the service failed, or a system behind the service failed."""


class APIResponseError(KlingError):
    """The service answered with a body that does not have the promised shape."""


class AmbiguousSubmitError(KlingError):
    """A paid POST was sent, and whether the service has a job is unknown: the job may run and may be charged.

    The POST was not sent again. `client.list_jobs()` shows whether the service has the job.

    Args:
        message: See `KlingError`.
        absent: Whether the service's list proves that the service has no such job, so that a new POST is safe.
        request_id: See `KlingError`.
        status_code: See `KlingError`.
        body: See `KlingError`.
        advice: See `KlingError`.
    """

    def __init__(
        self,
        message: str,
        *,
        absent: bool = False,
        request_id: str | None = None,
        status_code: int | None = None,
        body: str | None = None,
        advice: str | None = None,
    ) -> None:
        super().__init__(message, request_id=request_id, status_code=status_code, body=body, advice=advice)
        self.absent = absent


class JobError(KlingError):
    """A job ended without a video."""


class JobFailedError(JobError):
    """The job's final status is `failed`."""


class JobCancelledError(JobError):
    """The job's final status is `cancelled`."""


class WaitTimeoutError(KlingError, TimeoutError):
    """The wait for a job reached its deadline; the job may still run."""


class DownloadError(KlingError):
    """A finished video could not be saved. The job succeeded, and its video can be downloaded again."""


class BudgetExceededError(KlingError):
    """The next submit would pass the spend cap, so it was not sent."""


class JournalError(KlingError):
    """A journal cannot be used: another process has it locked, or it is foreign, truncated, or of a newer format."""


class BatchInterruptedError(KlingError):
    """The call `generate_many` ended early: its input raised, or its journal could not be written any more.

    Nothing further was sent, and the jobs in flight were waited for. `__cause__` is the reason. If that is another
    error, by a mistake of this package, the jobs in flight are results in the state `TIMED_OUT`, and a note of the reason names them.

    Args:
        message: See `KlingError`.
        batch: The `BatchResult` of the items that have a result.
    """

    def __init__(self, message: str, *, batch: Any = None) -> None:
        super().__init__(message)
        self.batch = batch
