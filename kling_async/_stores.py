"""Object stores, through obstore; the only module that imports it.

The credentials and the options of a store come from its own environment variables, which obstore reads. They are in no value
of this package. Neither is the text of an error of obstore, which can quote them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Iterable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import attrs

from kling_async._policy.object_stores import (
    LARGEST_SINGLE_PUT_BYTES,
    LONGEST_SIGNATURE,
    PART_BYTES,
    PARTS_AT_ONCE,
    Step,
    StoredObject,
    StoreFailure,
    explain_failure,
)
from kling_async.errors import APIConnectionError, ConfigurationError, DownloadError, KlingError
from kling_async.lines import quote_value
from kling_async.paths import ObjectUrl

if TYPE_CHECKING:
    from obstore import AsyncWritableFile, PutMode
    from obstore.store import AzureStore, ClientConfig, GCSStore, ObjectStore, RetryConfig, S3Store

T = TypeVar("T")

_CLIENT_OPTIONS: ClientConfig = {
    "allow_http": True,  # whether to encrypt is what the user's endpoint says
    "connect_timeout": timedelta(seconds=10),
    "timeout": timedelta(minutes=5),  # of one request, which sends up to 32 MiB
}
_RETRIES: RetryConfig = {"max_retries": 2, "retry_timeout": timedelta(seconds=30)}
"""Few: the engine tries again by the caller's own policy, and emits events."""
_MARK, _SHA256 = "klingjob", "klingsha256"
"""Names of metadata. Azure takes letters, digits and underscores; some proxies drop headers with underscores."""


def open_store(url: ObjectUrl) -> Bucket:
    """The bucket of a URL; no request is made.

    Raises:
        ConfigurationError: The extra `stores` is not installed, or the environment has a wrong or missing setting.
    """
    try:
        from obstore.exceptions import BaseError
        from obstore.store import AzureStore, GCSStore, S3Store
    except ImportError as error:
        raise ConfigurationError(
            f"{str(url)!r} needs obstore: pip install '.[stores]' in a checkout, or choose a folder on this machine."
        ) from error
    kinds: dict[str, type[S3Store | GCSStore | AzureStore]] = {
        "s3": S3Store,
        "gs": GCSStore,
        "az": AzureStore,
    }
    try:
        store = kinds[url.scheme](url.bucket, client_options=_CLIENT_OPTIONS, retry_config=_RETRIES)
    except (BaseError, ValueError) as error:
        failure = _explain(error, scheme=url.scheme, step="write to")
        raise ConfigurationError(f"Videos cannot be stored in {str(url)!r}: {failure.reason}.") from None
    return Bucket(store, url.scheme)


@attrs.frozen(eq=False)
class Bucket:
    """The objects of one bucket.

    All methods raise `APIConnectionError` if a later try can succeed, and `DownloadError` if not.
    """

    store: ObjectStore = attrs.field(repr=False)
    scheme: str
    left_probes: dict[str, ObjectUrl] = attrs.field(init=False, factory=dict, repr=False)
    """By prefix, the probe that could not be deleted there: the next probe takes its name."""

    async def find(self, key: str) -> StoredObject | None:
        """The object of this name; None if there is none."""
        import obstore

        with self.translate("read from"):
            try:
                found = await _finish(obstore.get_async(self.store, key, options={"head": True}))
            except FileNotFoundError:
                return None
            return StoredObject(
                found.meta["size"],
                mark=found.attributes.get(_MARK),
                sha256=found.attributes.get(_SHA256),
            )

    async def put(
        self, key: str, content: Path | bytes, *, size_bytes: int, mark: str = "", sha256: str = ""
    ) -> bool:
        """Store a whole object; False if the name is taken.

        Cancelling it, or killing the process, leaves no object or a whole one. Of a large object, parts that no reader sees
        can be left in the store.

        Args:
            key: The name.
            content: A file, or a few bytes.
            size_bytes: The size of the content.
            mark: The mark of the job.
            sha256: The digest of the content.
        """
        from obstore.exceptions import AlreadyExistsError

        marks: dict[Any, str] = {"Content-Type": "video/mp4", _MARK: mark, _SHA256: sha256} if mark else {}
        is_single = size_bytes <= LARGEST_SINGLE_PUT_BYTES
        mode: PutMode | None = "create" if is_single else None
        put = partial(self._put, key, content, marks, is_single=is_single)
        with self.translate("write to"):
            try:
                await put(mode=mode)
            except AlreadyExistsError:
                return False
            except NotImplementedError:  # AWS_CONDITIONAL_PUT=disabled: the user knows that the store cannot
                await put(mode=None)
        return True

    async def _put(
        self,
        key: str,
        content: Path | bytes,
        marks: dict[Any, str],
        *,
        is_single: bool,
        mode: PutMode | None,
    ) -> None:
        import obstore

        put = obstore.put_async(
            self.store,
            key,
            content,
            attributes=marks,
            mode=mode,
            use_multipart=not is_single,
            chunk_size=PART_BYTES,
            max_concurrency=PARTS_AT_ONCE,
        )
        await _finish(put)

    def open_writer(self, key: str, *, mark: str) -> ObjectWriter:
        """An upload in parts; the name is not checked."""
        import obstore

        writer = obstore.open_writer_async(
            self.store,
            key,
            attributes={"Content-Type": "video/mp4", _MARK: mark},
            buffer_size=PART_BYTES,
            max_concurrency=PARTS_AT_ONCE,
        )
        return ObjectWriter(self, key, writer)

    async def delete(self, key: str) -> None:
        """Remove an object."""
        import obstore

        with self.translate("delete from"):
            await _finish(obstore.delete_async(self.store, key))

    @contextlib.contextmanager
    def translate(self, step: Step) -> Iterator[None]:
        """A block in which the errors of obstore are raised as ours."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - no module exports what a panic of obstore raises
            raise _error_for(_explain(error, scheme=self.scheme, step=step)) from None


class _AbortedError(Exception):
    """Tells a writer of obstore that its upload is to be aborted."""


@attrs.frozen(eq=False)
class ObjectWriter:
    """An upload in parts, of which no reader sees anything before it is complete."""

    bucket: Bucket
    key: str
    writer: AsyncWritableFile

    async def write(self, piece: bytes) -> None:
        """Send some bytes; waits while several parts are on their way."""
        with self.bucket.translate("write to"):
            await _finish(self.writer.write(piece))

    async def complete(self) -> None:
        """Make the object of all parts; it replaces another object of that name."""
        with self.bucket.translate("write to"):
            await _finish(self.writer.close())

    async def abort(self) -> None:
        """Remove the parts from the store."""
        with contextlib.suppress(KlingError), self.bucket.translate("delete from"):
            # As in an `async with` block that an error ends. The error that ended the upload is raised already.
            await _finish(self.writer.__aexit__(_AbortedError, _AbortedError(), None))


def sign_urls(urls: Iterable[ObjectUrl], *, seconds: float) -> dict[str, str]:
    """The signed URL of each object: who has it can read the object for so long, without credentials.

    It blocks; where the environment has no key but an address for one, for as long as that takes to answer.

    Raises:
        ConfigurationError: It is no such number of seconds, or the store cannot sign.
    """
    keys: dict[tuple[str, str], list[ObjectUrl]] = {}
    for url in urls:
        keys.setdefault((url.scheme, url.bucket), []).append(url)
    signed: dict[str, str] = {}
    for ours in keys.values():
        bucket = open_store(ours[0])
        import obstore
        from obstore.exceptions import BaseError

        store = cast("S3Store | GCSStore | AzureStore", bucket.store)
        try:
            found = obstore.sign(store, "GET", [url.key for url in ours], timedelta(seconds=seconds))
        except (BaseError, ValueError) as error:
            failure = _explain(error, scheme=bucket.scheme, step="read from")
            raise ConfigurationError(f"{str(ours[0])!r} cannot be signed: {failure.reason}.") from None
        signed.update(zip(map(str, ours), found, strict=True))
    return signed


def check_signed_for(seconds: float) -> None:
    """Do nothing if a signature can hold for so many seconds.

    Raises:
        ConfigurationError: It cannot.
    """
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 1 <= seconds <= LONGEST_SIGNATURE:
        raise ConfigurationError(
            f"A signed URL holds for 1 to {LONGEST_SIGNATURE:,} seconds, which are seven days, not for {quote_value(seconds)}."
        )


async def _finish(call: Awaitable[T]) -> T:
    """The result of a call of obstore, which a cancellation cancels.

    An error is raised here, and is not thrown into the coroutine by the event loop: a Python 3.11 that traces, as for a
    debugger or for coverage, loses the callers of a coroutine that an error is thrown into.
    """
    future = asyncio.ensure_future(call)
    try:
        await asyncio.wait({future})
    finally:
        future.cancel()  # does nothing to one that is done
    return future.result()


def _explain(error: Exception, *, scheme: str, step: Step) -> StoreFailure:
    """Why a store did not do something. The error loses its text, for it stays the context of ours, which hides it."""
    failure = explain_failure(type(error).__name__, str(error), scheme=scheme, step=step)
    error.args = ()
    return failure


def _error_for(failure: StoreFailure) -> KlingError:
    return APIConnectionError(failure.reason) if failure.is_transient else DownloadError(failure.reason)
