"""A local service with the API of GMI Cloud's request queue, to try, test and measure your code at no cost.

    async with Emulator(EmulatorSettings(time_scale=600)) as emulator:
        client = KlingClient("any-key", base_url=emulator.url)

It queues, runs, fails and finishes jobs on its own clock, serves real MP4 and JPEG files, and injects the faults that
you set. The import is cheap: aiohttp, PyAV and Pillow are imported when an emulator starts.
"""

from __future__ import annotations

from kling_async.emulator.call_counter import Stats
from kling_async.emulator.chaos import ACTIONS, JOB_SCRIPTS, RESPONSE_FORMATS, WRONG_TYPES, random_faults
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
    Faults,
    Flood,
    Outage,
    Raw,
    Redirect,
    Reply,
    SlowReply,
    Stall,
    TruncatedReply,
    WrongLength,
)
from kling_async.emulator.server import Emulator, serve
from kling_async.emulator.service_queue import RATE_LIMITED, Job, Status
from kling_async.emulator.settings import EmulatorSettings, JobScript, LogNormal, ResponseFormat

__all__ = [
    "ACTIONS",
    "BACKEND_ERROR",
    "BAD_GATEWAY",
    "JOB_SCRIPTS",
    "NOT_FOUND",
    "RATE_LIMITED",
    "RESPONSE_FORMATS",
    "STORAGE_BUSY",
    "WRONG_TYPES",
    "Action",
    "Drop",
    "DuplicateReply",
    "Edit",
    "Emulator",
    "EmulatorSettings",
    "Fault",
    "Faults",
    "Flood",
    "Job",
    "JobScript",
    "LogNormal",
    "Outage",
    "Raw",
    "Redirect",
    "Reply",
    "ResponseFormat",
    "SlowReply",
    "Stall",
    "Stats",
    "Status",
    "TruncatedReply",
    "WrongLength",
    "random_faults",
    "serve",
]
