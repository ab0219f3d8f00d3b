"""The tokenizer files of a Hugging Face folder, written from a SentencePiece `.model`.

transformers reads tokenizer.json, not the `.model`, and its own conversion needs packages that we do not; so we write
the same pipeline down ourselves: the model's character map, words split at white space, `▁` in front of each, unigram
pieces, `</s>` at the end, and the sentinels on top, `<extra_id_0>` the last id. The fields of the `.model` that no
library call gives away (the character map, how white space is treated) are read from its protocol buffer.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sentencepiece

from t5study.ground.pairs import UNK
from t5study.ground.store import write_json
from t5study.model.config import BYTE_TOKENIZER
from t5study.vocab import AnyVocab, ByteVocab, Vocab

USER_DEFINED, BYTE = 4, 6  # SentencePiece.type
# Numbers of fields in SentencePiece's messages, and what T5's own file (and every file we train) has in them.
KIND = 3  # SentencePiece
UNIGRAM, SUFFIXES = (3, 1), (24, 0)  # TrainerSpec: model_type, treat_whitespace_as_suffix
CHARSMAP = 2  # NormalizerSpec: precompiled_charsmap, and below: add_dummy_prefix, remove_extra_ and escape_whitespaces
DUMMY_PREFIX, REMOVES_SPACES, ESCAPES_SPACES = (3, 1), (4, 1), (5, 1)


def write_tokenizer(folder: Path, vocab: AnyVocab) -> None:
    """Writes tokenizer_config.json and tokenizer.json, by which transformers gives the ids that `vocab` gives. For the
    bytes the first is enough: transformers has a tokenizer of code alone for them.

    One difference stays: transformers reads `</s>`, `<pad>` and `<unk>` in a text as the special tokens; we read text.
    A `.model` of another kind than T5's (BPE, another treatment of white space) gets no tokenizer.json rather than one
    that is not exact; transformers then converts it itself.
    """
    tokens = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    if isinstance(vocab, ByteVocab):
        write_json(folder / "tokenizer_config.json", {"tokenizer_class": BYTE_TOKENIZER, **tokens})
        return
    sentinels = [f"<extra_id_{k}>" for k in range(vocab.ids.sentinels)]
    config = {
        "tokenizer_class": "T5Tokenizer",
        "additional_special_tokens": sentinels,
        "extra_ids": len(sentinels),
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000_000,  # relative positions: no length is the last
        **tokens,
    }
    write_json(folder / "tokenizer_config.json", config)
    if spelled := _tokenizer(vocab):
        write_json(folder / "tokenizer.json", spelled)


def _tokenizer(vocab: Vocab) -> dict[str, Any] | None:
    content = vocab.path.read_bytes()
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(content)
    kinds, trainer, normalizer = _specs(content)
    as_t5 = all(trainer.get(field, usual) == usual for field, usual in (UNIGRAM, SUFFIXES)) and all(
        normalizer.get(field, usual) == usual for field, usual in (DUMMY_PREFIX, REMOVES_SPACES, ESCAPES_SPACES)
    )
    if not as_t5 or not normalizer.get(CHARSMAP):
        return None
    ids = vocab.ids
    pieces = [[processor.IdToPiece(i), processor.GetScore(i)] for i in range(ids.pieces)]
    # Ids 0 to 2 go by transformers' names, whatever the `.model` calls them; their scores play no part.
    pieces[: UNK + 1] = [["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0]]
    sentinels = [[f"<extra_id_{k}>", 0.0] for k in reversed(range(ids.sentinels))]
    special = [(i, piece) for i, (piece, _) in enumerate(pieces[: UNK + 1])]
    special += [(ids.pieces + i, piece) for i, (piece, _) in enumerate(sentinels)]
    own = [(i, pieces[i][0].replace("▁", " ")) for i, kind in enumerate(kinds) if kind == USER_DEFINED]
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(i, text, True) for i, text in special] + [_added(i, text, False) for i, text in own],
        "normalizer": {
            "type": "Precompiled",
            "precompiled_charsmap": base64.b64encode(normalizer[CHARSMAP]).decode(),
        },
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "model": {
            "type": "Unigram",
            "unk_id": UNK,
            "vocab": pieces + sentinels,
            "byte_fallback": BYTE in kinds,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [first, end],
            "pair": [first, end, second, end],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
        },
        "decoder": metaspace,
    }


def _added(i: int, text: str, special: bool) -> dict[str, Any]:
    return {
        "id": i,
        "content": text,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }


# --- the protocol buffer ------------------------------------------------------------------------------------------


def _specs(content: bytes) -> tuple[list[int], dict[int, Any], dict[int, Any]]:
    """ModelProto: the type of every piece (field 1), the TrainerSpec (2), the NormalizerSpec (3)."""
    kinds: list[int] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for number, value in _fields(content):
        if number == 1:
            kinds.append(dict(_fields(value)).get(KIND, 1))
        elif number == 2:
            trainer = dict(_fields(value))
        elif number == 3:
            normalizer = dict(_fields(value))
    return kinds, trainer, normalizer


def _fields(content: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, value) of one message: varints as int, the rest as bytes. SentencePiece has read it already, so
    what is damaged never comes here."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = content[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(content):
        tag = varint()
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            yield number, varint()
        else:
            length = {1: 8, 5: 4}.get(wire) or varint()
            yield number, content[at : at + length]
            at += length
