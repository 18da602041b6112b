"""A local service that speaks the API of GMI Cloud's request queue, for trying, testing and measuring at no cost.

    async with Emulator(EmulatorSettings(time_scale=600)) as emulator:
        client = KlingClient("any-key", base_url=emulator.url)

It queues, renders, fails and finishes jobs on its own clock, serves real MP4 and JPEG files, and injects faults on
request. Importing it is cheap; aiohttp, PyAV and Pillow are imported when one is started.
"""

from __future__ import annotations

from kling_async.emulator.behaviour import RATE_LIMITED, Job, Status
from kling_async.emulator.faults import (
    BACKEND_ERROR,
    BAD_GATEWAY,
    STORAGE_BUSY,
    VANISHED,
    Action,
    Cut,
    Drip,
    Drop,
    Edit,
    Fault,
    Faults,
    Flood,
    LieAboutLength,
    Outage,
    Raw,
    Redirect,
    Reply,
    Stall,
    Twice,
)
from kling_async.emulator.server import Emulator, serve
from kling_async.emulator.settings import Dialect, EmulatorSettings, Fate, LogNormal
from kling_async.emulator.storm import ACTIONS, DIALECTS, FATES, WRONG_TYPES, storm
from kling_async.emulator.tally import Stats

__all__ = [
    "ACTIONS",
    "BACKEND_ERROR",
    "BAD_GATEWAY",
    "DIALECTS",
    "FATES",
    "RATE_LIMITED",
    "STORAGE_BUSY",
    "VANISHED",
    "WRONG_TYPES",
    "Action",
    "Cut",
    "Dialect",
    "Drip",
    "Drop",
    "Edit",
    "Emulator",
    "EmulatorSettings",
    "Fate",
    "Fault",
    "Faults",
    "Flood",
    "Job",
    "LieAboutLength",
    "LogNormal",
    "Outage",
    "Raw",
    "Redirect",
    "Reply",
    "Stall",
    "Stats",
    "Status",
    "Twice",
    "serve",
    "storm",
]
