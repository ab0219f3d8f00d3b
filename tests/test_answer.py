"""Answer: from a folder and prompts to text, without anything of training."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from t5study.answer import LONGEST_PROMPT, Settings, answer, load, method_of, open_prompts, prompts_in
from t5study.decode.scores import target_scores
from t5study.ground.errors import UserError
from t5study.ground.pairs import pad_rows
from t5study.model.architectures import build
from t5study.model.released import load_released, save_released
from t5study.model.shapes import Shape
from t5study.vocab import ByteVocab, Vocab, train_vocab

ROOT = Path(__file__).resolve().parents[1]
TEXT = ["The quick brown fox jumps over the lazy dog, again and again.", "A whale is large; a flea is small."] * 20
PROMPTS = ["The quick brown fox", "a flea", "", "A whale <extra_id_0> large", "jumps over the lazy dog, again"] * 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose answers differ from prompt to prompt: random weights, the softmax sharpened."""
    place = tmp_path_factory.mktemp("answer")
    train_vocab(TEXT, 40, place / "v.model")
    vocab = Vocab.load(place / "v.model")
    model = build(Shape(32, 48, 8, 4, 2, 2, vocab.ids.table_rows), 5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".cross." in name:
                weight.mul_(3)
    save_released(model, place / "model", vocab.path)
    return place / "model"


def test_answers_come_in_the_order_of_their_prompts(folder: Path):
    together = answer(folder, PROMPTS, max_length=12)
    assert len(set(together)) > 2
    alone = {prompt: answer(folder, [prompt], max_length=12)[0] for prompt in set(PROMPTS)}
    assert together == [alone[prompt] for prompt in PROMPTS]
    assert together == answer(folder, PROMPTS, max_length=12, batch_rows=3)
    assert answer(folder, []) == []


def test_a_sentinel_in_a_prompt_is_the_sentinel(folder: Path, monkeypatch: pytest.MonkeyPatch):
    import t5study.answer as room

    vocab, seen = Vocab.load(folder / "spiece.model"), []
    generate = room.generate

    def watched(models, source_NS, *rest, **more):
        seen.append(source_NS)
        return generate(models, source_NS, *rest, **more)

    monkeypatch.setattr(room, "generate", watched)
    answer(folder, ["a <extra_id_3> whale", "x"], max_length=2)
    ids = seen[0][0]
    assert vocab.ids.sentinel(3) in ids
    assert ids[np.flatnonzero(ids)[-1]] == 1
    assert (seen[0][1] != 0).sum() < (ids != 0).sum()


# --- many prompts, other methods ----------------------------------------------------------------------------------


def test_prompts_are_taken_as_they_are_needed(folder: Path):
    """A million lines need not lie in memory: no more is read than what is answered next."""
    model, read = load(folder), []

    def prompts():
        for i in range(10**6):
            read.append(i)
            yield PROMPTS[i % len(PROMPTS)]

    stream = model.stream(prompts(), Settings(max_length=6), at_once=4)
    first = [next(stream) for _ in range(6)]
    assert len(read) == 8
    assert [one.input for one in first] == PROMPTS[:6]
    assert [one.answer for one in first] == model.answer(PROMPTS[:6], 6)


def test_scores_are_log_probabilities(folder: Path):
    """Of all tokens that were said, and of EOS where it was."""
    model, (weights, _) = load(folder), load_released(folder)
    sources = [np.append(model.vocab.encode(prompt, sentinels=True), 1) for prompt in PROMPTS[:5]]
    source_NS, _ = pad_rows(sources)
    found = model.generate(source_NS, Settings(12))
    said = [one.ids if len(one.ids) == 12 else np.append(one.ids, 1) for one in found]
    nats_N, _ = target_scores(weights, source_NS, pad_rows(said)[0])
    assert [one.score for one in found] == pytest.approx((-nats_N).tolist(), abs=1e-4)
    assert [one.score for one in model.stream(PROMPTS[:5], Settings(12))] == [one.score for one in found]


def test_beams_and_sampling_reach_the_decoder(folder: Path):
    model = load(folder)
    greedy = [one.score for one in model.stream(PROMPTS, Settings(12))]
    beams = [one.score for one in model.stream(PROMPTS, Settings(12, method_of(beams=4, alpha=0.0)))]
    assert all(b >= g - 1e-4 for b, g in zip(beams, greedy, strict=True))
    assert beams != pytest.approx(greedy)
    drawn = model.answer(PROMPTS * 3, 12, method=method_of(temperature=2.0, seed=1))
    assert drawn == model.answer(PROMPTS * 3, 12, method=method_of(temperature=2.0, seed=1))
    assert drawn != model.answer(PROMPTS * 3, 12, method=method_of(temperature=2.0, seed=2))
    assert model.answer(PROMPTS, 12, method=method_of(temperature=5.0, top_k=1)) == model.answer(PROMPTS, 12)


def test_no_two_parts_of_a_stream_draw_the_same_numbers(folder: Path):
    settings = Settings(12, method_of(temperature=3.0))
    same = [one.answer for one in load(folder).stream(["a flea"] * 8, settings, at_once=4)]
    assert same[:4] != same[4:]
    assert same == [one.answer for one in load(folder).stream(["a flea"] * 8, settings, at_once=4)]


def test_models_that_answer_together(folder: Path, tmp_path: Path):
    assert load([folder, folder]).answer(PROMPTS, 12) == load(folder).answer(PROMPTS, 12)
    other = Shape(16, 24, 4, 2, 1, 1, 384)
    save_released(build(other, 0), tmp_path / "bytes", None)
    with pytest.raises(UserError, match="has another vocabulary than"):
        load([folder, tmp_path / "bytes"])
    assert load(tmp_path / "bytes").vocab == ByteVocab()
    assert load(tmp_path / "bytes").answer(["né"], 3) == answer(tmp_path / "bytes", ["né"], 3)


@pytest.mark.parametrize("architecture", ["shared_encoder_decoder", "language_model", "prefix_lm"])
def test_every_architecture_answers(tmp_path: Path, architecture: str):
    layers = 2 if architecture == "shared_encoder_decoder" else 0
    model = build(Shape(16, 24, 4, 2, layers, 2, 384, adapter=4), 0, architecture)
    save_released(model, tmp_path / "m", None)
    assert len(load(tmp_path / "m").answer(["some prompt", ""], 3)) == 2


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"beams": 4, "top_k": 3}, "method: found beams with top_k"),
        ({"alpha": 0.6, "seed": 1}, "method: found beams with seed"),
        ({"alpha": 0.6}, "method: found alpha without beams"),
        ({"beams": 10**6}, "beams: found 1000000"),
        ({"beams": 0}, "beams: found 0"),
        ({"temperature": -1.0}, "temperature: found -1.0"),
        ({"temperature": float("nan")}, "temperature: found nan"),
        ({"top_p": 0.0}, "top_p: found 0.0"),
        ({"seed": -1}, "seed: found -1"),
    ],
)
def test_methods_that_cannot_be(asked: dict, says: str):
    with pytest.raises(UserError) as caught:
        method_of(**asked)
    assert says in str(caught.value)


# --- CTranslate2 --------------------------------------------------------------------------------------------------


def test_ctranslate_is_converted_to_once_and_says_the_same(folder: Path, tmp_path: Path):
    pytest.importorskip("ctranslate2")
    shutil.copytree(folder, tmp_path / "m")
    model = load(tmp_path / "m", backend="ctranslate2")
    (made,) = tmp_path.glob("m.ctranslate2-*")
    stamp = made.stat().st_mtime_ns
    prompts = [prompt for prompt in PROMPTS if prompt]
    assert model.answer(prompts, 12) == load(folder).answer(prompts, 12)
    assert len(model.answer(prompts, 12, method=method_of(beams=3))) == len(prompts)
    with pytest.raises(UserError, match="found an empty prompt, to which ctranslate2 says nothing"):
        model.answer(PROMPTS)
    load(tmp_path / "m", backend="ctranslate2")
    assert [place.stat().st_mtime_ns for place in tmp_path.glob("m.ctranslate2-*")] == [stamp]
    with pytest.raises(UserError, match="sample with --backend torch"):
        model.answer(["x"], method=method_of(top_k=2))
    with pytest.raises(UserError, match="answers with one model"):
        load([folder, folder], backend="ctranslate2")
    (made / "model.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"model.bin: found 0 bytes"):
        load(tmp_path / "m", backend="ctranslate2")


def test_ctranslate_that_says_otherwise_is_not_used(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The mistake of its own converter: an output scaled that is not, or the other way round."""
    pytest.importorskip("ctranslate2")
    from t5study.model import ctranslate

    right = ctranslate._spec

    def wrong(model):
        spec = right(model)
        spec.decoder.scale_outputs = 1.0
        return spec

    monkeypatch.setattr(ctranslate, "_spec", wrong)
    shutil.copytree(folder, tmp_path / "m")
    with pytest.raises(UserError, match=r"gives other likelihoods .* answer with --backend torch"):
        load(tmp_path / "m", backend="ctranslate2")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


# --- prompts in files ---------------------------------------------------------------------------------------------


def test_prompts_in_files(tmp_path: Path):
    (tmp_path / "p.txt").write_bytes("\ufeffone\r\n\ntwo  \u2028 still two\nthree".encode())
    with open_prompts(tmp_path / "p.txt") as file:
        assert list(prompts_in(file, "p", False)) == ["one", "", "two  \u2028 still two", "three"]
    lines = ['{"input": "a\\nb", "target": 3}', '{"input": ""}']
    assert list(prompts_in(lines, "p", True)) == ["a\nb", ""]


@pytest.mark.parametrize(
    "line", ["", "text", "[1]", '{"inputs": "x"}', '{"input": 3}', "[" * 100_000, '{"input": null}']
)
def test_lines_that_hold_no_prompt(line: str):
    with pytest.raises(UserError, match=r"^p.jsonl: line 2: found") as caught:
        list(prompts_in(['{"input": "fine"}', line], "p.jsonl", True))
    assert "\n" not in str(caught.value)


def test_nothing_of_training_is_loaded(folder: Path):
    code = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from t5study.answer import answer\n"
        "texts = answer(Path(sys.argv[1]), ['a whale'], max_length=3)\n"
        "rooms = sorted(name.split('.')[1] for name in sys.modules if name.startswith('t5study.'))\n"
        "print(json.dumps([texts, sorted(set(rooms))]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    texts, rooms = json.loads(done.stdout)
    assert texts == answer(folder, ["a whale"], max_length=3)
    assert {"answer", "decode", "ground", "model", "vocab"} <= set(rooms)
    assert not {"train", "study", "feed", "evaluate", "objectives", "corpus", "tasks", "metrics", "commands"} & set(
        rooms
    )


@pytest.mark.parametrize(
    ("prompts", "max_length", "says"),
    [
        (["fine", "half a pair: \ud800"], 4, "prompt 2: found bytes that are not UTF-8"),
        (["word " * LONGEST_PROMPT], 4, "prompt 1: found"),
        (["fine"], 0, "max_length: found 0"),
        (["fine"], -1, "max_length: found -1"),
        (["fine"], 10**9, "max_length: found 1000000000"),
        (["x" * 10**6], 4, "prompt 1: found"),
    ],
)
def test_prompts_that_cannot_be_answered(folder: Path, prompts: list[str], max_length: int, says: str):
    with pytest.raises(UserError) as caught:
        answer(folder, prompts, max_length)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_vocabulary(folder: Path, tmp_path: Path):
    shutil.copytree(folder, tmp_path / "m", ignore=shutil.ignore_patterns("spiece.model", "manifest.json"))
    with pytest.raises(UserError, match=r"has no spiece.model; copy .* --vocab"):
        answer(tmp_path / "m", ["a whale"])
    there = answer(folder, ["a whale"], 4)
    assert answer(tmp_path / "m", ["a whale"], 4, vocab=folder / "spiece.model") == there
