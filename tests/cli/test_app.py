from __future__ import annotations

import asyncio
import os
import signal
import subprocess

import pytest

from kling_async import errors
from kling_async.cli.app import describe_failure, run, run_until_terminated
from kling_async.config import __version__
from kling_async.emulator import Fault, Stall
from tests.cli.conftest import wait_until


def test_help_names_every_command_the_key_and_the_exit_statuses(cli):
    done = cli("--help")
    assert done.status == 0
    for word in (
        "demo",
        "generate",
        "resume",
        "download",
        "status",
        "list",
        "models",
        "emulator",
        "GMI_API_KEY",
        "130",
    ):
        assert word in done.out
    assert done.err == ""


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    "command",
    ["demo", "generate", "resume", "download", "status", "list", "models", "emulator", "completion"],
)
def test_every_command_has_help_and_no_option_for_the_key(cli, command):
    done = cli(command, "--help")
    assert done.status == 0
    assert "--help" in cli(command, "--api-key=secret").error_line
    assert "--api-key" not in done.out


def test_without_arguments_the_help_is_shown(cli):
    assert "generate" in cli().out


def test_the_version_is_that_of_the_package(cli):
    assert cli("--version").out.strip() == __version__


@pytest.mark.parametrize(
    "tokens, sentence",
    [
        (["genrate"], 'Unknown command "genrate". Did you mean "generate"?'),
        (["generate", "a cat", "--durations", "5"], "Unknown option: --durations. Did you mean --duration?"),
        (["generate", "a cat", "--max-concurrency", "five"], 'unable to convert "five" into int'),
        (["generate", "a cat", "--max-concurrency", "0"], '"0" for --max-concurrency'),
        (["list", "--limit", "0"], '"0" for --limit'),
        (["status"], 'Command "status" parameter ID|JOURNAL requires an argument.'),
        (["download"], 'Command "download" parameter ID requires an argument.'),
        (["emulator", "--failure-rate", "2"], "--failure-rate must be <= 1.0: 2.0; see"),
        (["emulator", "--port", "70000"], "--port must be <= 65535: 70000"),
        (["generate"], "Nothing to make: give a prompt in quotes, or --from FILE"),
        (["generate", "a cat", "--emulate", "--base-url", "http://x"], "--emulate brings its own service"),
    ],
)
def test_wrong_usage_is_one_sentence_with_the_right_word(cli, tokens, sentence):
    done = cli(*tokens)
    assert done.status == 2
    assert done.out == ""
    assert sentence in done.error_line


@pytest.mark.parametrize(
    "command", [["models"], ["list"], ["status", "r1"], ["download", "r1"], ["generate", "a cat"]]
)
def test_without_a_key_nothing_starts_and_the_variable_is_named(cli, command, home):
    done = cli(*command)
    assert done.status == 2
    assert "set the environment variable GMI_API_KEY" in done.error_line
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    "url, sentence",
    [
        ("not a url", "'not a url' is not the URL of a service"),
        ("https://api.gmi-serving.com/v1", "is the chat endpoint, which makes no videos"),
    ],
)
def test_a_wrong_address_is_refused_before_anything_starts(cli, monkeypatch, url, sentence):
    monkeypatch.setenv("GMI_API_KEY", "any-key")
    done = cli("generate", "a cat", "--base-url", url)
    assert done.status == 2
    assert sentence in done.error_line


def test_a_refusal_of_the_service_is_one_sentence_and_another_status(cli, serve):
    serve(refused_keys={"any-key"})
    done = cli("models")
    assert done.status == 1
    assert "the API key was not accepted" in done.error_line


def test_a_wrong_path_at_the_right_host_is_one_sentence(cli, serve):
    emulator = serve()
    done = cli("models", "--base-url", f"{emulator.url}/elsewhere")
    assert done.status == 1
    assert "HTTP 404" in done.error_line


@pytest.mark.parametrize(
    "command", ["models", "models --json", "completion bash", "--help", "generate --help"]
)
def test_a_full_disk_behind_stdout_is_one_sentence(serve, home, capfd, command):
    serve()
    with open("/dev/full", "w") as full, pytest.MonkeyPatch.context() as patch:  # noqa: PTH123
        patch.setattr("sys.stdout", full)
        status = run(command.split())
    assert status == 1
    sentence = "Standard output cannot be written (No space left on device): send it to another place."
    assert capfd.readouterr().err.endswith(f": {sentence}\n")


def test_a_closed_stdout_prints_no_error(serve, start_process):
    serve()
    process = start_process("models")
    process.stdout.close()
    process.stdout = None
    assert process.wait(20) == 1
    assert process.stderr.read() == ""


def test_ctrl_c_before_anything_runs_is_quiet(cli, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(
        "sys.stdin", type("Keyboard", (), {"buffer": type("Buffer", (), {"read": interrupt})()})
    )
    done = cli("generate", "--from", "-")
    assert (done.status, done.out, done.err) == (130, "", "")


@pytest.mark.parametrize("command", ["demo", "emulator", "completion", "list", "generate"])
def test_the_help_of_a_command_speaks_of_the_key_only_if_the_command_needs_one(cli, command):
    text = cli(command, "--help").out
    assert ("GMI_API_KEY" in text) is (command in {"list", "generate"})
    assert "Exit status: 0 all done" in text


@pytest.mark.unmeasured
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command_and_option(cli, shell):
    script = cli("completion", shell).out
    for word in ("generate", "resume", "retry-failed", "on-ambiguous", "no-journal"):
        assert word in script


def test_completion_for_bash_completes(cli, home):
    (home / "complete.sh").write_text(
        f"{cli('completion', 'bash').out}\nCOMP_WORDS=(kling-async re) COMP_CWORD=1\n_kling_async\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "complete.sh"], capture_output=True, text=True, timeout=20, check=True)  # noqa: S607
    assert done.stdout == "resume\n"


def test_sigterm_stops_a_command_that_runs_until_ctrl_c(start_process):
    process = start_process("emulator", "--port", "0")
    process.stdout.readline()
    process.terminate()
    assert process.wait(20) == 0


@pytest.mark.unmeasured
def test_a_second_sigterm_waits_for_nothing(serve, start_process):
    emulator = serve(faults=(Fault("submit", Stall(60.0)),))
    process = start_process("generate", "a cat")
    wait_until(lambda: emulator.stats.accepted)
    wait_until(lambda: (process.terminate(), process.poll())[1] is not None)
    assert process.returncode == -signal.SIGTERM


def test_a_sigterm_that_comes_twice_at_once_stops_a_command_as_one_does():
    async def stop_in_order():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(5):  # turns of the loop in which the signal is handled
                await asyncio.sleep(0)
        return 7

    assert asyncio.run(run_until_terminated(stop_in_order())) == 7


def test_commands_run_on_systems_without_sigterm(cli, serve, monkeypatch):
    def fail(*_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr("asyncio.unix_events._UnixSelectorEventLoop.add_signal_handler", fail)
    serve()
    assert cli("models").status == 0


@pytest.mark.parametrize(
    "tokens, form",
    [
        (["worker", "postgresql://me@db/videos"], "Write `kling-async worker --journal URL`."),
        (["resume", "--journal", "run.db"], "Write `kling-async resume JOURNAL`, without --journal."),
        (["status", "--journal", "run.db"], "Write `kling-async status JOURNAL`, without --journal."),
    ],
)
def test_a_journal_in_the_wrong_place_gets_the_right_form(cli, tokens, form):
    done = cli(*tokens)
    assert done.status == 2
    assert form in done.error_line


def test_another_mistake_gets_no_form_of_a_journal(cli):
    assert "Write `" not in cli("worker", "--nonsense").error_line


@pytest.mark.parametrize(
    "error, said",
    [
        (
            errors.APIConnectionError("no connection.", was_sent=False),
            "no connection. Check the network, --base",
        ),
        (
            errors.APITimeoutError("no connection.", was_sent=False),
            "no connection. Check the network, --base",
        ),
        (errors.APIConnectionError("cut."), "cut."),
        (errors.ProxyError("no login."), "no login."),
        (errors.RateLimitError("too many.", advice="Limits()"), "too many."),
        (OSError("disk"), "disk"),
    ],
)
def test_a_command_says_what_to_check_if_the_service_cannot_be_reached(error, said):
    text = describe_failure(error)
    assert text.startswith(said)
    assert ("HTTPS_PROXY" in text) is ("Check" in said)
