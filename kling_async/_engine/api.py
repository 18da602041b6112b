"""One call of the service: sent, read, and sent again while the retry policy allows."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import attrs

from kling_async._engine.clock import Clock
from kling_async._engine.descriptors import warn_of_descriptors
from kling_async._engine.emitter import Emitter
from kling_async._policy.descriptors import descriptor_pause, lacks_descriptors
from kling_async._policy.rate_limit import TokenBucket
from kling_async._policy.retry import RetryPolicy, next_delay
from kling_async._policy.service_clock import Instant, ServiceClock
from kling_async._secrets import Secret, clear_locals
from kling_async._transport.base import Reply, Request, Transport
from kling_async._wire.endpoints import Endpoint, suggest_id, url_for
from kling_async._wire.replies import decode, error_for
from kling_async.errors import APIResponseError, DownloadError, KlingError
from kling_async.events import Notifier, Retrying
from kling_async.jobs import Job, canonical_id

T = TypeVar("T")

_MIN_TIMEOUT = 0.05
"""Seconds that a call gets at the least, however near its deadline is."""
_FIRST_SUCCESS, _LAST_SUCCESS = 200, 299


@attrs.define(kw_only=True, eq=False)
class ApiCaller:
    """Everything that a call needs: where to, as whom, how, when, and how often."""

    transport: Transport
    clock: Clock
    rng: random.Random
    queue: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    secret: Secret
    timeout: float
    retry: RetryPolicy
    allow_private: bool = False
    """Whether URLs that the service names may lead to this machine or to a private network."""
    service_clock: ServiceClock = attrs.field(factory=ServiceClock)
    """Learned from the answers to all calls."""

    def emitter(self, notify: Notifier) -> Emitter:
        """An emitter of events by this clock."""
        return Emitter(self.clock, notify)

    async def wait_turn(self, rate: TokenBucket) -> None:
        """Take a turn of a rate, and wait until it can be used."""
        if (rest := rate.take(self.clock.now())) > 0:
            await self.clock.sleep(rest)

    async def send(
        self,
        endpoint: Endpoint,
        structure: Callable[[Any], T],
        *,
        id: str = "",  # noqa: A002 - the path says {id}
        query: Mapping[str, object] | None = None,
        body: bytes | None = None,
        within: float = math.inf,
    ) -> T:
        """The value of the answer to one request.

        Args:
            endpoint: The call.
            structure: Makes the value of the decoded JSON.
            id: The job or model that the path names.
            query: The query's parameters.
            body: The body of a POST.
            within: Seconds that are left; the shorter of this and `timeout` is the request's timeout.

        Raises:
            APIConnectionError: No whole answer came.
            APIStatusError: The answer is no success.
            APIResponseError: The answer is not of the promised shape.
        """
        sent_at = self.clock.wall()
        reply = await self.transport.send(self._request(endpoint, id, query, body, within))
        self._learn_time(reply, sent_at)
        try:
            return self.read(reply, endpoint, structure, id=id)
        except KlingError as error:
            clear_locals(error)  # who keeps the error does not keep the reply, which can be long
            del reply
            raise

    async def fetch(
        self, endpoint: Endpoint, *, query: Mapping[str, object] | None = None, within: float = math.inf
    ) -> Reply:
        """The reply to one request as it came, for a caller that needs the length of its body; `read` gives its value."""
        sent_at = self.clock.wall()
        reply = await self.transport.send(self._request(endpoint, "", query, None, within))
        self._learn_time(reply, sent_at)
        return reply

    def _learn_time(self, reply: Reply, sent_at: float) -> None:
        received_at = self.clock.wall()
        self.service_clock.compare(wall=received_at, monotonic=self.clock.now())
        if self.service_clock.wants(reply.status, wall=received_at):
            self.service_clock.learn(reply.headers.get("date"), sent_at=sent_at, received_at=received_at)

    def instant(self) -> Instant:
        """The present instant; notes if a clock was set since the last reading, and then forgets the offset."""
        return self.service_clock.read(wall=self.clock.wall(), monotonic=self.clock.now())

    def service_time(self) -> float:
        """Unix seconds by the service's clock, or by the clock of this machine while the service's is unknown."""
        return self.instant().time

    def _request(
        self,
        endpoint: Endpoint,
        id_: str,
        query: Mapping[str, object] | None,
        body: bytes | None,
        within: float,
    ) -> Request:
        url = url_for(self.queue, endpoint, id=id_, query=query)
        timeout = self.timeout_within(within)
        return Request(endpoint.method, url, self.headers, body, timeout, endpoint.max_reply_bytes)

    def timeout_within(self, left: float) -> float:
        """The timeout of a request that has so many seconds left."""
        return self.timeout if left >= self.timeout else max(left, _MIN_TIMEOUT)

    def read(
        self,
        reply: Reply,
        endpoint: Endpoint,
        structure: Callable[[Any], T],
        *,
        id: str = "",  # noqa: A002 - the path says {id}
    ) -> T:
        """The value of a reply.

        Raises:
            APIStatusError: The answer is no success.
            APIResponseError: The answer is not of the promised shape, or is about another job.
        """
        about = endpoint.subject.replace("{id}", id)
        if _FIRST_SUCCESS <= reply.status <= _LAST_SUCCESS:
            value = decode(
                reply.body,
                structure,
                about=about,
                status=reply.status,
                secret=self.secret,
                max_values=endpoint.max_values,
            )
            if id and isinstance(value, Job) and canonical_id(value.request_id) != canonical_id(id):
                raise APIResponseError(
                    f"{about}: the service answered about another job, {self.secret.hide_in(value.request_id)!r}.",
                    status_code=reply.status,
                )
            return value
        raise error_for(
            reply.status,
            reply.headers,
            reply.body,
            about=about,
            endpoint=endpoint,
            near=suggest_id(endpoint, id),
            secret=self.secret,
            now=self.service_time(),
        )

    def storage_error(
        self, status: int, headers: Mapping[str, str], body: bytes, *, about: str
    ) -> KlingError:
        """The error that an answer of a storage stands for which is no success."""
        return error_for(status, headers, body, about=about, secret=self.secret, now=self.service_time())

    async def send_with_retries(
        self,
        endpoint: Endpoint,
        structure: Callable[[Any], T],
        *,
        emit: Emitter,
        id: str = "",  # noqa: A002 - the path says {id}
        query: Mapping[str, object] | None = None,
        body: bytes | None = None,
    ) -> T:
        """The value of the answer to a call, after as many tries as the policy allows; one try for a call that is paid for.

        Raises:
            KlingError: See `send`; the error of the last try.
        """
        send = partial(self.send, endpoint, structure, id=id, query=query, body=body)
        if not endpoint.is_repeatable:
            return await send()
        return await self.retries(endpoint.name, emit).run(send)

    def retries(self, call: str, emit: Emitter, *, ends_at: float = math.inf) -> Retries:
        """The retries of one call, none of which is used yet; see `Retries.ends_at`."""
        return Retries(self, call, emit, ends_at)


@attrs.define(eq=False)
class Retries:
    """Counts how often one call is sent again, and waits before each time."""

    api: ApiCaller
    call: str
    """The call's name in events."""
    emit: Emitter
    ends_at: float = math.inf
    """The clock's time at which the download ends that the call is a part of: no wait goes beyond it."""
    attempt: int = 0
    """How many retries there were; set to 0 to allow all of them again."""
    _pauses: int = attrs.field(init=False, default=0)
    """How often the call waited for a free file descriptor. Such a pause is no retry: nothing was sent."""

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """The result of work that is safe to repeat, after as many tries as the policy allows.

        Raises:
            KlingError: The error of the last try.
        """
        while True:
            try:
                return await work()
            except KlingError as error:
                await self.wait_or_raise(error)

    async def wait_or_raise(self, error: KlingError) -> None:
        """Wait until the call may be sent again.

        Raises:
            KlingError: The error itself, if the policy allows no further retry after it.
            DownloadError: The wait would go beyond the end of the download.
        """
        api = self.api
        delay = self._delay(error, jitter=api.rng.random())
        if delay is None:
            raise error
        if api.clock.now() + delay > self.ends_at:
            raise DownloadError(
                f"{error.message.rstrip('.')}; the next try would begin after {delay:,.3g} s, and the download "
                f"ends before that by its download_timeout of {api.retry.download_timeout:,g} s",
                status_code=error.status_code,
            ) from error
        tries = self.attempt + self._pauses
        self.emit(Retrying, call=self.call, attempt=tries, delay=delay, error=error)
        await api.clock.sleep(delay)

    def _delay(self, error: KlingError, *, jitter: float) -> float | None:
        """Count the pause or the retry; its seconds, or None if the policy allows no further retry."""
        if lacks_descriptors(error):
            warn_of_descriptors()
            self._pauses += 1
            return descriptor_pause(attempt=self._pauses - 1, jitter=jitter)
        self.attempt += 1
        return next_delay(self.api.retry, attempt=self.attempt - 1, error=error, jitter=jitter)
