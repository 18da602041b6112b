"""Waiting for jobs: status calls and list scans."""

from __future__ import annotations
