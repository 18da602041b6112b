from __future__ import annotations

import pytest

from kling_async.emulator import Fault
from tests.cli.conftest import FAILING

PROMPTS = [f"prompt {number}" for number in range(7)]


def test_nothing_is_sent_written_or_even_connected_to(cli, home):
    done = cli("generate", *PROMPTS, "--duration", "10", "--dry-run")
    assert done.status == 0
    *shown, more = done.out.splitlines()
    assert shown[0] == 'kling-v2-6 {"prompt": "prompt 0", "duration": "10"}'
    assert (len(shown), more) == (5, "and 2 more; --json shows all")
    assert done.err.splitlines() == [
        "7 of 7 would be submitted. Nothing was sent.",
        "What they cost is not known: give --price kling-v2-6=USD.",
    ]
    assert list(home.iterdir()) == []


def test_the_cost_and_the_reach_of_a_cap_are_printed_if_prices_are_known(cli, home):
    (home / "p.csv").write_text("prompt,model\na cat,\na dog,kling-v3\na bird,\n")
    prices = ["--price", "kling-v2-6=0.35", "--price", "kling-v3=1"]
    done = cli("generate", "--from", "p.csv", *prices, "--max-cost", "0.7", "--dry-run", "--emulate")
    assert done.err.splitlines() == [
        "3 of 3 would be submitted. Nothing was sent.",
        "They cost $1.70 (2 at $0.35, 1 at $1.00).",
        "--max-cost 0.7 lets 2 of them through; $0.00 was spent before.",
    ]


def test_entries_of_the_journal_are_not_submitted_again(cli, serve, home):
    emulator = serve(faults=(Fault("submit", FAILING, nth=2),))
    price = ["--price", "0.35"]
    cli("generate", "a cat", "a dog", "--max-concurrency", "1", *price, "--quiet")
    before = sorted(home.rglob("*"))
    tokens = ["generate", "a cat", "a dog", "a bird", *price, "--dry-run"]
    done = cli(*tokens, "--max-cost", "1")
    assert done.out == 'kling-v2-6 {"prompt": "a bird"}\n'
    assert done.err.splitlines() == [
        "videos/run.db: 1 made before, 1 failed before.",
        "1 of 3 would be submitted. Nothing was sent.",
        "They cost $0.35 (1 at $0.35).",
        "--max-cost 1 lets 0 of them through; $0.70 was spent before.",
    ]
    again = cli(*tokens, "--retry-failed", "--json")
    assert [(record["index"], record["next"], record["price_usd"]) for record in again.records] == [
        (0, "report", None),
        (1, "submit", "0.35"),
        (2, "submit", "0.35"),
    ]
    assert again.records[0]["request_id"] == emulator.stats.accepted[0].request_id
    assert len(emulator.stats.accepted) == 2
    assert sorted(home.rglob("*")) == before


def test_a_journal_is_previewed_without_its_prompts(cli, serve):
    emulator = serve(faults=(Fault("submit", FAILING, nth=1),))
    cli("generate", "a cat", "a dog", "--max-concurrency", "1", "--quiet")
    done = cli("resume", "videos", "--dry-run", "--retry-failed", "--json")
    assert [(record["next"], record["payload"]) for record in done.records] == [
        ("submit", {"prompt": "a cat"}),
        ("report", {"prompt": "a dog"}),
    ]
    done = cli("resume", "videos", "--dry-run")
    assert done.out == ""
    assert done.err.splitlines()[1:] == ["0 of 2 would be submitted. Nothing was sent."]
    assert len(emulator.stats.accepted) == 2


def test_a_payload_cannot_steer_the_terminal(cli):
    done = cli("generate", "\u202ea\x9bcat", "--dry-run")
    assert "\ufffda\ufffdcat" in done.out


def test_a_foreign_journal_is_one_sentence(cli, home):
    (home / "notes.txt").write_text("a cat\n" * 1000)
    done = cli("generate", "a cat", "--dry-run", "--journal", "notes.txt")
    assert done.status == 2
    assert "is not a journal of kling_async" in done.error_line


@pytest.mark.parametrize("name", ["cat.png", "sub/cat.png"])
def test_a_picture_is_shown_by_its_name(cli, home, name):
    (home / "sub").mkdir()
    (home / name).write_bytes(b"\x89PNG")
    done = cli("generate", "it moves", "--image", name, "--dry-run")
    assert f'"image": "{name}"' in done.out


def test_what_cannot_be_used_is_left_out_and_counted(cli, home):
    (home / "p.jsonl").write_text('"a cat"\nnonsense\n')
    done = cli("generate", "--from", "p.jsonl", "--skip-invalid", "--dry-run")
    assert done.out == 'kling-v2-6 {"prompt": "a cat"}\n'
    assert done.err.splitlines()[0] == "kling-async generate: 1 of 2 prompts cannot be used and are left out."


def test_videos_of_earlier_commands_without_a_price_count_under_the_cap(cli, serve):
    emulator = serve()
    cli("generate", "a cat", "a dog", "--quiet")
    tokens = ["generate", "a cat", "a dog", "a bird", "a fish", "--price", "0.35", "--max-cost", "1.20"]
    assert cli(*tokens, "--dry-run").err.endswith(
        "--max-cost 1.20 lets 1 of them through; $0.70 was spent before.\n"
    )
    assert cli(*tokens).status == 1
    assert len(emulator.stats.accepted) == 3
    assert cli("status", "videos").err.endswith("; $0.35 spent, and the price of 2 is not known\n")
