from __future__ import annotations

import json
import signal
import socket

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
    assert process.stderr.read() == ""


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
    assert "'time_scale' must be > 0.0: nan" in capfd.readouterr().err
