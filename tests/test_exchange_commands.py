"""Commands that bring a model in, carry it out and ask it, on little models: what is written answers as what was."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from little_models import talkative
from model.test_t5x import V1_1, write_checkpoint

from t5study.__main__ import main
from t5study.answer import load
from t5study.ground.store import read_json, verify
from t5study.model.architectures import build
from t5study.model.released import load_released, save_released
from t5study.model.shapes import Shape


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("exchange") / "m"
    save_released(talkative(Shape(32, 48, 16, 2, 2, 2, 384), 5), place, None, title="A talkative one", steps=3)
    return place


def _said(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == 0, capsys.readouterr().err
    return capsys.readouterr().out


# --- export and import --------------------------------------------------------------------------------------------


def test_export_keeps_weights_and_card(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    said = _said(["export", str(folder), str(tmp_path / "out"), "--max-shard-size", "20kB"], capsys)
    assert said.startswith(f"{tmp_path / 'out'}: huggingface, ")
    verify(tmp_path / "out")
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 3
    assert "# A talkative one" in (tmp_path / "out" / "README.md").read_text()
    one, other = load_released(folder)[0], load_released(tmp_path / "out")[0]
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_export_for_ctranslate(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("ctranslate2")
    _said(["export", str(folder), str(tmp_path / "out"), "--format", "ctranslate2"], capsys)
    verify(tmp_path / "out")
    assert (tmp_path / "out" / "model.bin").is_file()
    assert len(json.loads((tmp_path / "out" / "shared_vocabulary.json").read_text())) == 384


def test_import_of_a_folder_of_others(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("config.json", "model.safetensors", "tokenizer_config.json"):
        (tmp_path / "theirs").mkdir(exist_ok=True)
        (tmp_path / "theirs" / name).write_bytes((folder / name).read_bytes())
    said = _said(["import", str(tmp_path / "theirs"), str(tmp_path / "ours")], capsys)
    assert said.endswith("parameters, encoder_decoder\n")
    assert load(tmp_path / "ours").answer(["a whale"], 9) == load(folder).answer(["a whale"], 9)
    assert read_json(tmp_path / "ours" / "manifest.json")["card"]["imported from"] == "a Hugging Face folder"


def test_import_of_t5x(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = build(V1_1, 3)
    checkpoint = write_checkpoint(tmp_path / "checkpoint_7", model)
    assert main(["import", str(checkpoint), str(tmp_path / "m")]) == 2
    assert "a T5X checkpoint holds no vocabulary; give --vocab" in capsys.readouterr().err
    _said(["import", str(checkpoint), str(tmp_path / "m"), "--vocab", "bytes"], capsys)
    back, shape = load_released(tmp_path / "m")
    assert shape == V1_1
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), back.parameters(), strict=True))


def test_import_of_pickles(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "config.json").write_text("{}")
    (tmp_path / "theirs" / "pytorch_model.bin").write_bytes(b"PK")
    for place in (tmp_path / "theirs", tmp_path / "theirs" / "pytorch_model.bin"):
        assert main(["import", str(place), str(tmp_path / "m")]) == 2
        err = capsys.readouterr().err
        assert "pytorch_model.bin: found weights in a format that can run code" in err
        assert "save_pretrained" in err
        assert err.count("\n") == 1
    assert not (tmp_path / "m").exists()


# --- answer -------------------------------------------------------------------------------------------------------


def test_files_and_json_lines(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "p.txt").write_text("one\ntwo\n")
    (tmp_path / "p.jsonl").write_text('{"input": "three", "id": 3}\n')
    words = ["answer", str(folder), "zero", "--file", str(tmp_path / "p.txt"), "--file", str(tmp_path / "p.jsonl")]
    rows = [json.loads(line) for line in _said([*words, "--json", "--max-length", "6"], capsys).splitlines()]
    assert [row["input"] for row in rows] == ["zero", "one", "two", "three"]
    assert [row["answer"] for row in rows] == load(folder).answer(["zero", "one", "two", "three"], 6)
    assert all(row["score"] < 0 for row in rows)
    plain = _said([*words, "--max-length", "6"], capsys)
    assert plain.count("\n") == 4


def test_standard_input(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    words = ["answer", str(folder), "--max-length", "6", "--json"]
    expected = _said([*words, "one", "two"], capsys)
    for more in ([], ["--file", "-"]):
        monkeypatch.setattr(sys, "stdin", io.StringIO("one\ntwo\n"))
        assert _said([*words, *more], capsys) == expected
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\n\udcff\n"))
    assert main(words) == 2
    assert "prompt 2: found bytes that are not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("prompt", ["", "<extra_id_0>" * 50, "\x00\x1b[31m\r\t", "😀" * 300, "-dash"])
def test_awkward_prompts(folder: Path, prompt: str, capsys: pytest.CaptureFixture[str]):
    """70: empty, only sentinels, control characters."""
    out = _said(["answer", str(folder), "--max-length", "3", "--json", "--", prompt], capsys)
    assert json.loads(out)["input"] == prompt


def test_a_prompt_of_a_million_characters(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "p.txt").write_text("fine\n" + "x" * 10**6)
    assert main(["answer", str(folder), "--file", str(tmp_path / "p.txt")]) == 2
    assert "prompt 2: found 1,000,001 tokens; give at most 8,192" in capsys.readouterr().err


def test_interrupted_it_keeps_what_it_said(folder: Path, tmp_path: Path):
    """Ctrl-C in the midst of many prompts: whole lines, as many as had been answered."""
    (tmp_path / "p.txt").write_text("".join(f"prompt {i}\n" for i in range(300_000)))
    words = [sys.executable, "-m", "t5study", "answer", str(folder), "--file", str(tmp_path / "p.txt"), "--json"]
    with open(tmp_path / "out.jsonl", "w") as out:
        process = subprocess.Popen([*words, "--max-length", "4"], stdout=out, stderr=subprocess.PIPE, text=True)
        began = time.monotonic()
        while not (tmp_path / "out.jsonl").stat().st_size and time.monotonic() - began < 120:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        err = process.communicate()[1]
    assert process.returncode == 130
    assert "Traceback" not in err
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert lines
    assert [json.loads(line)["input"] for line in lines] == [f"prompt {i}" for i in range(len(lines))]
