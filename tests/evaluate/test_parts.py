"""Parts: what is found again, and what a kill in the middle of a line leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from t5study.evaluate.parts import Parts


def _never() -> None:
    raise AssertionError("made again")


def test_what_was_kept_is_not_made_again(tmp_path: Path):
    path = tmp_path / "parts.jsonl"
    values = {"a": [0.1, 1e-300, 5], "b 1": ["tab\there", "line\nbreak", "\u2028\ud800\x00"], "c": []}
    parts = Parts(path)
    for key, value in values.items():
        assert parts.get(key, lambda value=value: value) == value
    again = Parts(path)
    assert {key: again.get(key, _never) for key in values} == values


@pytest.mark.parametrize("cut", [1, 2, 10, 30])
def test_an_unfinished_line_is_made_again_and_those_before_it_are_not(tmp_path: Path, cut: int):
    path = tmp_path / "parts.jsonl"
    for key in "abc":
        Parts(path).get(key, lambda: ["some text of some length"])
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    again = Parts(path)
    assert again.get("b", _never) == ["some text of some length"]
    assert again.get("c", lambda: ["some text of some length"])
    assert path.read_bytes() == whole


def test_a_damaged_line_ends_what_is_trusted(tmp_path: Path):
    path = tmp_path / "parts.jsonl"
    for key in "abc":
        Parts(path).get(key, lambda: [1.5])
    lines = path.read_bytes().splitlines(keepends=True)
    for damaged in (lines[1].replace(b"1.5", b"2.5"), b"\x00" * 40 + b"\n", b"\n"):
        path.write_bytes(lines[0] + damaged + lines[2])
        again = Parts(path)
        assert list(again.found) == ["a"]
        assert path.read_bytes() == lines[0]


def test_who_watches_is_told_of_every_row_kept_or_new(tmp_path: Path):
    told: list[int] = []
    for _ in range(2):
        parts = Parts(tmp_path / "parts.jsonl", told.append)
        for key, rows in (("a", 4), ("b", 3)):
            parts.get(key, lambda: [], rows)
    assert told == [4, 7, 4, 7]


def test_nothing_is_kept_where_nobody_asks(tmp_path: Path):
    assert Parts().get("a", lambda: [1]) == [1]
    assert not list(tmp_path.iterdir())
