from __future__ import annotations

from kling_async.cli.service import Service, TroublePrinter
from kling_async.errors import APIConnectionError
from kling_async.events import Finished, Retrying
from kling_async.results import ResultState


def test_only_trouble_is_printed_and_on_stderr(capfd):
    listen = TroublePrinter()
    listen(Finished(at=0.0, request_id="r", state=ResultState.SUCCEEDED))
    listen(Retrying(at=0.0, call="list", attempt=1, delay=2.0, error=APIConnectionError("no\nconnection.")))
    assert capfd.readouterr() == ("", "no connection; trying again in 2.0 s\n")


def test_another_command_gets_the_same_service():
    assert Service().arguments() == []
    assert Service(base_url="http://127.0.0.1:1").arguments() == ["--base-url", "http://127.0.0.1:1"]
