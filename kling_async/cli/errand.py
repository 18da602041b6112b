"""What a batch is about, and the commands that go on with it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path

import attrs

from kling_async.cli.service import Service
from kling_async.cli.terms import Terms

FOLDER = Path("videos")
"""Where videos go to, unless the command says otherwise."""
AT_ONCE = 20
"""Jobs alive at the service, unless the command says otherwise."""


@attrs.frozen(kw_only=True)
class Errand:
    """Where a batch's videos come from and go to, and on what terms."""

    folder: Path
    service: Service
    journal: Path | None = None
    terms: Terms = attrs.field(factory=Terms)
    prices: Mapping[str, Decimal] | None = None
    """What the terms come to for the models of this batch."""
    models: tuple[str, ...] = ()
    """Those of the videos."""
    at_once: int = AT_ONCE
    report: Path | None = None
    """The page that is written about it."""
    is_emulated: bool = False

    def pick_up(self, request_ids: Iterable[str]) -> str:
        """The command that waits for jobs and saves their videos here."""
        words = [
            "kling-async",
            "download",
            *request_ids,
            "--out",
            str(self.folder),
            *self.service.arguments(),
        ]
        return shlex.join(words)

    def look(self) -> str:
        """The command that shows what the service has."""
        words = (
            ["kling-async", "list", "--model", model, *self.service.arguments()] for model in self.models
        )
        return "; ".join(map(shlex.join, words))

    def models_there(self) -> str:
        """The command that names the service's models."""
        return shlex.join(["kling-async", "models", *self.service.arguments()])

    def resume(self, *options: str) -> str:
        """The command that goes on with the journal as this one did."""
        assert self.journal is not None
        words = ["kling-async", "resume", str(self.journal)]
        if self.folder.resolve() != self.journal.parent.resolve():
            words += ["--out", str(self.folder)]
        if self.at_once != AT_ONCE:
            words += ["--max-concurrency", str(self.at_once)]
        if self.report is not None:
            words += ["--report", str(self.report)]
        words += [*self.terms.arguments(self.prices), *self.service.arguments(), *options]
        return shlex.join(words)
