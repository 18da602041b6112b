"""The API key is in no repr, no pickle, no message, and in no local variable of a traceback."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import sys
import traceback
from base64 import b64encode, urlsafe_b64encode
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback_proxy import Loopback, run_listener

from kling_async import KlingClient, KlingError, PollingPolicy, RetryPolicy
from kling_async._policy.job_end import error_of
from kling_async._secrets import Secret, clear_locals
from kling_async._transport.base import Reply, Request
from kling_async._transport.network import Network
from kling_async._transport.open_transport import open_transport
from kling_async._wire.codec import structure_job
from kling_async._wire.endpoints import headers_for
from kling_async._wire.json_reader import load_json
from kling_async._wire.replies import decode, error_for
from kling_async.emulator.tls import make_certificate
from kling_async.jobs import Job, JobStatus, Outcome
from kling_async.journal import Journal

KEY = "sk-4f1c0ffee5ec2e7-of-the-tests"
PASSWORD = "pa55word-of-the-tests"
HIDDEN = (KEY, PASSWORD, b64encode(f"user:{PASSWORD}".encode()).decode())


def answer(status, body, *headers):
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body.encode())}", *headers]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode() + body.encode()


RECORD = {
    "request_id": KEY,
    "status": "failed",
    "outcome": {"error": f"Bearer {KEY}"},
    "payload": {"prompt": KEY},
}
ANSWERS = {
    "a refusal that echoes the key": answer(401, json.dumps({"error": f"bad key {KEY}", "request_id": KEY})),
    "a page that echoes the key": answer(500, f"<p>{KEY}</p>" * 100, f"X-Echo: {KEY}"),
    "a redirect that echoes the key": answer(302, "", f"Location: https://other.example/{KEY}"),
    "a body that is no JSON": answer(200, f'{{"request_id": "{KEY}", "status": {KEY}'),
    "a record without a status": answer(200, json.dumps({"request_id": KEY, "sent": KEY})),
    "the record of another job": answer(200, json.dumps(RECORD)),
    "a header that is malformed": f"HTTP/1.1 200 OK\r\nX\x01Echo: {KEY}\r\n\r\n".encode(),
    "a status line that is malformed": f"HTTP/9.9 {KEY}\r\n\r\n".encode(),
    "a body that is cut": answer(200, json.dumps(RECORD))[:-5],
    "a body that is not compressed": answer(200, KEY, "Content-Encoding: gzip"),
    "an unknown transfer coding": f"HTTP/1.1 200 OK\r\nTransfer-Encoding: {KEY}\r\n\r\n{KEY}".encode(),
    "a chunk without a size": f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{KEY}\r\n".encode(),
    "a connection that is closed": b"",
    "no answer": None,
    "a proxy that wants another login": answer(407, KEY, f"Proxy-Authenticate: Basic realm={PASSWORD}"),
}
CALLS = {
    "get_job": lambda client: client.get_job("job-1"),
    "list_models": lambda client: client.list_models(),
}


def show(error):
    """Everything that an error tracker, a log and a pickle can hold of an error."""
    shown = [pickle.dumps(error).decode("latin-1")] if isinstance(error, KlingError) else []
    told = traceback.TracebackException(type(error), error, error.__traceback__, capture_locals=True)
    left = [error]
    while left:
        each = left.pop()
        shown += [repr(each), str(each), repr(each.args), repr(vars(each))]
        left += [one for one in (each.__cause__, each.__context__) if one is not None]
    return "\n".join([*shown, *told.format()])


def assert_hidden(error):
    shown = show(error)
    assert "test_secrets" in shown
    assert not [secret for secret in HIDDEN if secret in shown]


@asynccontextmanager
async def serve(name, *, tls=None):
    async def handle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        if ANSWERS[name] is None:
            await reader.read()
        else:
            writer.write(ANSWERS[name])
            writer.close()
            await writer.wait_closed()

    async with run_listener(handle, Loopback(), tls=tls) as server:
        yield f"127.0.0.1:{server.port}"


def client_of(base_url, *, proxy="", **options):
    retry = RetryPolicy(max_retries=0)
    return KlingClient(KEY, base_url=base_url, timeout=0.3, retry=retry, proxy=proxy, **options)


@pytest.fixture(params=["fast", "public"], autouse=True)
def transport_path(request, monkeypatch):
    monkeypatch.setenv("KLING_ASYNC_TRANSPORT", request.param)
    return request.param


@pytest.mark.unmeasured
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", ANSWERS)
async def test_no_error_of_a_call_shows_the_key(name, call):
    async with serve(name) as server, client_of(f"http://{server}") as client:
        with pytest.raises(KlingError) as caught:
            await CALLS[call](client)
    assert_hidden(caught.value)


async def submit_to(name):
    """The answers, the errors and the log of a POST and of the calls that look for its job."""
    async with serve(name) as server:
        client = client_of(f"http://{server}", polling=PollingPolicy(wait_timeout=0))
        async with client:
            try:
                return repr(await client.submit("an eagle"))
            except KlingError as error:
                assert_hidden(error)
                return show(error)


async def test_no_error_of_a_submit_shows_the_key(caplog):
    caplog.set_level(logging.DEBUG)
    shown = await asyncio.gather(*map(submit_to, ANSWERS))
    assert len(shown) == len(ANSWERS)
    assert KEY not in "\n".join([*shown, caplog.text])


def escape_in_json(text):
    return "".join(f"\\u{ord(letter):04x}" for letter in text)


DISGUISES = {
    "as it is": KEY,
    "with its scheme": f"Bearer {KEY}",
    "in upper case": KEY.upper(),
    "in lower case": KEY.title().swapcase(),
    "split by spaces": " ".join(KEY),
    "split by lines": KEY[:9] + "\r\n\t" + KEY[9:],
    "in a URL": "".join(f"%{ord(letter):02X}" for letter in KEY),
    "partly in a URL": KEY.replace("-", "%2D"),
    "in decimal HTML": "".join(f"&#{ord(letter)};" for letter in KEY),
    "in hexadecimal HTML": "".join(f"&#x{ord(letter):x};" for letter in KEY),
    "in JSON twice": escape_in_json(KEY),
    "in a Python repr": "".join(f"\\x{ord(letter):02x}" for letter in KEY),
    "in base64": b64encode(KEY.encode()).decode(),
    "in base64 with its scheme": b64encode(f"Bearer {KEY}".encode()).decode(),
    "in base64 with a colon": b64encode(f"user:{KEY}:".encode()).decode(),
    "in base64 for URLs": urlsafe_b64encode(f"?{KEY}?".encode()).decode(),
}


@pytest.mark.unmeasured
@pytest.mark.parametrize("status", [200, 401, 404, 418, 500])
@pytest.mark.parametrize("disguise", DISGUISES.values(), ids=DISGUISES)
def test_no_error_about_a_reply_shows_the_key_in_a_disguise(disguise, status):
    secret, harmless = Secret(KEY), "harmless"
    shown = {}
    for text in (disguise, harmless):
        record = json.dumps({"error": {"message": text}, "request_id": text, "echo": [text]})
        for body in (record, f"<p>{text}</p>", json.dumps(text)):
            if status == 200:
                with pytest.raises(KlingError) as caught:
                    decode(body.encode(), structure_job, about="job x", status=status, secret=secret)
                error = caught.value
            else:
                error = error_for(status, {}, body.encode(), about="job x", secret=secret, now=0.0)
            shown.setdefault(text, []).append(f"{error} {error.body} {error.request_id}")
    assert all(harmless in one for one in shown[harmless])
    for one, plain in zip(shown[disguise], shown[harmless], strict=True):
        assert "***" in one
        assert len(one) <= len(plain) + 12 * one.count("***")


@pytest.mark.unmeasured
@pytest.mark.parametrize("disguise", DISGUISES.values(), ids=DISGUISES)
@pytest.mark.parametrize("status", ["failed", "cancelled"])
async def test_no_error_of_a_job_that_ended_shows_the_key_in_a_disguise(disguise, status, tmp_path):
    shown = {}
    for text in (disguise, "harmless"):
        record = {"request_id": "job-1", "status": status, "error": f"x {text} y"}
        ANSWERS["a job that ended"] = answer(200, json.dumps(record))
        journal = tmp_path / f"{len(shown)}.db"
        async with serve("a job that ended") as server, client_of(f"http://{server}") as client:
            with pytest.raises(KlingError) as caught:
                await client.wait("job-1")
            batch = await client.generate_many(["an eagle"], journal=journal, progress=False)
            again = await client.generate_many(["an eagle"], journal=journal, progress=False)
        (entry,) = Journal(journal).entries()
        shown[text] = [caught.value.message, batch[0].error.message, again[0].error.message, entry.error]
    assert all("harmless" in one for one in shown["harmless"])
    assert shown[disguise] == [shown["harmless"][0].replace("harmless", shown_as(disguise))] * 4


@pytest.mark.unmeasured
@pytest.mark.parametrize("disguise", DISGUISES.values(), ids=DISGUISES)
async def test_no_reason_of_a_job_shows_the_key_in_a_disguise(disguise, tmp_path):
    shown = {}
    for text in (disguise, "harmless"):
        record = {"request_id": "job-1", "status": "failed", "error": f"x {text} y"}
        ANSWERS["a job that ended"] = answer(200, json.dumps({**record, "requests": [record]}))
        async with serve("a job that ended") as server, client_of(f"http://{server}") as client:
            batch = await client.generate_many(["an eagle"], journal=tmp_path / "run.db", progress=False)
            again = await client.generate_many(["an eagle"], journal=tmp_path / "run.db", progress=False)
            many = await client.wait_many(["job-1"], progress=False)
            jobs = [
                batch[0].job,
                batch[0].error.job,
                again[0].job,
                many[0].job,
                await client.get_job("job-1"),
                *[job async for job in client.list_jobs()],
            ]
        page = batch.write_report(tmp_path / "run.html").read_text(encoding="utf-8")
        shown[text] = [*(job.failure_reason for job in jobs), page.count(shown_as(text))]
        (tmp_path / "run.db").unlink()
    assert shown["harmless"] == ["x harmless y"] * 6 + [shown["harmless"][-1]]
    assert shown[disguise] == [f"x {shown_as(disguise)} y"] * 6 + [shown[disguise][-1]]
    assert shown[disguise][-1] >= shown["harmless"][-1] > 0


def shown_as(disguise):
    """A disguise on one line, with the key hidden."""
    return Secret(KEY).hide_in(" ".join(disguise.split()))


@pytest.mark.parametrize("cut", range(480, 520, 8))
def test_a_key_at_the_end_of_a_long_reason_is_hidden(cut):
    job = Job(request_id="job-1", status=JobStatus.FAILED, outcome=Outcome(error="x" * cut + KEY.upper()))
    assert "SK-4F" not in error_of(job, secret=Secret(KEY)).message


@pytest.mark.parametrize("escape", [escape_in_json, lambda text: text.replace("-", "\\u002D"), str])
def test_no_record_shows_the_key_as_it_is_or_in_escapes(escape):
    body = '{"request_id": "a\\u00e9 \\\\u0073", "status": "queued", "payload": {"p": "%s"}, "x\\/%s": 1}'
    body %= (escape(KEY), escape(f"Bearer {KEY}"))
    job = decode(body.encode(), structure_job, about="job x", status=200, secret=Secret(KEY))
    assert job.request_id == "a\u00e9 \\u0073"
    assert job.raw["payload"] == {"p": "***"}
    assert job.raw["x/Bearer ***"] == 1


@pytest.mark.parametrize(
    "escape", ["\\u006b", "\\u0026", "\\u006B", "\\/", "\\\\", "\\ud83d\\ude00", "\\ud83d"]
)
def test_escapes_of_a_reply_cost_no_call_each(escape):
    calls = []
    body = f'{{"request_id": "a", "status": "queued", "x": "{escape * 50_000}"}}'.encode()
    sys.setprofile(lambda *event: calls.append(event[1]))
    try:
        decode(body, structure_job, about="job x", status=200, secret=Secret(KEY))
    finally:
        sys.setprofile(None)
    assert len(calls) < 1000


@given(
    st.text(st.sampled_from("abcXYZ019-._~+/="), min_size=8, max_size=300),
    st.binary(max_size=6),
    st.binary(max_size=6),
)
def test_base64_of_any_key_among_any_bytes_is_hidden(key, before, after):
    whole = b64encode(before + key.encode() + after).decode()
    hidden = Secret(key).hide_in(whole)
    assert "***" in hidden
    assert len(hidden) <= len(b64encode(before)) + len(b64encode(after)) + 3 + 8  # the ends of it, at most


@given(
    st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_json_without_the_key_stays_as_it_is(value):
    for body in (json.dumps(value).encode(), json.dumps(value).replace("a", "\\u0061").encode()):
        assert Secret(KEY).hide_in_json(body) == body
        if json.dumps(value).count("\\u") == 0:
            assert load_json(body, secret=Secret(KEY)) == load_json(body) == value


@pytest.mark.parametrize("call", CALLS)
async def test_no_error_of_a_connection_shows_the_key(call):
    tls, _ = make_certificate(["127.0.0.1"])
    async with serve("no answer", tls=tls) as untrusted, serve("a connection that is closed") as plain:
        for url in ("http://127.0.0.1:9", f"https://{untrusted}", f"https://{plain}", "https://host.invalid"):
            async with client_of(url) as client:
                with pytest.raises(KlingError) as caught:
                    await CALLS[call](client)
            assert_hidden(caught.value)


@pytest.mark.unmeasured
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("name", ANSWERS)
async def test_no_error_of_a_proxy_shows_the_key_or_the_login(name, scheme, monkeypatch):
    monkeypatch.setenv("KLING_ASYNC_TRUST_NETWORK", "1")
    async with serve(name) as server:
        proxy = "http://user:" + PASSWORD + "@" + server
        client = client_of(f"{scheme}://service.example", proxy=proxy)
        del proxy
        async with client:
            with pytest.raises(KlingError) as caught:
                await client.get_job("job-1")
    assert_hidden(caught.value)


@pytest.mark.parametrize("call", CALLS)
async def test_no_cancellation_shows_the_key(call):
    async with serve("no answer") as server, client_of(f"http://{server}") as client:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.1):
                await CALLS[call](client)
    assert_hidden(caught.value)


async def test_no_result_of_a_batch_shows_the_key():
    async with serve("a refusal that echoes the key") as server, client_of(f"http://{server}") as client:
        batch = await client.generate_many(["a", "b"], progress=False)
    for result in batch:
        assert result.error is not None
        try:
            raise result.error
        except KlingError as error:
            assert_hidden(error)
        assert KEY not in repr(result)


@pytest.mark.parametrize("name", ["a header that is malformed", "a body that is cut", "no answer"])
async def test_no_error_of_a_post_shows_the_key(name, transport_path):
    headers = headers_for(api_key=Secret(KEY), organization_id=None, user_agent="test")
    transport = open_transport(Network(), transport_path)
    async with serve(name) as server:
        request = Request("POST", f"http://{server}/", headers, b"{}", 0.3)
        del headers
        with pytest.raises(KlingError) as caught:
            await transport.send(request)
    await transport.aclose()
    assert_hidden(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "no url"},
        {"base_url": "http://far.example"},
        {"base_url": "http://far.example/" + KEY},
        {"base_url": KEY},
        {"base_url": "https://h.example/?key=" + KEY.upper()},
        {"base_url": "http://[" + KEY},
        {"base_url": KEY.encode()},
        {"timeout": -1},
        {"proxy": "socks5://user:" + PASSWORD + "@host"},
        {"organization_id": 5},
        {"bogus": 1},
        {"on_event": 5},
        {"transport": 5},
        {"api_key": "Bearer " + KEY},
        {"api_key": KEY + "\N{SNOWMAN}"},
        {"api_key": KEY.encode()},
    ],
    ids=[
        "no URL",
        "plain http",
        "the key in plain http",
        "the key for a URL",
        "the key in a query",
        "the key in brackets",
        "the key in bytes",
        "timeout",
        "proxy",
        "type",
        "option",
        "listener",
        "transport",
        "bearer",
        "snowman",
        "bytes",
    ],
)
@pytest.mark.parametrize("from_environment", [False, True])
def test_no_error_of_the_settings_shows_the_key(options, from_environment, monkeypatch):
    monkeypatch.setenv("GMI_API_KEY", KEY)
    given = {**({} if from_environment else {"api_key": KEY}), **options}

    error = None
    try:
        KlingClient(**given)
    except (KlingError, TypeError) as caught:
        error = caught
    del options, given
    error.__traceback__ = error.__traceback__.tb_next  # this frame is the user's
    shown = show(error)
    assert not [secret for secret in HIDDEN if secret in shown]


def test_a_request_shows_and_pickles_no_credential():
    headers = {"Authorization": f"Bearer {KEY}", "proxy-authorization": KEY, "Accept": "*/*"}
    request = Request("POST", "https://service.example/", headers, b"{}", 5.0, is_public_only=True)
    assert repr(request) == repr(
        Request(
            "POST",
            "https://service.example/",
            {**headers, "Authorization": "***", "proxy-authorization": "***"},
            b"{}",
            5.0,
            is_public_only=True,
        )
    )
    assert KEY not in repr(request)
    assert KEY.encode() not in pickle.dumps(request)
    copied = pickle.loads(pickle.dumps(request))  # noqa: S301
    assert copied.headers == {"Authorization": "***", "proxy-authorization": "***", "Accept": "*/*"}
    assert (copied.method, copied.url, copied.body, copied.timeout) == ("POST", request.url, b"{}", 5.0)
    assert copied.is_public_only
    assert KEY not in repr(Reply(200, {"X-Echo": KEY}, KEY.encode()))


def test_a_secret_shows_itself_to_reveal_alone():
    secret = Secret(KEY)
    assert secret.reveal() == KEY
    assert {repr(secret), str(secret), f"{secret}", repr([secret])} == {"***", "[***]"}
    assert pickle.loads(pickle.dumps(secret)).reveal() == "***"  # noqa: S301
    assert copy.deepcopy(secret).reveal() == "***"
    assert (secret == Secret(KEY), secret == Secret("other"), secret == KEY) == (True, False, False)
    assert len({secret, Secret(KEY)}) == 1
    assert (secret.hide_in(f"a {KEY}"), secret.hide_in_json(KEY.encode())) == ("a ***", b"***")
    assert (Secret("").hide_in("a"), Secret("").hide_in_json(b"a")) == ("a", b"a")
    assert Secret("short").hide_in("short SHORT") == "*** SHORT"
    assert not Secret("").is_shown_by(ValueError(""))


@pytest.mark.parametrize(
    "value",
    [
        f"a {KEY}{KEY}",
        {"prompt": f"a {KEY}", KEY: [KEY, 5, None, {"x": f'"{KEY}"\n'}], "sound": True},
        "a",
        [],
        1.5,
    ],
)
def test_a_value_that_was_sent_hides_the_key_as_the_record_of_it_does(value):
    for secret in (Secret(KEY), Secret("")):
        record = load_json(secret.hide_in_json(json.dumps(value).encode()), secret=secret)
        assert secret.hide_in_value(value) == record
    assert Secret(KEY).hide_in_value((KEY,)) == ["***"]


def test_frames_of_an_error_that_was_handled_before_keep_their_variables():
    def fail(value):
        raise ValueError("it failed") if value else KeyError("it was empty")

    def locals_of(error):
        return [frame.f_locals for frame, _ in traceback.walk_tb(error.__traceback__)][1:]

    with pytest.raises(ValueError, match="it failed") as caught:
        fail("outer")
    outer = caught.value
    inner = ValueError("later")
    with pytest.raises(KeyError) as caught:
        fail("")
    inner.__cause__, inner.__context__ = caught.value, outer
    clear_locals(ExceptionGroup("two", [inner]), outer=outer)
    assert locals_of(caught.value) == [{}]
    assert locals_of(outer) == [{"value": "outer"}]
