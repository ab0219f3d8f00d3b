"""The model card: README.md of a released folder. What the model is, how it was made, and how to use it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from t5study.ground.store import code_version
from t5study.model.shapes import Shape
from t5study.vocab import Vocab

# Fields of a card with a place of their own; all others become lines of the table "How it was made".
_OWN = ("title", "license", "scores", "rerun")


def write_card(path: Path, folder: Path, shape: Shape, vocab: Vocab, card: Mapping[str, Any]) -> None:
    """Writes the card of the files that already lie in `folder`.

    card: title; license (an SPDX name, of the weights: nobody but who trained them can give it); scores, a sequence
    of mappings that become the rows of one table; rerun, a command. Any other name is a fact of how the model was
    made (objective="...", steps=..., tokens="xxh3 ..."). The same card gives the same bytes: no date enters.
    """
    path.write_text("\n".join(_lines(folder, shape, vocab, card)) + "\n", encoding="utf-8")


def _lines(folder: Path, shape: Shape, vocab: Vocab, card: Mapping[str, Any]) -> Iterator[str]:
    yield from ("---", "library_name: transformers", "pipeline_tag: text2text-generation", "tags: [t5, t5study]")
    if card.get("license"):
        yield f"license: {json.dumps(card['license'])}"
    yield from ("---", "", f"# {_cell(card.get('title') or 'A T5 encoder-decoder')}", "")
    kind = "1.1 (gated GELU" if shape.activation == "gated_gelu" else "1.0 (ReLU"
    ends = "one table for embedding and softmax" if shape.tied else "a softmax matrix of its own"
    yield f"A T5 encoder-decoder of version {kind}, {ends}), written by t5study {code_version()}:"
    yield f"{shape.parameters:,} parameters, d_model {shape.d_model}, d_ff {shape.d_ff},"
    yield f"{shape.heads} heads of {shape.d_kv}, {shape.encoder_layers} + {shape.decoder_layers} layers,"
    yield f"a vocabulary of {vocab.ids.pieces:,} pieces and {vocab.ids.sentinels} sentinels."
    if facts := [(_words(name), value) for name, value in card.items() if name not in _OWN]:
        yield from ("", "## How it was made", "")
        yield from _table(("", ""), facts)
    if card.get("scores"):
        columns = list(dict.fromkeys(name for row in card["scores"] for name in row))
        yield from ("", "## Scores", "")
        yield from _table(
            [_words(name) for name in columns], [[row.get(name, "") for name in columns] for row in card["scores"]]
        )
    if card.get("rerun"):
        yield from ("", "Made again by:", "", "```", *str(card["rerun"]).splitlines(), "```")
    yield from ("", "## Use", "", "```python")
    yield "from transformers import AutoTokenizer, T5ForConditionalGeneration"
    yield ""
    yield 'tokenizer = AutoTokenizer.from_pretrained("FOLDER")'
    yield 'model = T5ForConditionalGeneration.from_pretrained("FOLDER")'
    yield from ("```", "", "or, with t5study: `t5study answer FOLDER 'a prompt'`.", "")
    yield from ("## Files", "")
    yield from _table(
        ("file", "SHA-256"), [(name, _sha256(folder / name)) for name in ("model.safetensors", "spiece.model")]
    )
    yield from (
        "",
        "manifest.json has sizes and xxh3 digests of all files; t5study checks them when it reads the folder.",
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield "| " + " | ".join(_cell(value) for value in row) + " |"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        text = {True: "yes", False: "no", None: ""}[value]
    elif isinstance(value, int):
        text = f"{value:,}"
    elif isinstance(value, float):
        text = f"{value:.6g}"
    elif isinstance(value, list | tuple):
        text = ", ".join(_cell(item) for item in value)
    else:
        text = str(value)
    return " ".join(text.split()).replace("|", "\\|")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return f"`{hashlib.file_digest(file, 'sha256').hexdigest()}`"
