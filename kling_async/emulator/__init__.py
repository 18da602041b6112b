"""A local service that speaks the API of GMI Cloud's request queue, for trying, testing and measuring at no cost.

    async with Emulator(EmulatorSettings(time_scale=600)) as emulator:
        client = KlingClient("any-key", base_url=emulator.url)

It queues, renders, fails and finishes jobs on its own clock, serves real MP4 and JPEG files, and injects faults on
request. Importing it is cheap; aiohttp, PyAV and Pillow are imported when one is started.
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
