"""The commands of docs/performance.md parse, and the one for 11B starts, with a tiny model in its place."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from invented_benchmarks import official

from t5study.__main__ import main, parse
from t5study.ground.journal import read_journal
from t5study.model import architectures
from t5study.model.released import load_released, save_released
from t5study.model.shapes import Shape
from t5study.vocab import Vocab, train_vocab

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
COMMANDS = re.findall(r"^t5study (.+)$", PAGE.read_text(encoding="utf-8"), re.M)


def test_every_command_of_the_page_parses():
    assert len(COMMANDS) >= 2
    for command in COMMANDS:
        parse(shlex.split(command))


def test_the_recipe_for_11b_starts_and_ends_at_a_tiny_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Word for word, but for the folders and a size that a CPU has time for."""
    (command,) = [one for one in COMMANDS if one.startswith("train finetune")]
    words = [f"word{i} of the little text that number {i * 7} is in" for i in range(200)]
    train_vocab(words, 120, tmp_path / "v.model")
    rows = Vocab.load(tmp_path / "v.model").ids.table_rows
    save_released(
        architectures.build(Shape(32, 64, 16, 2, 2, 2, rows), 0), tmp_path / "t5", vocab_path=tmp_path / "v.model"
    )
    data = official(tmp_path / "data")
    given = {"t5-11b": str(tmp_path / "t5"), "DIR": str(data), "my-11b": str(tmp_path / "run"), "128": "4", "5000": "2"}
    asked = [given.get(word, word) for word in shlex.split(command)]
    assert {"--weights", "bf16", "--update-in-backward", "--recompute"} <= set(asked)
    small = ["--device", "cpu", "--source-length", "48", "--target-length", "16"]
    assert main([*asked, *small]) == 0
    out = capsys.readouterr().out
    assert "2 steps, loss " in out
    assert "speed: " in out
    assert [row["step"] for row in read_journal(tmp_path / "run" / "journal.jsonl")] == [1, 2]
    assert "bf16" in json.dumps(json.loads((tmp_path / "run" / "run.json").read_text()))
    load_released(tmp_path / "run" / "model")
