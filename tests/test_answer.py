"""Answer: from a folder and prompts to text, without anything of training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from t5study.answer import LONGEST_PROMPT, answer
from t5study.ground.errors import UserError
from t5study.model.architectures import build
from t5study.model.released import save_released
from t5study.model.shapes import Shape
from t5study.vocab import Vocab, train_vocab

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
    from t5study.decode import generate

    vocab, seen = Vocab.load(folder / "spiece.model"), []
    greedy = generate.greedy

    def watched(model, source_NS, *rest, **more):
        seen.append(source_NS)
        return greedy(model, source_NS, *rest, **more)

    monkeypatch.setattr(generate, "greedy", watched)
    answer(folder, ["a <extra_id_3> whale", "x"], max_length=2)
    ids = seen[0][0]
    assert vocab.ids.sentinel(3) in ids
    assert ids[np.flatnonzero(ids)[-1]] == 1
    assert (seen[0][1] != 0).sum() < (ids != 0).sum()


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
    ],
)
def test_prompts_that_cannot_be_answered(folder: Path, prompts: list[str], max_length: int, says: str):
    with pytest.raises(UserError) as caught:
        answer(folder, prompts, max_length)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_vocabulary(folder: Path, tmp_path: Path):
    import shutil

    shutil.copytree(folder, tmp_path / "m", ignore=shutil.ignore_patterns("spiece.model", "manifest.json"))
    with pytest.raises(UserError, match=r"has no spiece.model; copy .* --vocab"):
        answer(tmp_path / "m", ["a whale"])
    there = answer(folder, ["a whale"], 4)
    assert answer(tmp_path / "m", ["a whale"], 4, vocab=folder / "spiece.model") == there
