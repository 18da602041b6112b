from __future__ import annotations

import io
import sys

import pytest

from kling_async.__main__ import main
from kling_async.config import __version__


@pytest.mark.parametrize("missing", ["cyclopts", "rich"])
def test_a_missing_extra_is_one_sentence_with_the_command_that_installs_it(monkeypatch, capfd, missing):
    for name in [name for name in sys.modules if name.startswith("kling_async.cli")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    assert main() == 2
    err = capfd.readouterr().err
    assert (
        err
        == f'kling-async: the command line needs {missing}: python -m pip install ".[cli]" in a checkout\n'
    )


def test_any_other_missing_module_is_not_taken_for_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "kling_async.cli.app", raising=False)
    monkeypatch.setitem(sys.modules, "kling_async.cli.app", None)
    with pytest.raises(ModuleNotFoundError):
        main()


def test_ctrl_c_while_it_starts_is_quiet(monkeypatch, capfd):
    class Interrupted:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "kling_async.cli.app":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "kling_async.cli.app", raising=False)
    monkeypatch.setattr("sys.meta_path", [Interrupted(), *sys.meta_path])
    assert main() == 130
    assert capfd.readouterr().err == ""


def test_it_runs_where_stdout_is_no_stream_of_bytes(monkeypatch):
    told = io.StringIO()
    monkeypatch.setattr("sys.stdout", told)
    monkeypatch.setattr("sys.argv", ["kling-async", "--version"])
    assert main() == 0
    assert told.getvalue().strip() == __version__


def test_python_m_runs_the_command_line_and_exits_with_its_status(start_process):
    process = start_process("--version")
    assert process.wait(20) == 0
    assert process.stdout.read().strip()
    assert start_process("nonsense").wait(20) == 2


def test_a_prompt_that_the_terminals_encoding_lacks_is_no_error(start_process, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    process = start_process("generate", "一只猫", "--duration", "7", "--image", "猫.png")
    assert process.wait(20) == 2
    assert process.stderr.read().startswith("kling-async generate: the command line, prompt 1: ")
