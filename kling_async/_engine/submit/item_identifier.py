"""What a later run recognises an item by: its key, what is sent for it, and how many such came before."""

from __future__ import annotations

import hashlib
from collections import Counter

import attrs

from kling_async._engine.submit.uploader import content_of, local_pictures
from kling_async._journal.entry import Entry, Identity, fingerprint
from kling_async._wire.codec import payload_of
from kling_async.errors import ConfigurationError, InvalidRequestError
from kling_async.requests import VideoRequest, model_of


@attrs.define(eq=False)
class ItemIdentifier:
    """Recognises the items of one batch, one after the other; every run over the same items does it alike."""

    _occurrences: Counter[tuple[str | None, str]] = attrs.field(init=False, factory=Counter)
    _given: set[Identity] = attrs.field(init=False, factory=set)
    """Those of entries that are items of the batch themselves."""
    _digests: dict[str, str] = attrs.field(init=False, factory=dict)

    async def for_request(self, request: VideoRequest) -> Identity:
        """The identity of the next item, which a request stands for.

        Raises:
            InvalidRequestError: A local picture cannot be read.
        """
        fingerprint_ = await self._fingerprint(request)
        while True:
            occurrence = self._occurrences[request.key, fingerprint_]
            self._occurrences[request.key, fingerprint_] += 1
            identity = Identity(key=request.key, fingerprint=fingerprint_, occurrence=occurrence)
            if identity not in self._given:
                return identity

    async def for_entry(self, entry: Entry) -> Identity:
        """The identity of the next item, which an entry of the journal stands for.

        Raises:
            ConfigurationError: The batch has this item already.
            InvalidRequestError: A picture that is still to be sent cannot be read, or is another one by now.
        """
        identity = entry.identity
        known = self._occurrences[identity.key, identity.fingerprint]
        if identity in self._given or identity.occurrence < known:
            raise ConfigurationError(
                f"Entry {entry.number} of the journal is in this batch already: give each of them once."
            )
        self._given.add(identity)
        request = entry.request
        pictures = local_pictures(request, payload_of(request)) if request is not None else []
        if request is not None and pictures and await self._fingerprint(request) != identity.fingerprint:
            names = " or ".join(repr(path) for _, path in pictures)
            raise InvalidRequestError(
                f"{names} is another picture than when entry {entry.number} of the journal was written: put the old "
                "one back, or ask for the new one as a request of its own."
            )
        return identity

    async def _fingerprint(self, request: VideoRequest) -> str:
        """That of the payload with the digest of each local picture in its place: the same whenever it is sent."""
        payload = payload_of(request)
        for key, path in local_pictures(request, payload):
            if path not in self._digests:
                self._digests[path] = hashlib.sha256(await content_of(path)).hexdigest()
            payload[key] = {"sha256": self._digests[path]}
        return fingerprint(model_of(request), payload)
