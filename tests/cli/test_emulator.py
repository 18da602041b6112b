from __future__ import annotations

import json
import signal
import socket
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from kling_async.cli.app import run


def test_the_emulator_prints_its_address_and_runs_until_ctrl_c(start_process, monkeypatch, cli):
    process = start_process("emulator", "--port", "0")
    first = process.stdout.readline()
    assert first.startswith("The emulator listens at http://127.0.0.1:")
    url = first.split()[4]
    assert f'KlingClient("any-key", base_url="{url}")' in process.stdout.readline()
    assert process.stdout.readline().rstrip().endswith(f"--base-url {url}")
    monkeypatch.setenv("GMI_API_KEY", "any-key")
    assert "kling-v2-6" in cli("models", "--base-url", url).out
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    assert process.stderr.read() == "accepted: 0 jobs\n"


def test_its_address_is_one_json_object(start_process):
    process = start_process("emulator", "--port", "0", "--json")
    assert set(json.loads(process.stdout.readline())) == {"url"}
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


def test_a_port_that_is_taken_is_one_sentence(cli):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = cli("emulator", "--port", port)
    assert done.status == 2
    assert f"127.0.0.1:{port} cannot be used (" in done.error_line
    assert done.error_line.endswith("choose another --host or --port.")


def test_a_wrong_number_is_refused(home, capfd):
    assert run(["emulator", "--time-scale", "nan"]) == 2
    assert "--time-scale must be > 0.0: nan" in capfd.readouterr().err


def test_with_tls_the_output_names_the_certificate_to_trust(start_process, monkeypatch, cli):
    process = start_process("emulator", "--port", "0", "--tls")
    url, lines = process.stdout.readline().split()[4], [process.stdout.readline() for _ in range(3)]
    variable, _, path = lines[-1].split()[-1].partition("=")
    monkeypatch.setenv("GMI_API_KEY", "any-key")
    refused = cli("models", "--base-url", url)
    monkeypatch.setenv(variable, path)
    done = cli("models", "--base-url", url)
    process.send_signal(signal.SIGINT)

    assert url.startswith("https://")
    assert variable == "SSL_CERT_FILE"
    assert "SSL_CERT_FILE" in refused.error_line
    assert "kling-v2-6" in done.out
    assert process.wait(20) == 0
    assert not Path(path).exists()


def test_as_json_the_output_names_the_certificate_too(start_process):
    process = start_process("emulator", "--port", "0", "--tls", "--json")
    address = json.loads(process.stdout.readline())
    certificate = Path(address["certificate"]).read_text()
    process.send_signal(signal.SIGTERM)

    assert set(address) == {"url", "certificate"}
    assert certificate.startswith("-----BEGIN CERTIFICATE-----")
    assert process.wait(20) == 0
    assert not Path(address["certificate"]).exists()


def test_without_its_library_tls_is_one_sentence(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "trustme", None)
    done = cli("emulator", "--port", "0", "--tls")

    assert done.status == 2
    assert "The emulator needs trustme: python -m pip install '.[emulator]' in a checkout" in done.error_line


def test_verbose_prints_each_call_without_its_key(start_process, monkeypatch, cli):
    process = start_process("emulator", "--port", "0", "--verbose")
    url = process.stdout.readline().split()[4]
    monkeypatch.setenv("GMI_API_KEY", "key-of-the-test")
    cli("models", "--base-url", url)
    cli("status", "key-of-the-test", "--base-url", url)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    first, second = process.stderr.read().splitlines()[:2]

    assert "/models 200 " in first
    assert "/requests/*** 404 " in second
    assert second.endswith('{"error": "Request not found"}')


def test_an_option_chooses_the_keys_of_outcomes_and_the_names(start_process):
    process = start_process(
        "emulator", "--port", "0", "--outcome", "video_url", "--allowed-host", "a.test", "--allowed-host", "b.test",
        "--time-scale", "1e9",
    )  # fmt: skip
    url = process.stdout.readline().split()[4] + "/api/v1/ie/requestqueue/apikey/requests"
    statuses = []
    for host in ("a.test", "b.test", "c.test"):
        call = Request(url, headers={"Authorization": "Bearer any-key", "Host": host})  # noqa: S310
        try:
            with urlopen(call, timeout=10) as response:  # noqa: S310
                statuses.append(response.status)
        except HTTPError as error:
            statuses.append(error.code)
    body = json.dumps({"model": "kling-v2-6", "payload": {"prompt": "rain"}}).encode()
    headers = {"Authorization": "Bearer any-key"}
    with urlopen(Request(url, body, headers), timeout=10) as response:  # noqa: S310
        request_id = json.load(response)["request_id"]
    with urlopen(Request(f"{url}/{request_id}", headers=headers), timeout=10) as response:  # noqa: S310
        outcome = json.load(response)["outcome"]

    assert statuses == [200, 200, 421]
    assert set(outcome) == {"video_url", "thumbnail_image_url"}
