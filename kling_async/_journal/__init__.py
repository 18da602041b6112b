"""The write-ahead journal of a batch: intents, jobs, ends and files; it survives `kill -9`."""

from __future__ import annotations
