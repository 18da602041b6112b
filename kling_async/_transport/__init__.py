"""The one door to the network."""

from __future__ import annotations
