"""`kling-async emulator`: the service on this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio

from kling_async.cli.output import print_json, print_text, stdout
from kling_async.errors import ConfigurationError


async def emulator(
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    time_scale: float = 60.0,
    seed: int = 0,
    workers: int = 20,
    failure_rate: float = 0.0,
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
        json: Print the address as one JSON object.
    """
    from kling_async.emulator import Emulator, EmulatorSettings, serve

    def print_address(running: Emulator) -> None:
        if json:
            print_json({"url": running.url})
            return
        console = stdout()
        print_text(f"The emulator listens at {running.url} (Ctrl-C ends it)", console)
        print_text(f'  in Python   KlingClient("any-key", base_url="{running.url}")', console)
        print_text(
            f'  in a shell  GMI_API_KEY=any-key kling-async generate "…" --base-url {running.url}', console
        )

    try:
        settings = EmulatorSettings(
            host=host, port=port, time_scale=time_scale, seed=seed, workers=workers, failure_rate=failure_rate
        )
    except ValueError as error:
        raise ConfigurationError(f"{error.args[0]}; see `kling-async emulator --help`.") from error
    try:
        await serve(settings, on_start=print_address)
    except asyncio.CancelledError:
        pass  # Ctrl-C is how it ends
    except OSError as error:
        reason = error.strerror or error
        raise ConfigurationError(
            f"{host}:{port} cannot be used ({reason}); choose another --host or --port."
        ) from error
    return 0
