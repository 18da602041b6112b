"""Every message is true where it appears: an error names the call that was made, and options that this call has."""

from __future__ import annotations

import ast
import inspect
import io
import re
from collections.abc import AsyncIterator
from decimal import Decimal
from functools import cache, partial
from pathlib import Path

import attrs
import pytest
from virtual_service import Service, always, reply

import kling_async
from kling_async import (
    Job,
    JobStatus,
    Journal,
    KlingClient,
    KlingError,
    Limits,
    PollingPolicy,
    Result,
    ResultState,
    RetryPolicy,
    VideoRequest,
    errors,
    estimate,
    show_progress,
)
from kling_async._transport.base import Reply
from kling_async.batch_result import BatchResult
from kling_async.emulator import JobScript
from kling_async.journal import Entry, EntryState, Identity
from kling_async.types import (
    BatchOptions,
    ClientOptions,
    GenerateOptions,
    SubmitOptions,
    WaitManyOptions,
    WaitOptions,
)

ROOT = Path(kling_async.__file__).parent
KINDS = {
    name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, KlingError)
}
PYTHON = re.compile(r"\bclient\.|\bawait\b|\w+\(\)|\b[a-z_]+=(?!\d)")
"""A call, an attribute or a keyword of Python."""
ONLY_PYTHON = {
    "client.py",
    "estimates.py",
    "items.py",  # the command line reads its own input, and says that a prompt is meant
    "config.py",  # the command line gives no key and no timeout, and words the missing key itself
    "_tables.py",
    "_policy/budget.py",  # the command line checks prices and the cap itself
    "_display/progress.py",  # the command line never says progress=True
}
"""The files whose messages no command prints."""
OPTIONS = {
    "submit": SubmitOptions,
    "generate": GenerateOptions,
    "generate_many": BatchOptions,
    "stream_many": BatchOptions,
    "wait": WaitOptions,
    "wait_many": WaitManyOptions,
    "with_options": ClientOptions,
}
CALLS = {
    **{name: call for name, call in vars(KlingClient).items() if callable(call) and not name.startswith("_")},
    **{
        kind.__name__: kind
        for kind in (KlingClient, Limits, PollingPolicy, RetryPolicy, VideoRequest, Journal)
    },
    "estimate": estimate,
    "show_progress": show_progress,
    "write_report": BatchResult.write_report,
    **{name: getattr(Journal, name) for name in ("register", "preview", "entries")},
}


def keywords_of(name):
    """The keywords that a call takes."""
    known = set(inspect.signature(CALLS[name]).parameters) - {"self", "options"}
    if name in {"register", "preview", "estimate"}:
        return known | set(SubmitOptions.__annotations__)
    return known | set(getattr(OPTIONS.get(name), "__annotations__", ()))


def text_of(node):
    """The text of a message in the source; `…` stands for a value."""
    match node:
        case ast.Constant(value=str() as text):
            return text
        case ast.JoinedStr(values=values):
            return "".join(value.value if isinstance(value, ast.Constant) else "…" for value in values)
        case ast.BinOp(left=left, right=right):
            return text_of(left) + text_of(right)
        case ast.IfExp(body=body, orelse=orelse):
            return f"{text_of(body)} {text_of(orelse)}"
    return "…"


@cache
def messages():
    """The file, the text and the advice of each error that the package makes."""
    found = []
    for file in sorted(ROOT.rglob("*.py")):
        name = file.relative_to(ROOT).as_posix()
        if name.startswith(("emulator/", "cli/")):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in KINDS and node.args:
                advice = [text_of(one.value) for one in node.keywords if one.arg == "advice"]
                found.append((name, text_of(node.args[0]), *(advice or [""])))
    return found


def test_a_message_that_a_command_can_print_names_no_call_and_no_keyword_of_python():
    found = [(file, text) for file, text, _ in messages() if file not in ONLY_PYTHON and PYTHON.search(text)]
    assert len(messages()) > 80
    assert found == []


def test_an_advice_names_calls_and_keywords_that_exist():
    advices = [advice for _, _, advice in messages() if advice]
    assert len(advices) > 5
    every_keyword = set().union(*map(keywords_of, CALLS))
    for advice in advices:
        assert set(re.findall(r"client\.(\w+)\(", advice)) <= set(CALLS), advice
        assert set(re.findall(r"\b([a-z_]+)=", advice)) <= every_keyword, advice


def refuse(kind, status):
    return {"before": [always(kind, reply(status, {"error": "no"}))]}


def break_reply(kind):
    return {"before": [always(kind, Reply(200, {}, b"<html>"))]}


FAILED = {"run_time": 0.0, "script": lambda _: JobScript(ending="failed", error="policy")}
JOB = Job(request_id="job-0", status=JobStatus.SUCCESS)
UNSENT = Result(index=0, request=None, state=ResultState.NOT_SUBMITTED)
ENTRY = Entry(
    number=1,
    identity=Identity(None, "f" * 64, 0),
    model="kling-v2-6",
    payload={},
    state=EntryState.SUBMITTED,
    request_id="job-0",
)
NO_JOBS = [
    # what a caller gives for a job, what the message says
    (None, "not None: the result of an item that was not submitted"),
    (UNSENT, "not this Result, which has no job"),
    (attrs.evolve(UNSENT, state=ResultState.SUCCEEDED, job=JOB), "give result.job"),
    (ENTRY, "give entry.request_id"),
    (attrs.evolve(ENTRY, request_id=None), "not this Entry, which has no job"),
    (BatchResult(()), "one job at a time"),
    ([JOB], "one job at a time"),
    (5, "not 5."),
    ({"request_id": "job-0"}, "not {'request_id': 'job-0'}."),
    (b"job-0", "not b'job-0'."),
]
MANY = ("generate_many", "stream_many")
DOORS = [
    # the service, the call, its arguments, its options, what the message says
    ({}, "KlingClient", ["k"], {"base_url": "ftp://x"}, "The base URL 'ftp://x'"),
    ({}, "KlingClient", ["k"], {"timeout": 0}, "timeout=0"),
    ({}, "KlingClient", ["k"], {"proxy": "::"}, 'KlingClient(proxy="")'),
    ({}, "KlingClient", ["a b"], {}, "api_key"),
    ({}, "Limits", [], {"max_concurrent_submits": 0}, "max_concurrent_submits must be"),
    ({}, "RetryPolicy", [], {"max_retries": -1}, "max_retries must be"),
    ({}, "PollingPolicy", [], {"poll_interval": "x"}, "poll_interval must be"),
    ({}, "with_options", [], {"timeout": "x"}, "timeout='x'"),
    *(
        (refuse("submit", status), call, [["a"]] if call in MANY else ["a"], options, said)
        for call, options in (("submit", {}), ("generate", {"progress": False}))
        for status, said in (
            (400, "client.get_model("),
            (401, "KlingClient(api_key=...)"),
            (402, "add some"),
            (403, "client.list_models()"),
            (404, "client.list_models()"),
            (409, "client.get_model("),
            (422, "client.get_model("),
            (429, "max_submits_per_hour="),
        )
    ),
    *(
        ({}, call, ["a"], {"duration": 7}, "duration must be 5 or 10")
        for call in ("submit", "generate", "estimate")
    ),
    *(({}, call, ["a"], {"image": "lost.png"}, "lost.png") for call in ("submit", "generate")),
    *(({}, call, [["a"]], {"duration": 7}, "skip_invalid=True") for call in MANY),
    *(({}, call, [["a"]], {"max_cost_usd": 1}, "prices=") for call in MANY),
    *(({}, call, [["a"]], {"prices": 5, "max_cost_usd": 1}, "prices must be") for call in MANY),
    *(({}, call, [["a"]], {"max_cost_usd": "x"}, "max_cost_usd must be") for call in MANY),
    *(({}, call, [["a"]], {"max_concurrency": 0}, "max_concurrency must be") for call in MANY),
    *(({}, call, [["a"]], {"on_ambiguous": "no"}, "on_ambiguous must be") for call in MANY),
    *(
        ({}, call, [["a"]], {"retry_failed": "no"}, "retry_failed must be True or False, not 'no'")
        for call in MANY
    ),
    ({}, "generate_many", [["a"]], {"raise_on_failure": 1}, "raise_on_failure must be True or False"),
    *(({}, call, [["a"]], {"output": "https://a"}, "output=") for call in MANY),
    *(({}, call, [["a"]], {"output": "/dev/null/a"}, "Choose another folder") for call in MANY),
    *(({}, call, [["a"]], {"journal": "/dev/null/a.db"}, "no folder") for call in MANY),
    *(({}, call, [["a"]], {"progress": "no"}, "progress must be") for call in MANY),
    *(({}, call, [5], {}, "must be an iterable") for call in MANY),
    ({}, "generate", ["a"], {"output": "/dev/null/a/"}, "Choose another folder"),
    ({}, "generate", ["a"], {"progress": []}, "progress must be"),
    ({}, "generate", ["a"], {"wait_timeout": -1}, "wait_timeout must be"),
    (FAILED, "generate", ["a"], {"progress": False}, "failed at the service: policy"),
    *(
        ({}, call, ["nope", *rest], {}, "`client.list_jobs()` shows the ids of jobs")
        for call, rest in (("wait", ()), ("download", ("a.mp4",)), ("get_job", ()))
    ),
    *((refuse("list", status), "list_jobs", [], {}, "ry again later") for status in (429, 500)),
    ({}, "wait", [" "], {}, "client.list_jobs()"),
    ({}, "wait_many", ["nope"], {}, "use wait()"),
    ({}, "wait_many", [[]], {"progress": "no"}, "progress must be"),
    ({}, "get_job", ["nope"], {}, "job nope"),
    ({}, "get_job", [".."], {}, "client.list_jobs()"),
    (break_reply("status"), "get_job", ["nope"], {}, "breaks its contract"),
    (refuse("status", 403), "get_job", ["nope"], {}, "this key may not"),
    ({}, "download", ["nope", "a.mp4"], {}, "job nope"),
    ({}, "download", ["nope", "https://a"], {}, ""),
    (refuse("list", 404), "list_jobs", [], {}, "the list of jobs"),
    (refuse("models", 401), "list_models", [], {}, "GMI_API_KEY"),
    ({}, "get_model", ["Kling-V2-6"], {}, "did you mean 'kling-v2-6'?"),
    ({}, "check_output", ["https://a"], {}, "destination='https://a'"),
    ({}, "check_output", ["/dev/null/v/"], {}, "Choose another folder"),
    ({}, "upload", ["a.txt"], {}, "cannot be uploaded"),
    ({}, "upload", ["lost.png"], {}, "cannot be read"),
    ({}, "estimate", ["a"], {"prices": "list"}, "prices must be"),
    ({}, "show_progress", [], {"progress": "no"}, "progress must be"),
    ({}, "register", [["a"]], {"duration": 7}, "skip_invalid=True"),
    ({}, "preview", [["a"]], {"duration": 7}, "skip_invalid=True"),
    ({}, "entries", [], {}, "There is no journal"),
    ({}, "write_report", ["/dev/null/a.html"], {}, "Choose another file"),
]


def raise_half_way():
    yield "a"
    raise OSError("the disk is gone")


async def no_items():
    for item in ():
        yield item


ONE = ("submit", "generate", "estimate")
DOORS += [
    # what a caller gives for one video, and for many
    *(({}, call, [{"prompt": "a", "mood": "b"}], {}, "keep_labels=True") for call in ONE),
    *(({}, call, [{"prompt": "a", "Prompt": "b"}], {}, "two values for prompt") for call in ONE),
    *(({}, call, [{"prompt": "a", "": 5}], {}, "without a name") for call in ONE),
    *(({}, call, [{}], {}, "needs a prompt") for call in ONE),
    *(({}, call, [5], {}, "") for call in ONE),
    *(
        ({}, call, [prompt], {}, said)
        for call in ("submit", "generate")
        for prompt, said in (
            ("nan", "allow_suspicious=True"),
            ("a.txt", "generate_many(open("),
            ("run.db", "journal="),
            ("a.png", "image="),
            ("https://a.b/c", "image="),
            ("prompt,duration", ""),
            ('{"prompt": "a"}', ""),
            ("# a comment", ""),
        )
    ),
    *(
        ({}, call, [[{"prompt": "a", "mood": "b"}]], {}, "keep_labels=True")
        for call in (*MANY, "register", "preview")
    ),
    *(({}, call, [["nan"]], {}, "allow_suspicious=True") for call in (*MANY, "register", "preview")),
    *(({}, call, ["a"], {}, "put it into a list") for call in (*MANY, "register", "preview")),
    *(
        ({}, call, [{"prompt": ["a"]}], {}, "of columns is no list")
        for call in (*MANY, "register", "preview")
    ),
    *(({}, call, [open], {}, "must be an iterable") for call in (*MANY, "register", "preview")),
    *(({}, call, [partial(io.StringIO, "a")], {}, "An open file") for call in MANY),
    *(
        ({"run_time": 0.0}, call, [partial(iter, ["a", {}])], {"progress": False}, "Item 1: A request needs")
        for call in ("stream_many",)
    ),
    (
        {"run_time": 0.0},
        "generate_many",
        [partial(raise_half_way)],
        {"progress": False},
        "this error's `batch`",
    ),
    ({}, "estimate", [partial(no_items)], {}, "no async iterable"),
    ({}, "wait_many", [[5]], {}, "Item 0 is a job or the id of one, not 5"),
    *(
        ({}, call, [given, *rest], {}, said)
        for call, rest in (("wait", ()), ("download", ("a.mp4",)), ("get_job", ()))
        for given, said in NO_JOBS
    ),
    *(({}, "wait_many", [[given]], {}, said) for given, said in NO_JOBS),
    ({}, "get_job", [JOB], {}, "give job.request_id"),
    ({}, "get_model", [None], {}, "client.list_models()"),
    # settings, from an argument or from the environment
    ({}, "KlingClient", [], {}, "KlingClient(api_key=...)"),
    ({}, "KlingClient", [5], {}, "api_key must be text"),
    ({}, "KlingClient", ["\N{SNOWMAN}"], {}, "api_key"),
    ({}, "KlingClient", ["k"], {"base_url": "http://far.example"}, "KLING_ASYNC_TRUST_NETWORK=1"),
    ({}, "KlingClient", ["k"], {"proxy": 5}, "proxy must be text"),
    ({}, "KlingClient", ["k"], {"transport": 5}, "transport must be"),
    ({"environ": {"SSL_CERT_FILE": "lost.pem"}}, "KlingClient", ["k"], {}, "SSL_CERT_FILE='lost.pem'"),
    ({"environ": {"KLING_ASYNC_TRUST_NETWORK": "2"}}, "KlingClient", ["k"], {}, "neither 1 nor 0"),
    ({"environ": {"KLING_ASYNC_TRANSPORT": "slow"}}, "KlingClient", ["k"], {}, "KLING_ASYNC_TRANSPORT"),
    # paths
    *(({}, call, [["a"]], {"output": "a\0b"}, "embedded null") for call in MANY),
    *(({}, call, [["a"]], {"output": "~no-such-user/a"}, "home folder") for call in MANY),
    *(({}, call, [["a"]], {"output": ""}, "output=''") for call in MANY),
    ({}, "generate_many", [["a"]], {"output": "s3:/b/v"}, "as in a Path"),
    ({}, "generate_many", [["a"]], {"output": "s3://"}, "names no bucket"),
    ({}, "generate_many", [["a"]], {"output": "s3://b/a//c"}, "an empty segment"),
    ({}, "generate_many", [["a"]], {"output": "s3://k:secret@b"}, "environment variables"),
    ({}, "generate_many", [["a"]], {"output": "s3://b/" + "v" * 801}, "is too long"),
    ({}, "generate_many", [["a"]], {"output": "file://host/v"}, "of another host"),
    ({}, "generate_many", [["a"]], {"journal": "s3://b/run.db"}, "nor the URL of a PostgreSQL database"),
    ({}, "upload", ["s3://b/a.png"], {}, "is a URL: give the path"),
]
ELSEWHERE = {
    "_display/progress.py": "without rich: tests/display",
    "_stores.py": "without obstore, or settings of a store: tests/stores",
    "_tables.py": "tables of other libraries: tests/test_tables.py",
    "distributed.py": "without a database: tests/distributed",
    "_loop_sessions.py": "without an event loop of asyncio: tests/test_client.py",
    "batch_result.py": "no call: an item without an error in a group",
    "journal.py": "a database where a path is wanted: tests/test_journal.py",
    "results.py": "no call: a result without a job",
}
"""The files of the top with one message that this table does not make, and where it is made."""


async def make(name, service, arguments, options):
    """Make a call up to its first result; a partial makes a new argument for each call."""
    arguments = [one() if isinstance(one, partial) else one for one in arguments]
    if name in {"register", "preview", "entries"}:
        call = getattr(Journal("lost.db"), name)
    elif name == "write_report":
        call = BatchResult(()).write_report
    elif inspect.isclass(CALLS[name]) or name in {"estimate", "show_progress"}:
        call = CALLS[name]
    else:
        client = KlingClient("key", transport=service, retry=RetryPolicy(max_retries=0))
        call = getattr(client, name)
    made = call(*arguments, **options)
    if inspect.isawaitable(made):
        await made
    elif isinstance(made, AsyncIterator):
        await anext(made)
    elif name == "stream_many":
        async with made as results:
            [_ async for _ in results]


def service_of(settings):
    return Service(**{name: value for name, value in settings.items() if name != "environ"})


def clear_environment(monkeypatch, folder, settings):
    """An empty folder, and an environment with nothing but what the settings say."""
    monkeypatch.chdir(folder)
    for name in ("GMI_API_KEY", "GMI_CLOUD_API_KEY", "GMI_CLOUD_APIKEY", "GMI_BASE_URL", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.get("environ", {}).items():
        monkeypatch.setenv(name, value)


@pytest.mark.unmeasured
@pytest.mark.parametrize("door", DOORS, ids=[f"{number}-{door[1]}" for number, door in enumerate(DOORS)])
async def test_an_error_names_its_call_and_only_keywords_of_the_calls_it_names(door, tmp_path, monkeypatch):
    settings, name, arguments, options, said = door
    clear_environment(monkeypatch, tmp_path, settings)
    with pytest.raises(KlingError) as caught:
        await make(name, service_of(settings), arguments, options)
    text = str(caught.value)
    named = set(re.findall(r"\b([A-Za-z_]+)\(", text)) & set(CALLS)
    assert caught.value.call == name
    assert said in text
    assert name in named
    assert set(re.findall(r"(?<![\w./?&-])([a-z_]+)=", text)) <= set().union(*map(keywords_of, named))


async def test_the_table_makes_every_message_of_the_top(tmp_path, monkeypatch):
    made = []
    for settings, name, arguments, options, _ in DOORS:
        with monkeypatch.context() as patch:
            clear_environment(patch, tmp_path, settings)
            with pytest.raises(KlingError) as caught:
                await make(name, service_of(settings), arguments, options)
        error = caught.value
        while error is not None:
            made.append(getattr(error, "message", ""))
            error = error.__cause__
    missing = {}
    for file, text, _ in messages():
        pattern = re.escape(text).replace("…", ".*")
        if "/" not in file and not any(re.fullmatch(pattern, message, re.DOTALL) for message in made):
            missing.setdefault(file, []).append(text)
    assert missing.keys() <= ELSEWHERE.keys(), missing


def test_the_table_has_every_call_that_can_raise():
    silent = {"aclose", "VideoRequest", "Journal"}
    assert {name for _, name, *_ in DOORS} == set(CALLS) - silent


async def test_an_error_of_the_network_names_the_settings_that_lead_to_the_service():
    client = KlingClient("key", base_url="http://127.0.0.1:9", retry=RetryPolicy(max_retries=0))
    for call in (client.list_models, partial(client.submit, "A kite"), partial(client.get_job, "job-0")):
        with pytest.raises(KlingError, match="no connection") as caught:
            await call()
        assert "KlingClient(base_url=..., proxy=...)" in str(caught.value)
    await client.aclose()


async def test_the_advice_of_a_cap_is_the_option_of_the_call():
    client = KlingClient("key", transport=Service(run_time=0.0), polling=PollingPolicy(poll_interval=0.0))
    batch = await client.generate_many(
        ["a", "b"],
        prices={"kling-v2-6": Decimal("0.35")},
        max_cost_usd=0.5,
        max_concurrency=1,
        progress=False,
    )
    assert str(batch[1].error) == (
        "One more video would bring the spend to $0.70, above the cap of $0.50; nothing more was sent. "
        "Raise max_cost_usd to submit more."
    )
