"""docs/tutorial_c4.md, run: its own commands, at a small size, from WET files to a trained model."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from wet_pages import pages, write_shards

from t5study.__main__ import main

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorial_c4.md"
SMALL = {
    "--profile paper": "--profile paper --engine pool",
    "--workers 2": "--workers 1",  # processes have their own tests
    "--pieces 32000": "--pieces 90",
    "--max-tokens 2^29": "--max-tokens 3000",
    "--trained 2^35": "--trained 6000",
    "--size base --steps 524288 --source-length 512 --rows 128": "--size pico --steps 2 --source-length 32 --rows 2",
}


def test_the_tutorials_commands_lead_to_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path / "wet", pages(160), 2)
    commands = [
        line for block in re.findall(r"```\n(.*?)```", PAGE.read_text(), re.DOTALL) for line in block.splitlines()
    ]
    used = set()
    for command in commands:
        for large, small in SMALL.items():
            if large in command:
                used.add(large)
                command = command.replace(large, small)
        assert main(shlex.split(command)[1:]) == 0, (command, capsys.readouterr())
    assert used == set(SMALL)
    out = capsys.readouterr().out
    assert "core-hours" in out
    assert "pages that rules took" in out
    assert "curly bracket" in out
    assert "documents by language" in out
    assert "left out, too few sentences" in out
    assert "6,000 tokens of pre-training go through it 2 times" in out
    assert (tmp_path / "rules.svg").read_text().count("<svg") == 1
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def told(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    return err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--recipe c4 --out x", "--input: missing"),
        ("--recipe c4 --input *.wet --out x", "matches no file"),
        ("--recipe c4 --input a.txt --text a.txt --out x", "--text: found it with --recipe"),
        ("--input a.txt --out x", "--input: belongs to a recipe"),
        ("--profile paper --out x", "--profile: belongs to a recipe"),
        ("--recipe c4 --profile 9 --input a.txt --out x", "profile: found '9'; give one of paper"),
        ("--recipe c4 --skip dedup --input a.txt --out x", "rules are left out of the recipe own alone"),
        ("--recipe realnews --input a.txt --out x", "needs --sites"),
        ("--recipe webtext --input a.txt --out x", "needs --urls"),
        ("--recipe c4 --sites a.txt --input a.txt --out x", "takes no --sites"),
        ("--recipe c4 --engine spark --input a.txt --out x", "--engine: found 'spark'"),
        ("--recipe c4 --memory 0 --input a.txt --out x", "--memory"),
        ("--recipe c4 --input a.zip --out x", "of another kind"),
        ("--recipe c4 --input hub:allenai --out x", "found no owner, name and file"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    words: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("Some text.")
    (tmp_path / "a.zip").write_bytes(b"PK")
    assert says in told(["corpus", "build", *words.split()], capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "a.zip"]


@pytest.mark.parametrize("parts", ["10", "x=a.txt", "0=a.txt", "=a.txt", "3="])
def test_parts_that_are_none(
    parts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert "--parts: found" in told(["vocab", "train", "--parts", parts, "--out", "m.model"], capsys)
