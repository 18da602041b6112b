"""The configuration of one run, and the commands that continue it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, TypeAlias

import attrs
from cyclopts import Parameter, Token, validators

from kling_async.cli.budget_options import BudgetOptions
from kling_async.cli.service import Service
from kling_async.journal import Journal
from kling_async.lines import one_line, quote_unprintable
from kling_async.paths import ObjectUrl, is_database_url, local_path, output_path

DEFAULT_FOLDER = Path("videos")
"""Where videos go to, unless the command says otherwise."""
DEFAULT_CONCURRENCY = 20
"""Jobs in flight at the service, unless the command says otherwise."""


def read_path(_: object, tokens: Sequence[Token]) -> Path:
    """The path of an option; a converter of cyclopts.

    Raises:
        ConfigurationError: It is a URL, or no path.
    """
    (token,) = tokens
    return Path(local_path(token.value, name=token.keyword or "JOURNAL"))


JournalPlace: TypeAlias = Path | Journal
"""Where a journal is: the path of a file, or a journal in a database."""


def read_journal_place(_: object, tokens: Sequence[Token]) -> JournalPlace:
    """The journal that an option names; a converter of cyclopts.

    Raises:
        ConfigurationError: It is neither a path nor the URL of a PostgreSQL database.
    """
    (token,) = tokens
    return Journal(token.value) if is_database_url(token.value) else read_path(_, tokens)


def read_place(_: object, tokens: Sequence[Token]) -> Path | ObjectUrl:
    """The place for videos that an option names; a converter of cyclopts.

    Raises:
        ConfigurationError: It is neither a path nor the URL of an object store.
    """
    (token,) = tokens
    place = output_path(token.value, name=token.keyword or "--out")
    return place if isinstance(place, ObjectUrl) else Path(place)


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class OutputOptions:
    """What a batch writes besides its journal, and under which names."""

    ascii_names: bool = False
    """Name the files with ASCII letters and digits only."""
    direct_upload: bool = False
    """Send each video to the object store while it comes, without a file on this machine."""
    report: Annotated[Path | None, Parameter(metavar="FILE", converter=read_path)] = None
    """Write an HTML report of the batch to this file: videos, figures, and a time line of every job."""
    sign_report: Annotated[
        float | None, Parameter(metavar="SECONDS", validator=validators.Number(gte=1, lte=7 * 24 * 3600))
    ] = None
    """Let the report play videos from an object store for so many seconds. It then holds signed URLs: who has the report can read the videos."""

    def name_arguments(self) -> list[str]:
        """The options that give files of another command the same names."""
        return ["--ascii-names"] if self.ascii_names else []

    def arguments(self) -> list[str]:
        """The options that let another command write the same."""
        words = [] if self.report is None else ["--report", str(self.report)]
        if self.sign_report is not None:
            words += ["--sign-report", f"{self.sign_report:g}"]
        return [*words, *self.name_arguments(), *(["--direct-upload"] if self.direct_upload else [])]


@attrs.frozen(kw_only=True)
class RunConfig:
    """Where the videos of a run come from and go to, and what they may cost."""

    folder: Path | ObjectUrl
    is_folder_named: bool = True
    """Whether the command names the folder; else it is the place of the videos that the journal has."""
    service: Service
    journal: JournalPlace | None = None
    budget: BudgetOptions = attrs.field(factory=BudgetOptions)
    prices: Mapping[str, Decimal] | None = None
    """The price of one video of each model."""
    models: tuple[str, ...] = ()
    """The models of the batch."""
    max_concurrency: int = DEFAULT_CONCURRENCY
    output: OutputOptions = attrs.field(factory=OutputOptions)
    is_emulated: bool = False

    @property
    def output_folder(self) -> str:
        """The place for the videos. A folder ends in a slash, so that a name with a suffix is no file."""
        return self.folder if isinstance(self.folder, ObjectUrl) else f"{self.folder}/"

    def download_command(self, request_ids: Iterable[str]) -> str:
        """The command that waits for jobs and saves their videos here."""
        ids = list(request_ids)
        options = ["--out", str(self.folder), *self.output.name_arguments(), *self.service.arguments()]
        if any(request_id.startswith("-") for request_id in ids):
            return _join(["kling-async", "download", *options, "--", *ids])
        return _join(["kling-async", "download", *ids, *options])

    def list_command(self) -> str:
        """The command that shows what the service has."""
        words = (
            ["kling-async", "list", "--model", model, *self.service.arguments()] for model in self.models
        )
        return "; ".join(map(_join, words))

    def models_command(self) -> str:
        """The command that names the service's models."""
        return _join(["kling-async", "models", *self.service.arguments()])

    def status_command(self) -> str:
        """The command that shows the entries of the journal."""
        return _join(["kling-async", "status", str(self.journal)])

    def resume_command(self, *options: str) -> str:
        """The command that resumes the journal with the same configuration."""
        assert self.journal is not None
        words = ["kling-async", "resume", str(self.journal)]
        beside = DEFAULT_FOLDER if isinstance(self.journal, Journal) else self.journal.parent
        is_beside = isinstance(self.folder, Path) and self.folder.resolve() == beside.resolve()
        if self.is_folder_named and not is_beside:
            words += ["--out", str(self.folder)]
        if self.max_concurrency != DEFAULT_CONCURRENCY:
            words += ["--max-concurrency", str(self.max_concurrency)]
        words += [*self.output.arguments(), *self.budget.arguments(self.prices), *self.service.arguments()]
        return _join([*words, *options])


def _join(words: Iterable[str]) -> str:
    """The words as a shell reads them, on one line, whatever the service put into an id."""
    return " ".join(
        shlex.quote(word) if word == one_line(word) else quote_unprintable(word) for word in words
    )
