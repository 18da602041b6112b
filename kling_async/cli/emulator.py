"""`kling-async emulator`: the service on this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from kling_async.cli.output import print_json, print_text, stderr, stdout
from kling_async.errors import ConfigurationError
from kling_async.lines import count_text, reason_of

if TYPE_CHECKING:
    from kling_async.emulator import Emulator, EmulatorSettings


async def emulator(
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    time_scale: float = 60.0,
    seed: int = 0,
    workers: int = 20,
    failure_rate: float = 0.0,
    outcome: Literal["media_urls", "media_strings", "video_url", "both"] | None = None,
    tls: Annotated[bool, Parameter(negative="")] = False,
    allowed_host: Annotated[tuple[str, ...], Parameter(metavar="NAME", negative="")] = (),
    verbose: Annotated[bool, Parameter(negative="")] = False,
    json: bool = False,
) -> int:
    """Run the service's API on this machine, without key and cost, with stand-in pictures. Ctrl-C ends it.

    Args:
        host: The address to listen at.
        port: The port to listen at; 0 for any free one.
        time_scale: Service seconds that pass in one real second; a video takes about four service minutes.
        seed: Makes a run repeatable.
        workers: How many jobs run at the same time; the others wait.
        failure_rate: Share of jobs that fail, from 0 to 1.
        outcome: Where a finished job has its video [default: as known of its model; both for kling-v2-6].
        tls: Use https, with a new certificate whose file the output names.
        allowed_host: A further name by which clients call the emulator; may be repeated.
        verbose: Print each call to stderr, without its key.
        json: Print the address as one JSON object.
    """
    from kling_async.emulator import EmulatorSettings, ResponseFormat

    try:
        settings = EmulatorSettings(
            host=host,
            port=port,
            time_scale=time_scale,
            seed=seed,
            workers=workers,
            failure_rate=failure_rate,
            response_format=ResponseFormat(outcome=outcome),
            tls=tls,
            allowed_hosts=allowed_host,
        )
    except ValueError as error:
        raise ConfigurationError(
            f"{_name_option(error.args[0])}; see `kling-async emulator --help`."
        ) from error
    with _print_calls(is_wanted=verbose):
        await _serve(settings, as_json=json)
    return 0


async def _serve(settings: EmulatorSettings, *, as_json: bool) -> None:
    from kling_async.emulator import serve

    started: list[Emulator] = []
    with TemporaryDirectory(prefix="kling-emulator-") if settings.tls else nullcontext("") as folder:

        def print_address(running: Emulator) -> None:
            started.append(running)
            certificate = None
            if settings.tls:
                certificate = Path(folder, "certificate.pem")
                certificate.write_text(running.certificate, encoding="ascii")
            _print_address(running.url, certificate, as_json=as_json)

        try:
            await serve(settings, on_start=print_address)
        except asyncio.CancelledError:
            # Ctrl-C is how it ends.
            for running in started:
                print_text(f"accepted: {count_text(len(running.stats.accepted), 'job')}", stderr())
        except OSError as error:
            reason = reason_of(error)
            raise ConfigurationError(
                f"{settings.host}:{settings.port} cannot be used ({reason}); choose another --host or --port."
            ) from error


def _name_option(fault: str) -> str:
    """What is wrong with a setting, by the name of its option: `--time-scale` for `'time_scale'`."""
    return re.sub(r"^'(\w+)'", lambda name: f"--{name[1].replace('_', '-')}", fault)


def _print_address(url: str, certificate: Path | None, *, as_json: bool) -> None:
    if as_json:
        print_json({"url": url} | ({"certificate": str(certificate)} if certificate else {}))
        return
    console = stdout()
    print_text(f"The emulator listens at {url} (Ctrl-C ends it)", console)
    print_text(f'  in Python   KlingClient("any-key", base_url="{url}")', console)
    print_text(f'  in a shell  GMI_API_KEY=any-key kling-async generate "…" --base-url {url}', console)
    if certificate:
        print_text(f"  for both    SSL_CERT_FILE={certificate}", console)


@contextmanager
def _print_calls(*, is_wanted: bool) -> Iterator[None]:
    """Print the log of the emulator's calls to stderr until the block ends."""
    log, handler = logging.getLogger("kling_async.emulator"), logging.StreamHandler()
    if is_wanted:
        log.addHandler(handler)
        log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)
