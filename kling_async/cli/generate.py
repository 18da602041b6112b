"""`kling-async generate`: prompts in, videos out."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import attrs
from cyclopts import Group, Parameter, validators

from kling_async.cli.batch_command import BatchCommand
from kling_async.cli.budget_options import BudgetOptions
from kling_async.cli.exit_status import UNUSABLE
from kling_async.cli.journals import NAME, describe_resume, refuse_unusable_journal
from kling_async.cli.output import one_line, print_error, print_text, stderr
from kling_async.cli.preview import Preview
from kling_async.cli.prompt_list import PromptList, explain_problems, read_prompts
from kling_async.cli.run_config import (
    DEFAULT_CONCURRENCY,
    DEFAULT_FOLDER,
    JournalPlace,
    OutputOptions,
    RunConfig,
    read_journal_place,
    read_path,
    read_place,
)
from kling_async.cli.service import Service, open_client, open_emulated_client
from kling_async.errors import ConfigurationError
from kling_async.journal import EntryState, Journal, RegisteredBatch
from kling_async.requests import model_of
from kling_async.results import Result
from kling_async.types import ObjectUrl

_SoundWord: TypeAlias = Literal["on", "off", "yes", "no", "true", "false"]
_SOUND = "--sound"


@Parameter(name="*", group=Group("Video", sort_key=1))
@attrs.frozen(kw_only=True)
class Video:
    """The fields that prompts leave open; an option that is not given means the service's default."""

    model: str | None = None
    """The model's id, case-sensitive [default: kling-v2-6]."""
    duration: Annotated[str | None, Parameter(metavar="SECONDS")] = None
    """Seconds of video, such as 5 or 10."""
    sound: _SoundWord | None = None
    """Whether it has sound; --sound alone means on."""
    no_sound: bool = False
    """The same as --sound off."""
    mode: str | None = None
    """The quality mode, such as pro."""
    cfg_scale: Annotated[str | None, Parameter(metavar="NUMBER")] = None
    """How closely it follows the prompt, from 0 (freely) to 1."""
    image: str | None = None
    """The first picture: a URL, or a file, which is uploaded."""
    image_tail: str | None = None
    """The last picture, for models that take one: a URL, or a file, which is uploaded."""
    negative_prompt: str | None = None
    """What the video must not show, for models that have this parameter."""
    aspect_ratio: str | None = None
    """Such as 16:9, for models that take it."""
    resolution: str | None = None
    """Such as 1080p, for models that take it."""

    def options(self) -> Mapping[str, Any]:
        """The fields that were given.

        Raises:
            ConfigurationError: `--sound` and `--no-sound` were given together.
        """
        fields = attrs.asdict(self, filter=lambda _, value: value is not None)
        if fields.pop("no_sound"):
            if self.sound is not None:
                raise ConfigurationError(
                    f"--sound {self.sound} and --no-sound are one too many: leave one out."
                )
            fields["sound"] = "off"
        return fields


def spell_out_sound(tokens: Sequence[str]) -> list[str]:
    """The tokens with a value after each `--sound`: `--sound "A moon"` turns the sound on for the prompt.

    A single word after `--sound` is always its value: it is more often a misspelt one than a prompt. The parser of the
    options would take a value always or never.
    """
    end = tokens.index("--") if "--" in tokens else len(tokens)
    rest, spelled = deque(tokens[:end]), list[str]()
    while rest:
        token = rest.popleft()
        spelled.append(token.lower() if token.startswith("--sound=") else token)
        if token == _SOUND:
            has_value = bool(rest) and not rest[0].startswith("-") and not any(map(str.isspace, rest[0]))
            spelled.append(rest.popleft().lower() if has_value else "on")
    return [*spelled, *tokens[end:]]


async def generate(
    *prompts: str,
    source: Annotated[
        Path | None, Parameter(name="--from", metavar="FILE", allow_leading_hyphen=True, converter=read_path)
    ] = None,
    labels: bool = False,
    encoding: Annotated[str | None, Parameter(metavar="NAME")] = None,
    out: Annotated[Path | ObjectUrl, Parameter(metavar="DIR", converter=read_place)] = DEFAULT_FOLDER,
    journal: Annotated[
        JournalPlace | None, Parameter(metavar="FILE", converter=read_journal_place, accepts_keys=False)
    ] = None,
    no_journal: bool = False,
    output: OutputOptions = OutputOptions(),  # noqa: B008 - a frozen value
    max_concurrency: Annotated[
        int, Parameter(metavar="N", validator=validators.Number(gte=1))
    ] = DEFAULT_CONCURRENCY,
    skip_invalid: bool = False,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"])] = False,
    dry_run: bool = False,
    emulate: bool = False,
    json: bool = False,
    quiet: bool = False,
    video: Video = Video(),
    budget: BudgetOptions = BudgetOptions(),  # noqa: B008 - a frozen value
    service: Service = Service(),  # noqa: B008 - a frozen value
) -> int:
    """Make videos from prompts and save each as soon as it is finished.

    Every prompt is checked before the first is sent: if one cannot be used, none is sent, unless --skip-invalid.

    A journal beside the videos keeps what is sent and how it ended. The same command again continues where it
    stopped and pays for nothing twice; kling-async resume does so without the prompts.

    Ctrl-C stops submitting. Running jobs continue at the service; the command that resumes them is printed.

    Args:
        prompts: What the videos show; one in quotes for each video.
        source: A file of prompts: .txt (one a line), .csv (a header with a column prompt, others named like the
            options) or .jsonl (an object or a string a line); - reads lines from stdin.
        labels: Keep further columns or keys of the file as labels of each video, for --json.
        encoding: The encoding of the file, such as cp1252, if it is neither UTF-8 nor UTF-16.
        out: The folder for the videos, made if it is missing; or the URL of an object store, such as s3://bucket/videos.
        journal: Another journal than run.db beside the videos, or in the working folder if they go to an object store;
            a postgresql:// URL is a journal that several machines share.
        no_journal: Keep no journal: the same command again pays again.
        output: See `OutputOptions`.
        max_concurrency: How many jobs may be in flight at the service.
        skip_invalid: Leave out prompts that cannot be used; they count as not made.
        yes: Make prompts that look like a mistake, such as the name of a file, or one word beside other prompts.
        dry_run: Show what would be sent and what it would cost; send nothing and write nothing.
        emulate: Use an emulator on this machine instead of the service: no key, no cost, stand-in pictures, and no
            journal unless you name one.
        json: Print one line of JSON for each result as soon as it ends, and nothing else on stdout.
        quiet: Print errors only.
        video: See `Video`.
        budget: See `BudgetOptions`.
        service: See `Service`.
    """
    if emulate and service.base_url is not None:
        raise ConfigurationError("--emulate brings its own service: leave out --base-url, or --emulate.")
    if no_journal and journal is not None:
        raise ConfigurationError("--journal and --no-journal are one too many: leave one out.")
    if source is None and (labels or encoding is not None):
        raise ConfigurationError(f"{'--labels' if labels else '--encoding'} needs a file: add --from FILE.")
    prompt_list = read_prompts(
        prompts,
        None if source is None else str(source),
        video.options(),
        is_meant=yes,
        keep_labels=labels,
        encoding=encoding,
    )
    if not quiet:
        for note in prompt_list.notes:
            print_text(one_line(note), stderr())
    if prompt_list.problems and not skip_invalid:
        print_error(*explain_problems(prompt_list))
        return UNUSABLE
    models = tuple(dict.fromkeys(model_of(request) for request in prompt_list.valid))
    is_kept = not (emulate or no_journal)
    config = RunConfig(
        folder=out,
        service=service,
        journal=_journal_for(out) if journal is None and is_kept else journal,
        budget=budget,
        prices=budget.prices(models),
        models=models,
        max_concurrency=max_concurrency,
        output=output,
        is_emulated=emulate,
    )
    if dry_run:
        if prompt_list.problems:
            print_error(
                f"{len(prompt_list.problems):,} of {len(prompt_list):,} prompts cannot be used and are left out."
            )
        return (await Preview.of_requests(prompt_list.items(), config.journal)).show(config, is_json=json)
    command = BatchCommand(
        config=config,
        total=len(prompt_list),
        is_json=json,
        is_quiet=quiet,
        problem_at=prompt_list.problem_at,
    )
    return await command.run(_batch(prompt_list, command, skip_invalid=skip_invalid))


def _journal_for(out: Path | ObjectUrl) -> Path:
    """The journal beside the videos; in the working folder, if the videos are not on this machine."""
    return out / NAME if isinstance(out, Path) else Path(NAME)


@asynccontextmanager
async def _batch(
    prompt_list: PromptList, command: BatchCommand, *, skip_invalid: bool
) -> AsyncIterator[AsyncIterator[Result]]:
    """The results of all prompts, which the journal has as a whole before the first is sent."""
    config = command.config
    opened = (
        open_emulated_client(on_event=command)
        if config.is_emulated
        else open_client(config.service, on_event=command)
    )
    async with opened as client:
        await client.check_output(config.output_folder)
        if config.journal is not None:
            with refuse_unusable_journal():
                registered = await Journal(config.journal).register(
                    prompt_list.items(), skip_invalid=skip_invalid, allow_suspicious=True
                )
            _print_registered(registered, command)
        async with command.open_batch(client, prompt_list.items(), skip_invalid=skip_invalid) as stream:
            yield stream


def _print_registered(registered: RegisteredBatch, command: BatchCommand) -> None:
    """Say what the journal had of the batch before this command."""
    command.print_note(describe_resume(registered.entries, command.config))
    if registered.dropped:
        command.print_note(f"Dropped: {registered.dropped:,} of earlier commands, which were never sent.")
    if {entry.state for entry in registered.entries} == {EntryState.SUCCEEDED}:
        command.print_note("To make them again: --no-journal, or another --journal.")
