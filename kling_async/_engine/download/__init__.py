"""Finished videos, saved whole."""

from __future__ import annotations
