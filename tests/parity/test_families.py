"""Folders between us and transformers, both ways, of each family and each kind of ends; with the transformers that is
installed, and with another one (4.57) whose interpreter T5STUDY_PYTHON_4_57 names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from little_models import talkative

from t5study.decode import generate
from t5study.ground.pairs import EOS, Batch, pad_rows
from t5study.model.architectures import EncoderDecoder
from t5study.model.released import load_released, load_vocab, save_released
from t5study.model.shapes import Shape
from t5study.vocab import ByteVocab

pytest.importorskip("transformers")
from parity import families

VARIANTS = {
    f"{activation}, {'tied' if tied else 'untied'}": {"activation": activation, "tied": tied}
    for activation in ("relu", "gated_gelu")
    for tied in (True, False)
}
SHARDS = 20_000  # bytes a file, for the variants that are written in several


@dataclass(frozen=True)
class Exchanged:
    """What one transformers wrote and read: its folders, its logits beside them, its greedy answers."""

    version: str
    folder: Path
    answers: dict[str, list[list[int]]]

    def logits(self, name: str) -> torch.Tensor:
        return torch.from_numpy(np.load(self.folder / name / "logits.npy"))


def _python(which: str) -> str | None:
    return sys.executable if which == "installed" else os.environ.get("T5STUDY_PYTHON_4_57")


@pytest.fixture(scope="module", params=["installed", "4.57"])
def exchanged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exchanged:
    """One process of that transformers writes a folder of every family and reads one of ours of every kind."""
    python = _python(request.param)
    if python is None:
        pytest.skip("T5STUDY_PYTHON_4_57 names no interpreter with transformers 4.57")
    place = tmp_path_factory.mktemp("exchange")
    np.savez(place / "rows.npz", **dict(zip(("source", "target"), _rows(), strict=True)))
    for name, variant in VARIANTS.items():
        shape = Shape(32, 48, 8, 3, 2, 3, families.ROWS, **variant)
        size = SHARDS if name.startswith("gated") else 10**9
        save_released(talkative(shape, 4), place / name, None, shard_bytes=size)
    jobs = {
        "rows": str(place / "rows.npz"),
        "write": {family: str(place / family) for family in families.FAMILIES},
        "read": {name: str(place / name) for name in VARIANTS},
        "answers": str(place / "answers.json"),
    }
    (place / "jobs.json").write_text(json.dumps(jobs))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [python, families.__file__, str(place / "jobs.json")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads((place / "answers.json").read_text())
    assert told["version"].startswith("5." if request.param == "installed" else "4.57")
    return Exchanged(told["version"], place, told["answers"])


def _rows() -> tuple[np.ndarray, np.ndarray]:
    """Sources of up to 150 tokens, past the last bucket of the relative bias, and targets; ragged, EOS at the end."""
    random = np.random.default_rng(2)

    def rows(lengths: list[int]) -> np.ndarray:
        return pad_rows([np.append(random.integers(3, families.ROWS, n - 1), EOS) for n in lengths])[0]

    return rows([150, 3, 40]), rows([37, 140, 2])


def _logits(model: EncoderDecoder) -> torch.Tensor:
    def parts(block: np.ndarray) -> tuple[np.ndarray, ...]:
        segment = (block != 0).astype(np.int32)
        return block, segment, np.arange(block.shape[1], dtype=np.int32) * segment

    source, target = _rows()
    return model.logits(model.arrange(Batch(*parts(source), *parts(target))))


def _same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.std() > 0.1
    assert (ours - theirs).abs().max() <= 1e-5 * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize("name", VARIANTS)
def test_what_we_write_is_the_same_function_there(exchanged: Exchanged, name: str):
    assert (exchanged.folder / name / "model.safetensors.index.json").exists() == name.startswith("gated")
    model, shape = load_released(exchanged.folder / name)
    assert shape.tied == VARIANTS[name]["tied"]
    _same(_logits(model), exchanged.logits(name))
    ours = [ids.tolist() for ids in generate.greedy(model, _rows()[0], 12)]
    assert ours == exchanged.answers[name]
    assert any(ours)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_what_they_write_is_the_same_function_here(exchanged: Exchanged, family: str):
    model, shape = load_released(exchanged.folder / family)
    _same(_logits(model), exchanged.logits(family))
    assert (shape.encoder_layers, shape.decoder_layers) == ((3, 1) if family == "byt5" else (2, 2))


def test_a_byte_model_of_theirs_needs_no_vocabulary_file(exchanged: Exchanged):
    folder = exchanged.folder / "byt5"
    assert load_vocab(folder, load_released(folder)[1]) == ByteVocab()
