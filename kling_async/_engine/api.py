"""One call of the service: sent, read, and sent again while the policy says so."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import attrs

from kling_async._engine.clock import Clock
from kling_async._policy.retry import RetryPolicy, next_delay
from kling_async._transport.base import Reply, Request, Transport
from kling_async._wire.endpoints import Endpoint, url_for
from kling_async._wire.replies import decode, error_for
from kling_async.errors import APIResponseError, KlingError
from kling_async.events import Notifier, Retrying
from kling_async.jobs import Job

T = TypeVar("T")

_SHORTEST_TIMEOUT = 0.05
_FIRST_SUCCESS, _LAST_SUCCESS = 200, 299


@attrs.define(kw_only=True, eq=False)
class ApiCaller:
    """Everything that a call needs: where to, as whom, how, when, and how often."""

    transport: Transport
    clock: Clock
    dice: random.Random
    queue: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    secret: str = attrs.field(repr=False)
    timeout: float
    retry: RetryPolicy

    async def once(
        self,
        endpoint: Endpoint,
        structure: Callable[[Any], T],
        *,
        id: str = "",  # noqa: A002 - the path says {id}
        query: Mapping[str, object] | None = None,
        body: bytes | None = None,
        within: float = math.inf,
    ) -> T:
        """What one request is answered with, in `timeout` or `within` seconds, whichever is shorter.

        Raises:
            APIConnectionError: No whole answer came.
            APIStatusError: The answer is no success.
            APIResponseError: The answer is not of the promised shape.
        """
        reply = await self._send(endpoint, id=id, query=query, body=body, within=within)
        return self._read(reply, endpoint, structure, id)

    async def measured(
        self,
        endpoint: Endpoint,
        structure: Callable[[Any], T],
        *,
        id: str = "",  # noqa: A002 - the path says {id}
        query: Mapping[str, object] | None = None,
        body: bytes | None = None,
        within: float = math.inf,
    ) -> tuple[Reply, T]:
        """The same, with the reply that it was read from."""
        reply = await self._send(endpoint, id=id, query=query, body=body, within=within)
        return reply, self._read(reply, endpoint, structure, id)

    def _send(
        self,
        endpoint: Endpoint,
        *,
        id: str,  # noqa: A002 - the path says {id}
        query: Mapping[str, object] | None,
        body: bytes | None,
        within: float,
    ) -> Awaitable[Reply]:
        url = url_for(self.queue, endpoint, id=id, query=query)
        timeout = self.timeout if within >= self.timeout else max(within, _SHORTEST_TIMEOUT)
        return self.transport.send(Request(endpoint.method, url, self.headers, body, timeout))

    def _read(self, reply: Reply, endpoint: Endpoint, structure: Callable[[Any], T], id_: str) -> T:
        call = f"{endpoint.name} {id_}" if id_ else endpoint.name
        if _FIRST_SUCCESS <= reply.status <= _LAST_SUCCESS:
            value = decode(reply.body, structure, call=call, status=reply.status, secret=self.secret)
            if id_ and isinstance(value, Job) and value.request_id.lower() != id_.lower():
                raise APIResponseError(
                    f"{call}: the service answered about another job, {value.request_id!r}.",
                    status_code=reply.status,
                )
            return value
        now = self.clock.wall()
        raise error_for(reply.status, reply.headers, reply.body, call=call, secret=self.secret, now=now)

    async def repeat(
        self,
        endpoint: Endpoint,
        structure: Callable[[Any], T],
        *,
        id: str = "",  # noqa: A002 - the path says {id}
        query: Mapping[str, object] | None = None,
        body: bytes | None = None,
        notify: Notifier | None = None,
    ) -> T:
        """What a call is answered with that is safe to send again, after as many tries as the policy allows.

        Raises:
            KlingError: See `once`; the error of the last try.
        """
        attempt = 0
        while True:
            try:
                return await self.once(endpoint, structure, id=id, query=query, body=body)
            except KlingError as error:
                delay = next_delay(self.retry, attempt=attempt, error=error, chance=self.dice.random())
                if delay is None or not endpoint.is_safe:
                    raise
                attempt += 1
                if notify:
                    at = self.clock.wall()
                    notify(Retrying(at=at, call=endpoint.name, attempt=attempt, delay=delay, error=error))
            await self.clock.sleep(delay)
