"""Everything that can go wrong, by name, and whole days of it drawn from a seed."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any, get_args

import attrs

from kling_async.emulator.faults import (
    BACKEND_ERROR,
    BAD_GATEWAY,
    NOT_FOUND,
    STORAGE_BUSY,
    Action,
    Drop,
    DuplicateReply,
    Edit,
    Fault,
    Flood,
    Operation,
    Outage,
    Raw,
    Redirect,
    Reply,
    SlowReply,
    Stall,
    TruncatedReply,
    WrongLength,
)
from kling_async.emulator.service_queue import RATE_LIMITED
from kling_async.emulator.settings import EmulatorSettings, JobScript, ResponseFormat

_LIMIT = "Rate limit exceeded. Please try again later."
_ELSEWHERE = "http://127.0.0.2:9"

ACTIONS: Mapping[str, Action] = {
    "hung up before reading": Drop(accepted=False, reset=False),
    "reset before reading": Drop(accepted=False),
    "hung up before the head": Drop(reset=False),
    "reset before the head": Drop(),
    "hung up within the head": TruncatedReply(within="head"),
    "reset within the head": TruncatedReply(within="head", reset=True),
    "hung up after the head": TruncatedReply(0),
    "reset after the head": TruncatedReply(0, reset=True),
    "hung up within the body": TruncatedReply(),
    "reset within the body": TruncatedReply(reset=True),
    "half a body that looks whole": TruncatedReply(declares_full_length=False),
    "no body that looks whole": TruncatedReply(0, declares_full_length=False),
    "late": Stall(0.2),
    "never": Stall(3600.0),
    "late and hung up": Stall(0.2, then="drop"),
    "a slow drip": SlowReply(0.01),
    "a drip without end": SlowReply(600.0),
    "a length too long": WrongLength(1),
    "a length too short": WrongLength(-1),
    "answered twice": DuplicateReply(),
    "answered twice, late": DuplicateReply(0.02),
    "100 MB": Flood(100_000_000),
    "a gzip bomb": Flood(2**30, is_compressed=True),
    "no gzip though it says so": Reply(200, b"{}", headers={"Content-Encoding": "gzip"}, accepted=True),
    "no HTTP": Raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "HTTP without an end": Raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000),
    "sent elsewhere": Redirect(_ELSEWHERE),
    "sent elsewhere after accepting": Reply(307, headers={"Location": _ELSEWHERE}, accepted=True),
    "408": Reply(408, {"error": "timeout"}, accepted=True),
    "429": Reply(429, {"error": _LIMIT}),
    "429 with seconds": Reply(429, {"error": _LIMIT}, headers={"Retry-After": "0.05"}),
    "429 with a date": Reply(
        429, {"error": _LIMIT}, headers={"Retry-After": "Thu, 01 Jan 2026 00:00:00 GMT"}
    ),
    "429 with a pause in its body": Reply(429, {"error": {"message": _LIMIT, "retry_after": 0.05}}),
    "500": BACKEND_ERROR,
    "500 after accepting": attrs.evolve(BACKEND_ERROR, accepted=True),
    "502 page": BAD_GATEWAY,
    "502 page after accepting": attrs.evolve(BAD_GATEWAY, accepted=True),
    "503 of the storage": STORAGE_BUSY,
    "503 without a word": Reply(503),
    "404": NOT_FOUND,
    "200 page": Reply(200, "<html>OK</html>", accepted=True),
    "200 without a body": Reply(200, accepted=True),
    "204": Reply(204, accepted=True),
    "200 of null": Reply(200, "null", "application/json", accepted=True),
    "200 of a bare list": Reply(200, [], accepted=True),
    "broken UTF-8": Reply(200, b'{"request_id": "\xff\xfe', "application/json", accepted=True),
    "10,000 deep": Reply(200, "[" * 10_000, "application/json", accepted=True),
    "a status never seen": Edit({"status": "polishing"}),
    "a status in capitals": Edit({"status": "PROCESSING"}),
    "no request_id": Edit(without=("request_id",)),
    "no status": Edit(without=("status",)),
    "unknown keys": Edit({"eta": {"seconds": 40}, "": None}),
    "an hour ahead": Edit(time_offset=3600.0),
    "a day behind": Edit(time_offset=-86_400.0),
}
"""What can befall one call, whatever it asks for."""

_KEYS = (
    "request_id",
    "org_id",
    "user_id",
    "model",
    "status",
    "is_public",
    "payload",
    "outcome",
    "created_at",
    "updated_at",
    "queued_at",
)
_TEXTS: Mapping[str, str] = {
    "null": "null",
    "a bool": "true",
    "a number": "7",
    "a fraction": "-0.5",
    "text": '"x"',
    "no text": '""',
    "a list": '[1, "x"]',
    "an object": '{"error": ["x"], "media_urls": 7, "message": {}}',
    "NaN": "NaN",
    "infinity": "-1e999",
    "a huge number": "9" * 5000,
    "half a surrogate": r'"\ud800"',
    "control characters": r'"\u0000\u202e\u001b[31m</script>"',
    "10,000 deep": "[" * 10_000 + "]" * 10_000,
}

WRONG_TYPES: Mapping[str, Edit] = {
    f"{key} is {kind}": Edit(raw_json={key: text}) for key in _KEYS for kind, text in _TEXTS.items()
}
"""Every key of a record, with every kind of value that it should not have."""

JOB_SCRIPTS: Mapping[str, JobScript] = {
    "done at once": JobScript(ending="instant"),
    "failed": JobScript(ending="failed"),
    "cancelled": JobScript(ending="cancelled"),
    "queued for ever": JobScript(ending="stuck_queued"),
    "processing for ever": JobScript(ending="stuck_processing"),
    "failed for a rate limit": JobScript(ending="failed", error=RATE_LIMITED),
    "an id that climbs": JobScript(request_id="../../etc/passwd"),
    "an id like a page": JobScript(request_id='"><script>&?#%2e\N{RIGHT-TO-LEFT OVERRIDE}'),
}
"""What can become of one job."""

RESPONSE_FORMATS: Mapping[str, ResponseFormat] = {
    "as usual": ResponseFormat(),
    "whole records": ResponseFormat(submit_reply="full", user_id=False, qworker_id=True),
    "success without an outcome": ResponseFormat(outcome_on_submit=False),
    "flat addresses": ResponseFormat(outcome="video_url", thumbnail="video"),
    "addresses as text": ResponseFormat(outcome="media_strings", thumbnail="none"),
    "no echo": ResponseFormat(payload_echo=False),
    "capitals": ResponseFormat(status_case="upper"),
    "a clock an hour ahead": ResponseFormat(clock_ahead=3600.0),
    "a clock an hour behind": ResponseFormat(clock_ahead=-3600.0),
    "rows that come late": ResponseFormat(list_delay=60.0),
    "rows that never come": ResponseFormat(unlisted_rate=0.3),
    "no rows at all": ResponseFormat(unlisted_rate=1.0),
    "small pages, oldest first": ResponseFormat(list_rows=3, list_order="oldest"),
    "small pages in any order": ResponseFormat(list_rows=3, list_order="random"),
    "pages without an end": ResponseFormat(list_total=False, list_has_more=False),
    "no ranges": ResponseFormat(ranges=False),
}
"""How the whole service can differ from what was expected."""


def random_faults(
    seed: int,
    *,
    probability: float = 0.1,
    settings: EmulatorSettings = EmulatorSettings(),  # noqa: B008 - a frozen value
) -> EmulatorSettings:
    """The settings of a day on which much goes wrong, the same for the same seed.

    Every kind of call is hit by a few faults, and now and then by an outage; some jobs have another fate; and the
    dialect is one of `RESPONSE_FORMATS`. Some of the calls hit are never answered, so give the client a short `timeout`.

    Args:
        seed: chooses all of it, and seeds the emulator.
        probability: about the share of calls that are hit, and of jobs with a fate of their own.
        settings: everything else.
    """
    rng = Random(f"chaos/{seed}")
    faults = [
        Fault(operation, _choose_action(rng), probability=probability / 3, times=None)
        for operation in get_args(Operation)
        for _ in range(3)
    ]
    faults.append(Fault("status", Outage(0.2), nth=rng.randrange(1, 50)))

    def script(number: int, payload: Mapping[str, Any]) -> JobScript | None:
        chosen = settings.script(number, payload) if settings.script else None
        job_rng = Random(f"chaos/{seed}/{number}")
        if chosen is not None or job_rng.random() >= probability:
            return chosen
        return job_rng.choice(tuple(JOB_SCRIPTS.values()))

    response_format = rng.choice(tuple(RESPONSE_FORMATS.values()))
    return attrs.evolve(
        settings,
        seed=seed,
        faults=(*settings.faults, *faults),
        response_format=response_format,
        script=script,
    )


def _choose_action(rng: Random) -> Action:
    """An action of either table, the smaller one as often as the larger."""
    table: Mapping[str, Action] = ACTIONS if rng.random() < 0.5 else WRONG_TYPES  # noqa: PLR2004 - a coin
    return rng.choice(tuple(table.values()))
