from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from kling_async.cli.budget_options import BudgetOptions
from kling_async.cli.run_config import OutputOptions, RunConfig
from kling_async.cli.service import Service


def test_the_folder_of_the_journal_need_not_be_named(home):
    def command(folder: str, journal: str) -> str:
        return RunConfig(folder=Path(folder), service=Service(), journal=Path(journal)).resume_command()

    assert command("videos", "videos/run.db") == "kling-async resume videos/run.db"
    assert command("my videos", "my videos/run.db") == "kling-async resume 'my videos/run.db'"
    assert command(str(home / "videos"), "videos/run.db") == "kling-async resume videos/run.db"
    assert command("videos", "run.db") == "kling-async resume run.db --out videos"


def test_the_resume_command_has_the_options_of_the_first_command():
    config = RunConfig(
        folder=Path("v"),
        service=Service(base_url="http://127.0.0.1:1"),
        journal=Path("v/run.db"),
        budget=BudgetOptions(price=("0.35",), max_cost="2"),
        prices={"kling-v2-6": Decimal("0.35")},
        max_concurrency=50,
        output=OutputOptions(report=Path("my r.html"), ascii_names=True),
    )
    assert config.resume_command("--retry-failed") == (
        "kling-async resume v/run.db --max-concurrency 50 --report 'my r.html' --ascii-names --price kling-v2-6=0.35 --max-cost 2 "
        "--base-url http://127.0.0.1:1 --retry-failed"
    )


def test_the_download_and_list_commands_name_the_same_service():
    config = RunConfig(folder=Path("v"), service=Service(base_url="http://127.0.0.1:1"), models=("a", "b c"))
    assert (
        config.download_command(["r1", "r2"])
        == "kling-async download r1 r2 --out v --base-url http://127.0.0.1:1"
    )
    plain = RunConfig(folder=Path("v"), service=Service(), output=OutputOptions(ascii_names=True))
    assert plain.download_command(["r1"]) == "kling-async download r1 --out v --ascii-names"
    assert config.list_command() == (
        "kling-async list --model a --base-url http://127.0.0.1:1; "
        "kling-async list --model 'b c' --base-url http://127.0.0.1:1"
    )
