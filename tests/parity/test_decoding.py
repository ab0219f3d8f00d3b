"""Greedy decoding and beam search against transformers' generate, which keeps its own cache."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from little_models import SHAPES, random_pairs, talkative
from parity.transformers_t5 import peer_of

from t5study.decode import search
from t5study.decode.generate import generate, greedy
from t5study.decode.methods import Beam
from t5study.ground.pairs import EOS, pad_rows
from t5study.model.architectures import EncoderDecoder

PROMPTS = 200
SOURCE_NS, LENGTH_N = pad_rows([source for source, _ in random_pairs(PROMPTS, 30, 1, 384, seed=4)])
LONGEST = 24


def model_of(version: str, seed: int) -> EncoderDecoder:
    # As many layers in both stacks: transformers' cache fails with an index error otherwise.
    return talkative(replace(SHAPES[version], encoder_layers=2, decoder_layers=2), seed)


def theirs(model: EncoderDecoder, **how) -> list[list[int]]:
    """transformers' answers, as ours are given: up to EOS, without padding."""
    ids_NS = torch.from_numpy(SOURCE_NS).long()
    mask_NS = torch.from_numpy(np.arange(SOURCE_NS.shape[1]) < LENGTH_N[:, None]).long()
    rows = peer_of(model).generate(
        ids_NS, attention_mask=mask_NS, max_new_tokens=LONGEST, do_sample=False, **how
    ).numpy()[:, 1:]  # fmt: skip
    said = []
    for row in rows:
        ends = np.flatnonzero(row == EOS)
        said.append([i for i in (row[: ends[0]] if len(ends) else row).tolist() if i != 0])
    return said


@pytest.mark.parametrize("version", SHAPES)
@pytest.mark.usefixtures("arithmetic")
def test_greedy(version: str) -> None:
    model = model_of(version, seed=5)
    answers = [ids.tolist() for ids in greedy(model, SOURCE_NS, LONGEST, batch_rows=50)]
    expected = theirs(model, num_beams=1)
    assert sum(a == b for a, b in zip(answers, expected, strict=True)) == PROMPTS
    lengths = {len(answer) for answer in answers}
    assert len(lengths) > 4, f"answers of lengths {lengths} only: rows leaving early are not tried"


def transformers_rule(token_RC: np.ndarray, beams: int, last: bool) -> np.ndarray:
    """Only the `beams` best of the 2 * beams candidates may finish, and at the last step they all do."""
    return ((token_RC == EOS) | last) & (np.arange(token_RC.shape[1]) < beams)


@pytest.mark.parametrize(("version", "seed"), [("v1.0", 2), ("v1.1", 3)])
@pytest.mark.parametrize("beams", [2, 4])
def test_beam_search(version: str, seed: int, beams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are defined alike at alpha 0, which is length_penalty 0, with early_stopping "never", if which candidates
    may finish is taken from transformers. That rule is the one difference: T5's finds likelier answers or the same."""
    model = model_of(version, seed)
    expected = theirs(model, num_beams=beams, length_penalty=0.0, early_stopping="never")
    t5 = generate(model, SOURCE_NS, LONGEST, Beam(beams, 0.0), batch_rows=50)
    monkeypatch.setattr(search, "finishes", transformers_rule)
    alike = generate(model, SOURCE_NS, LONGEST, Beam(beams, 0.0), batch_rows=50)
    assert sum(a.ids.tolist() == b for a, b in zip(alike, expected, strict=True)) == PROMPTS
    assert len({len(answer.ids) for answer in alike}) > 4
    finished = [(a, b) for a, b in zip(t5, alike, strict=True) if len(a.ids) < LONGEST > len(b.ids)]
    assert len(finished) > PROMPTS / 3
    assert all(a.score >= b.score - 1e-5 for a, b in finished)
