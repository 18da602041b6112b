from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from difflib import get_close_matches

import pytest
from virtual_service import Service, always, reply

import kling_async
from kling_async import (
    ConfigurationError,
    InvalidRequestError,
    Journal,
    KlingClient,
    Limits,
    NotFoundError,
    PollingPolicy,
    RetryPolicy,
    VideoRequest,
    show_progress,
)
from kling_async._calls import public_call
from kling_async.batch_result import BatchResult

CLIENT = KlingClient("key", transport=Service())
METHODS = {
    name: getattr(CLIENT, name)
    for name, member in vars(KlingClient).items()
    if not name.startswith("_") and callable(member)
}
CALLS = {
    **METHODS,
    **{
        kind.__name__: kind
        for kind in (KlingClient, VideoRequest, Limits, PollingPolicy, RetryPolicy, Journal)
    },
    "estimate": kling_async.estimate,
    "show_progress": show_progress,
    "entries": Journal("run.db").entries,
    "register": Journal("run.db").register,
    "preview": Journal("run.db").preview,
    "next_step": Journal.next_step,
    "write_report": BatchResult(()).write_report,
}
"""Every call of the public API by the name that its user writes."""


async def make(call, *arguments, **options):
    """Make a call of any kind, up to its first result."""
    made = call(*arguments, **options)
    if inspect.isawaitable(made):
        return await made
    if isinstance(made, AsyncIterator):
        return [item async for item in made]
    return made


def arguments_of(call):
    """As many arguments as the call needs at least."""
    parameters = inspect.signature(call).parameters.values()
    needed = [one for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD and one.default is one.empty]
    return ["x"] * len(needed)


def options_of(call):
    """The keywords that the signature names; the subject of a call with further options is not one of them."""
    parameters = inspect.signature(call).parameters
    return [
        name
        for name, one in parameters.items()
        if one.kind is not one.VAR_KEYWORD and not ("options" in parameters and one.default is one.empty)
    ]


def test_the_table_has_every_call_of_the_client():
    assert {"submit", "generate", "list_jobs", "stream_many", "download", "with_options"} <= set(METHODS)


@pytest.mark.parametrize("name", CALLS)
async def test_an_unknown_keyword_is_a_type_error_that_names_the_call_and_its_options(name):
    with pytest.raises(TypeError, match=rf"^{name}\(\) has no option 'colour'; it") as caught:
        await make(CALLS[name], *arguments_of(CALLS[name]), colour="red")
    assert all(option in str(caught.value) for option in options_of(CALLS[name]))


@pytest.mark.parametrize("name", CALLS)
async def test_a_misspelt_keyword_is_answered_with_the_nearest_right_one(name):
    for option in options_of(CALLS[name]):
        wrong = f"{option}_"
        nearest = get_close_matches(wrong, options_of(CALLS[name]), n=1)
        with pytest.raises(
            TypeError, match=rf"^{name}\(\) has no option '{wrong}'; did you mean '{nearest[0]}'\?"
        ):
            await make(CALLS[name], *arguments_of(CALLS[name]), **{wrong: 1})


@pytest.mark.parametrize(
    "name, arguments, options",
    [
        ("KlingClient", ["key"], {"timeout": -1}),
        ("Limits", [], {"max_polls_per_second": 0}),
        ("PollingPolicy", [], {"use_lists": "often"}),
        ("with_options", [], {"timeout": 0}),
        ("submit", ["x"], {"duration": 7}),
        ("generate", ["x"], {"duration": 7}),
        ("generate", ["x"], {"wait_timeout": -1}),
        ("generate_many", [["x"]], {"duration": 7}),
        ("generate_many", [["x"]], {"max_concurrency": 0}),
        ("stream_many", [["x"]], {"max_cost_usd": 1}),
        ("get_job", ["nope"], {}),
        ("wait", ["nope"], {}),
        ("wait", ["x"], {"wait_timeout": -1}),
        ("download", ["nope", "x.mp4"], {}),
        ("list_jobs", [], {}),
        ("upload", ["a.txt"], {}),
        ("list_models", [], {}),
        ("get_model", ["nope"], {}),
        ("estimate", ["x"], {"duration": 7}),
        ("show_progress", [], {"progress": "often"}),
    ],
)
async def test_an_error_names_the_call_that_was_made(name, arguments, options):
    gone = always("list", reply(404, {"error": "no such list"}))
    client = KlingClient("key", transport=Service(before=[gone]))
    call = getattr(client, name, None) or CALLS[name]
    with pytest.raises((ConfigurationError, InvalidRequestError, NotFoundError)) as caught:
        await make(call, *arguments, **options)
    assert caught.value.call == name
    assert str(caught.value).startswith(f"{name}(): ")


async def test_the_outermost_of_nested_calls_counts():
    @public_call
    def outer() -> None:
        Limits(max_polls_per_second=0)

    with pytest.raises(ConfigurationError, match=r"^outer\(\): max_polls_per_second must be"):
        outer()


async def test_an_error_that_comes_while_a_stream_is_read_names_its_call(tmp_path):
    async with KlingClient("key", transport=Service()) as client:
        with pytest.raises(InvalidRequestError, match=r"^stream_many\(\): Item 0: "):
            async with client.stream_many(iter([{}])) as results:
                [_ async for _ in results]
        with pytest.raises(NotFoundError, match=r"^get_job\(\): job nope: "):
            async with client.stream_many([]) as results:
                await client.get_job("nope")


async def test_an_invalid_item_names_no_call_in_its_result():
    async with KlingClient("key", transport=Service()) as client:
        [result] = await client.generate_many([{"prompt": "x", "duration": 7}], skip_invalid=True)
    assert str(result.error) == result.error.message
