"""No password that a call was given is in its error, in what led to it, or in a local variable of a traceback."""

from __future__ import annotations

import asyncio
import pickle
import traceback

import pytest

from kling_async import KlingClient, KlingError, RetryPolicy
from kling_async._calls import public_call
from kling_async._journal.location import journal_location
from kling_async.journal import Journal

PASSWORD = "pa55word-of-the-tests"
OF_THE_ENVIRONMENT = "pa55word-of-the-environment"


def client_of(base_url="http://127.0.0.1:9"):
    return KlingClient("a-key-of-the-tests", base_url=base_url, retry=RetryPolicy(max_retries=0), proxy="")


def show(error):
    """All that an error tracker can hold, but for the variables of this file, whose frames are a user's."""
    left, seen, shown = [error], [], []
    while left:
        each = left.pop()
        if each is None or each in seen:
            continue
        seen.append(each)
        shown += [repr(each), str(each), repr(vars(each)), str(pickle.dumps(each))]
        told = traceback.TracebackException(type(each), each, each.__traceback__, capture_locals=True)
        shown += [f"frame {frame.name} {frame.locals}" for frame in told.stack if frame.filename != __file__]
        left += [each.__cause__, each.__context__]
    return "\n".join(shown)


async def drain(stream):
    async with stream as results:
        return [result async for result in results]


async def in_thread(work):
    return await asyncio.to_thread(work)


def import_distributed():
    return pytest.importorskip("kling_async.distributed")


CALLS = {
    "generate_many": lambda client, url: client.generate_many(["a"], journal=url, progress=False),
    "a wrong option": lambda client, url: client.generate_many(["a"], journal=url, max_concurrency=0),
    "an unknown option": lambda client, url: client.generate_many(["a"], journal=url, bogus=1),
    "an input that raises": lambda client, url: client.generate_many(map(len, [1]), journal=url),
    "a wrong item": lambda client, url: client.generate_many([5], journal=url),
    "stream_many": lambda client, url: in_loop(
        lambda: client.stream_many(["a"], journal=url, progress=False)
    ),
    "Journal.entries": lambda _, url: in_thread(lambda: list(Journal(url).entries())),
    "Journal.exists": lambda _, url: in_thread(lambda: Journal(url).exists()),
    "Journal.register": lambda _, url: in_loop(lambda: Journal(url).register(["a"])),
    "generate_many_on": lambda _, url: import_distributed().generate_many_on(url, ["a"], progress=False),
    "a wrong item for workers": lambda _, url: import_distributed().generate_many_on(url, [5]),
    "run_worker": lambda client, url: import_distributed().run_worker(url, client, until_idle=True),
    "a wrong option of a worker": lambda client, url: import_distributed().run_worker(
        url, client, concurrency=0
    ),
}
DATABASES = {
    "no server": f"postgresql://user:{PASSWORD}@127.0.0.1:1/d",
    "an unknown parameter": f"postgresql://user:{PASSWORD}@127.0.0.1:1/d?bogus=1",
    "an open bracket": f"postgresql://user:{PASSWORD}@[::1/d",
    "a scheme in capitals": f"POSTGRESQL://user:{PASSWORD}@127.0.0.1:1/d",
    "a character that no text has": f"postgresql://user:{PASSWORD}\ud800@127.0.0.1:1/d",
    "a label of a host that is too long": f"postgresql://user:{PASSWORD}@{'a' * 64}.example/d",
    "a host without a label": f"postgresql://user:{PASSWORD}@a..b/d",
    "a host that is no name": f"postgresql://user:{PASSWORD}@127.0.0.1,xn--a-\u00ff.example/d",
    "a folder of a socket": f"postgresql://user:{PASSWORD}@%2F{'a' * 64}/d",
    "a line end": f"postgresql://user:{PASSWORD}\n@127.0.0.1:1/d",
    "the password as a parameter": f"postgresql://127.0.0.1:1/d?sslmode=disable&password={PASSWORD}",
    "the password elsewhere": "postgresql://user@127.0.0.1:1/d",
    "another database": f"mysql://user:{PASSWORD}@127.0.0.1:1/d",
    "a connection string": f"host=127.0.0.1 port=1 user=user password={PASSWORD}",
    "a password first": f"password = {PASSWORD} host=127.0.0.1",
}


async def in_loop(call):
    made = call()
    return await (drain(made) if hasattr(made, "__aenter__") else made)


async def error_of(call):
    async with client_of() as client:
        with pytest.raises((KlingError, TypeError)) as caught:
            await call(client)
    return caught.value


@pytest.mark.parametrize("name", DATABASES)
@pytest.mark.parametrize("call", CALLS)
async def test_no_error_of_a_call_shows_the_password_of_a_database(call, name, monkeypatch):
    pytest.importorskip("psycopg")
    monkeypatch.setenv("PGPASSWORD", OF_THE_ENVIRONMENT)
    shown = show(await error_of(lambda client: CALLS[call](client, DATABASES[name])))
    assert "frame " in shown
    assert "pa55word" not in shown


def test_an_error_of_the_driver_that_shows_the_password_is_emptied():
    psycopg = pytest.importorskip("psycopg")
    from kling_async._journal.postgres.connection import journal_errors

    url = journal_location(f"postgresql://user:{PASSWORD}@host/d", name="journal")
    for text, is_kept in ((f"no {PASSWORD} here", False), ("no table here", True)):
        with pytest.raises(KlingError) as caught, journal_errors(url, "read", "try again"):
            raise psycopg.OperationalError(text)
        assert (caught.value.__cause__ is not None) is is_kept
        assert ("no table here" in show(caught.value.__context__)) is is_kept
        assert "pa55word" not in show(caught.value)


@pytest.mark.parametrize(
    "place", [f"s3://{PASSWORD}@bucket/x/", f"s3://bucket/x?signature={PASSWORD}", f"ftp://u:{PASSWORD}@h"]
)
async def test_no_error_of_a_call_shows_the_secret_of_a_refused_url(place):
    for call in (
        lambda client: client.generate("an eagle", output=place, progress=False),
        lambda client: client.generate_many(["an eagle"], output=place, progress=False),
        lambda client: client.download("job-1", place),
    ):
        shown = show(await error_of(call))
        assert "frame " in shown
        assert "pa55word" not in shown


async def test_the_frames_of_the_callers_own_functions_keep_their_variables():
    def give(value):
        raise ValueError(value)
        yield

    error = await error_of(lambda client: client.generate_many(give("of the caller"), progress=False))
    frames = [frame for frame, _ in traceback.walk_tb(error.__cause__.__traceback__)]
    assert frames[-1].f_locals == {"value": "of the caller"}


@pytest.mark.parametrize("kind", [KlingError, ValueError, asyncio.CancelledError, KeyboardInterrupt])
def test_whatever_ends_a_call_forgets_the_arguments(kind):
    def fail(given, *, option):
        raise kind(str(len(given) + len(option)))

    async def fail_later(given, *, option):
        await asyncio.sleep(0)
        fail(given, option=option)

    for call in (
        public_call(fail),
        lambda *args, **kwargs: asyncio.run(public_call(fail_later)(*args, **kwargs)),
    ):
        with pytest.raises(kind) as caught:
            call(PASSWORD, option=PASSWORD)
        frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
        named = {
            frame.f_code.co_name: frame.f_locals
            for frame in frames
            if "_calls.py" in frame.f_code.co_filename
        }
        assert named
        assert PASSWORD not in str(named)
        assert PASSWORD not in str([f.f_locals for f in frames if f.f_code.co_name == "fail_later"])


def test_a_coroutine_that_handled_an_error_continues_when_the_error_leaves_a_call():
    """Another task can have raised the error, and can go on."""

    async def refuse():
        raise KlingError("of a task that goes on")

    async def work(handed):
        try:
            await refuse()
        except KlingError as error:
            handed.set_result(error)
        await asyncio.sleep(0.001)
        return "went on"

    @public_call
    async def call(handed):
        raise await handed

    async def run():
        handed = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(work(handed))
        with pytest.raises(KlingError, match="goes on"):
            await call(handed)
        return await task

    assert asyncio.run(run()) == "went on"
