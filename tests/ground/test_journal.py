"""The journal: exactly one row a step, whatever killed the writer."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from t5study.ground.errors import UserError
from t5study.ground.journal import Journal, Progress, read_journal


def _rows(path: Path, steps: range) -> None:
    journal = Journal(path)
    for step in steps:
        journal.append({"step": step, "loss": 1 / (step + 1)})
    journal.close()


def test_rewind_drops_later_rows_and_a_cut_last_line(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    _rows(path, range(1, 11))
    unbroken = path.read_bytes()
    with open(path, "ab") as file:
        file.write(b'{"step": 11, "lo')
    journal = Journal(path)
    journal.rewind(6)
    for step in range(7, 11):
        journal.append({"step": step, "loss": 1 / (step + 1)})
    journal.close()
    assert path.read_bytes() == unbroken


def test_every_cut_of_the_file_is_readable_and_recovers(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    _rows(path, range(1, 4))
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        steps = [row["step"] for row in read_journal(path)]
        assert steps == list(range(1, len(steps) + 1))
        journal = Journal(path)
        journal.rewind(len(steps))
        for step in range(len(steps) + 1, 4):
            journal.append({"step": step, "loss": 1 / (step + 1)})
        journal.close()
        assert path.read_bytes() == whole


def test_a_missing_or_damaged_journal_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="no such journal"):
        read_journal(tmp_path / "journal.jsonl")
    (tmp_path / "journal.jsonl").write_text('{"step": 1}\n!!\n')
    with pytest.raises(UserError, match=r"journal\.jsonl: found a damaged row"):
        read_journal(tmp_path / "journal.jsonl")


def test_plain_progress_tells_speed_loss_and_time_left():
    now = [0.0]
    out = io.StringIO()
    progress = Progress(100, "pretrain", out=out, every=5, clock=lambda: now[0])
    for step in range(1, 101):
        now[0] += 1.0
        progress.update(step, tokens=2000, loss=5.0)
    progress.close()
    lines = out.getvalue().splitlines()
    assert lines[0] == "pretrain: step 5/100 · loss 5.000 · 2,000 tokens/s · 1 min 35 s left"
    assert len(lines) == 20
    assert lines[-1].startswith("pretrain: step 100/100")


def test_rows_hold_full_precision(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    _rows(path, range(2, 3))
    assert json.loads(path.read_text())["loss"] == 1 / 3
