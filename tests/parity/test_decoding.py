"""Greedy decoding against transformers' generate, which keeps its own cache."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from little_models import SHAPES, random_pairs, talkative
from parity.transformers_t5 import peer_of

from t5study import decode
from t5study.ground.pairs import EOS, pad_rows


@pytest.mark.parametrize("version", SHAPES)
@pytest.mark.usefixtures("arithmetic")
def test_greedy(version: str) -> None:
    # As many layers in both stacks: transformers' cache fails with an index error otherwise.
    model = talkative(replace(SHAPES[version], encoder_layers=2, decoder_layers=2), seed=5)
    sources = [source for source, _ in random_pairs(24, 40, 1, 384, seed=2)]
    source_NS, length_N = pad_rows(sources)
    answers = decode.greedy(model, source_NS, 24, batch_rows=10)
    ids_NS = torch.from_numpy(source_NS).long()
    mask_NS = torch.from_numpy(np.arange(source_NS.shape[1]) < length_N[:, None]).long()
    theirs = peer_of(model).generate(ids_NS, attention_mask=mask_NS, max_new_tokens=24, do_sample=False, num_beams=1)
    for answer, row in zip(answers, theirs.numpy()[:, 1:], strict=True):
        ends = np.flatnonzero(row == EOS)
        row = row[: ends[0]] if len(ends) else row
        assert answer.tolist() == [i for i in row.tolist() if i != 0]
    lengths = {len(answer) for answer in answers}
    assert len(lengths) > 4, f"answers of lengths {lengths} only: rows leaving early are not tried"
