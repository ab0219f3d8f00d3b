"""Answer: a folder and prompts -> what the model says. Nothing of training or of the study is loaded on the way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from t5study.decode import generate
from t5study.ground.errors import UserError
from t5study.ground.pairs import EOS, pad_rows
from t5study.model.released import load_released, load_vocab
from t5study.vocab import Vocab

LONGEST_PROMPT = 8192  # tokens; attention over one prompt takes a matrix of its square for every head


def answer(
    checkpoint: Path,
    prompts: Sequence[str],
    max_length: int = 64,
    *,
    vocab: Path | None = None,
    device: str = "cpu",
    batch_rows: int = 64,
) -> list[str]:
    """Greedy answers of a released folder's model to prompts, in their order, of at most `max_length` tokens.

    `<extra_id_k>` in a prompt is the sentinel, so a model that was only pre-trained fills the gaps. vocab: a `.model`
    for a folder without spiece.model. A prompt's answer does not depend on the others beside it, but for rounding in
    matrix products of other sizes. UserError for a folder, a vocabulary or a prompt that cannot be used.
    """
    if max_length < 1:
        raise UserError(f"max_length: found {max_length}; give at least 1")
    model, shape = load_released(checkpoint)
    pieces = load_vocab(checkpoint, shape, vocab)
    if not prompts:
        return []
    source_NS, _ = pad_rows([_ids(pieces, i, prompt) for i, prompt in enumerate(prompts, start=1)])
    answers = generate.greedy(model.to(device), source_NS, max_length, batch_rows=batch_rows)
    return [pieces.decode(ids_T) for ids_T in answers]


def _ids(vocab: Vocab, number: int, prompt: str) -> np.ndarray:
    """A prompt's ids, EOS at the end."""
    if any("\ud800" <= character <= "\udfff" for character in prompt):
        raise UserError(f"prompt {number}: found bytes that are not UTF-8; give text")
    ids_S = np.append(vocab.encode(prompt, sentinels=True), EOS).astype(np.int32)
    if len(ids_S) > LONGEST_PROMPT:
        raise UserError(f"prompt {number}: found {len(ids_S):,} tokens; give at most {LONGEST_PROMPT:,}")
    return ids_S
