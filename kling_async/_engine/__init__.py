"""Policies put to work; async, and ignorant of HTTP libraries."""

from __future__ import annotations
