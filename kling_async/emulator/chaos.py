"""Named faults, job scripts and response formats, and random sets of them from a seed."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any, get_args

import attrs

from kling_async.emulator import faults
from kling_async.emulator.faults import Fault, Operation
from kling_async.emulator.service_queue import RATE_LIMITED
from kling_async.emulator.settings import EmulatorSettings, JobScript, ResponseFormat

_LIMIT = "Rate limit exceeded. Please try again later."
_OTHER_HOST = "http://127.0.0.2:9"

ACTIONS: Mapping[str, faults.Action] = {
    "closed before the request is read": faults.Drop(accepted=False, reset=False),
    "reset before the request is read": faults.Drop(accepted=False),
    "closed before the head": faults.Drop(reset=False),
    "reset before the head": faults.Drop(),
    "closed within the head": faults.TruncatedReply(within="head"),
    "reset within the head": faults.TruncatedReply(within="head", reset=True),
    "closed after the head": faults.TruncatedReply(0),
    "reset after the head": faults.TruncatedReply(0, reset=True),
    "closed within the body": faults.TruncatedReply(),
    "reset within the body": faults.TruncatedReply(reset=True),
    "half of the body with a matching length": faults.TruncatedReply(declares_full_length=False),
    "empty body with a matching length": faults.TruncatedReply(0, declares_full_length=False),
    "late reply": faults.Stall(0.2),
    "no reply": faults.Stall(3600.0),
    "closed late": faults.Stall(0.2, then="drop"),
    "slow body": faults.SlowReply(0.01),
    "endless body": faults.SlowReply(600.0),
    "length too long": faults.WrongLength(1),
    "length too short": faults.WrongLength(-1),
    "duplicate reply": faults.DuplicateReply(),
    "late duplicate reply": faults.DuplicateReply(0.02),
    "100 MB": faults.Flood(100_000_000),
    "gzip bomb": faults.Flood(2**30, is_compressed=True),
    "gzip header without gzip": faults.Reply(200, b"{}", headers={"Content-Encoding": "gzip"}, accepted=True),
    "no HTTP": faults.Raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "endless head": faults.Raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000),
    "redirect": faults.Redirect(_OTHER_HOST),
    "redirect after accepting": faults.Reply(307, headers={"Location": _OTHER_HOST}, accepted=True),
    "408": faults.Reply(408, {"error": "timeout"}, accepted=True),
    "429": faults.Reply(429, {"error": _LIMIT}),
    "429 with seconds": faults.Reply(429, {"error": _LIMIT}, headers={"Retry-After": "0.05"}),
    "429 with a date": faults.Reply(
        429, {"error": _LIMIT}, headers={"Retry-After": "Thu, 01 Jan 2026 00:00:00 GMT"}
    ),
    "429 with a pause in its body": faults.Reply(429, {"error": {"message": _LIMIT, "retry_after": 0.05}}),
    "500": faults.BACKEND_ERROR,
    "500 after accepting": attrs.evolve(faults.BACKEND_ERROR, accepted=True),
    "502 page": faults.BAD_GATEWAY,
    "502 page after accepting": attrs.evolve(faults.BAD_GATEWAY, accepted=True),
    "503 of the storage": faults.STORAGE_BUSY,
    "503 without a body": faults.Reply(503),
    "404": faults.NOT_FOUND,
    "200 page": faults.Reply(200, "<html>OK</html>", accepted=True),
    "200 without a body": faults.Reply(200, accepted=True),
    "204": faults.Reply(204, accepted=True),
    "200 of null": faults.Reply(200, "null", "application/json", accepted=True),
    "200 of a bare list": faults.Reply(200, [], accepted=True),
    "broken UTF-8": faults.Reply(200, b'{"request_id": "\xff\xfe', "application/json", accepted=True),
    "10,000 levels deep": faults.Reply(200, "[" * 10_000, "application/json", accepted=True),
    "unknown status": faults.Edit({"status": "polishing"}),
    "status in capitals": faults.Edit({"status": "PROCESSING"}),
    "no request_id": faults.Edit(without=("request_id",)),
    "no status": faults.Edit(without=("status",)),
    "unknown keys": faults.Edit({"eta": {"seconds": 40}, "": None}),
    "times an hour ahead": faults.Edit(time_offset=3600.0),
    "times a day behind": faults.Edit(time_offset=-86_400.0),
}
"""Actions for a call of any kind, by name."""

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
    "a boolean": "true",
    "a number": "7",
    "a fraction": "-0.5",
    "a string": '"x"',
    "an empty string": '""',
    "a list": '[1, "x"]',
    "an object": '{"error": ["x"], "media_urls": 7, "message": {}}',
    "NaN": "NaN",
    "infinity": "-1e999",
    "a huge number": "9" * 5000,
    "a lone surrogate": r'"\ud800"',
    "control characters": r'"\u0000\u202e\u001b[31m</script>"',
    "10,000 levels deep": "[" * 10_000 + "]" * 10_000,
}

WRONG_TYPES: Mapping[str, faults.Edit] = {
    f"{key} is {kind}": faults.Edit(raw_json={key: text}) for key in _KEYS for kind, text in _TEXTS.items()
}
"""Every key of a record with every kind of wrong value, by name."""

JOB_SCRIPTS: Mapping[str, JobScript] = {
    "instant success": JobScript(ending="instant"),
    "failed": JobScript(ending="failed"),
    "cancelled": JobScript(ending="cancelled"),
    "stuck queued": JobScript(ending="stuck_queued"),
    "stuck processing": JobScript(ending="stuck_processing"),
    "failed for a rate limit": JobScript(ending="failed", error=RATE_LIMITED),
    "id with a path": JobScript(request_id="../../etc/passwd"),
    "id with HTML": JobScript(request_id='"><script>&?#%2e\N{RIGHT-TO-LEFT OVERRIDE}'),
}
"""Scripts for a job, by name."""

RESPONSE_FORMATS: Mapping[str, ResponseFormat] = {
    "default": ResponseFormat(),
    "full records": ResponseFormat(submit_reply="full", user_id=False, qworker_id=True),
    "success without an outcome": ResponseFormat(outcome_on_submit=False),
    "media_urls as objects": ResponseFormat(outcome="media_urls"),
    "flat video_url": ResponseFormat(outcome="video_url", thumbnail="video"),
    "media_urls as strings": ResponseFormat(outcome="media_strings", thumbnail="none"),
    "no payload": ResponseFormat(payload_echo=False),
    "status in upper case": ResponseFormat(status_case="upper"),
    "clock an hour ahead": ResponseFormat(clock_ahead=3600.0),
    "clock an hour behind": ResponseFormat(clock_ahead=-3600.0),
    "late rows": ResponseFormat(list_delay=60.0),
    "missing rows": ResponseFormat(unlisted_rate=0.3),
    "no rows": ResponseFormat(unlisted_rate=1.0),
    "small pages, oldest first": ResponseFormat(list_rows=3, list_order="oldest"),
    "small pages, random order": ResponseFormat(list_rows=3, list_order="random"),
    "no totals": ResponseFormat(list_total=False, list_has_more=False),
    "no ranges": ResponseFormat(ranges=False),
}
"""Response formats of the service, by name."""


def random_faults(
    seed: int,
    *,
    probability: float = 0.1,
    settings: EmulatorSettings = EmulatorSettings(),  # noqa: B008 - a frozen value
) -> EmulatorSettings:
    """Settings with random faults, the same for the same seed.

    Each kind of call gets three faults, and one status call starts an outage. Some jobs get one of `JOB_SCRIPTS`, and the
    response format is one of `RESPONSE_FORMATS`. Some calls never get a reply, so give the client a short `timeout`.

    Args:
        seed: chooses everything random, and is the seed of the emulator.
        probability: about the share of calls that a fault hits, and of jobs with a script.
        settings: all other settings; their faults and their script come first.
    """
    rng = Random(f"chaos/{seed}")
    chosen_faults = [
        Fault(operation, _choose_action(rng), probability=probability / 3, times=None)
        for operation in get_args(Operation)
        for _ in range(3)
    ]
    chosen_faults.append(Fault("status", faults.Outage(0.2), nth=rng.randrange(1, 50)))

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
        faults=(*settings.faults, *chosen_faults),
        response_format=response_format,
        script=script,
    )


def _choose_action(rng: Random) -> faults.Action:
    """A random action of `ACTIONS` or `WRONG_TYPES`; either table has the same probability."""
    table: Mapping[str, faults.Action] = ACTIONS if rng.random() < 0.5 else WRONG_TYPES  # noqa: PLR2004 - one of two
    return rng.choice(tuple(table.values()))
