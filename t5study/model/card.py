"""The model card: README.md of a released folder. What the model is, how it was made, and how to use it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from t5study.ground.store import code_version
from t5study.model.architectures import Model
from t5study.model.config import SHARED
from t5study.model.shapes import LANGUAGE_MODELS
from t5study.vocab import AnyVocab, ByteVocab

# Fields of a card with a place of their own; all others become lines of the table "How it was made".
_OWN = ("title", "license", "scores", "rerun")


def write_card(path: Path, listed: Sequence[Path], model: Model, vocab: AnyVocab, card: Mapping[str, Any]) -> None:
    """Writes the card of a model. listed: the files, already written, whose digests it tells.

    card: title; license (an SPDX name, of the weights: nobody but who trained them can give it); scores, a sequence
    of mappings that become the rows of one table; rerun, a command. Any other name is a fact of how the model was
    made (objective="...", steps=..., tokens="xxh3 ..."). The same card gives the same bytes: no date enters.
    """
    path.write_text("\n".join(_lines(listed, model, vocab, card)) + "\n", encoding="utf-8")


def _lines(listed: Sequence[Path], model: Model, vocab: AnyVocab, card: Mapping[str, Any]) -> Iterator[str]:
    shape, foreign = model.shape, model.architecture in LANGUAGE_MODELS
    library = "t5study" if foreign else "transformers"
    task = "text-generation" if foreign else "text2text-generation"
    yield from ("---", f"library_name: {library}", f"pipeline_tag: {task}", "tags: [t5, t5study]")
    if card.get("license"):
        yield f"license: {json.dumps(card['license'])}"
    kind = {"language_model": "language model", "prefix_lm": "prefix language model"}.get(
        model.architecture, "encoder-decoder"
    )
    yield from ("---", "", f"# {_cell(card.get('title') or f'A T5 {kind}')}", "")
    version = "1.1 (gated GELU" if shape.activation == "gated_gelu" else "1.0 (ReLU"
    ends = "one table for embedding and softmax" if shape.tied else "a softmax matrix of its own"
    layers = shape.decoder_layers if foreign else f"{shape.encoder_layers} + {shape.decoder_layers}"
    yield f"A T5 {kind} of version {version}, {ends}), written by t5study {code_version()}:"
    yield f"{sum(weight.numel() for weight in model.parameters()):,} parameters, d_model {shape.d_model},"
    yield f"d_ff {shape.d_ff}, {shape.heads} heads of {shape.d_kv}, {layers} layers,"
    if isinstance(vocab, ByteVocab):
        yield "which reads and writes UTF-8 bytes, as ByT5 does."
    else:
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
    yield from _use(model)
    yield from ("", "## Files", "")
    yield from _table(("file", "SHA-256"), [(place.name, _sha256(place)) for place in listed])
    yield from (
        "",
        "manifest.json has sizes and xxh3 digests of all files; t5study checks them when it reads the folder.",
    )


def _use(model: Model) -> Iterator[str]:
    ask = "`t5study answer FOLDER 'a prompt'`"
    yield from ("", "## Use", "")
    if model.architecture in LANGUAGE_MODELS:
        yield f"{ask}. One stack reads the prompt and goes on writing; transformers has no such model and refuses the"
        yield "folder. The weights, in language_model.safetensors, have t5study's own names."
        return
    if model.architecture == SHARED:
        yield "Encoder and decoder share their layers. They are written twice, so that this is an ordinary T5 to"
        yield "others; config.json says so, and t5study reads them as one again."
        yield ""
    if model.shape.adapter:
        yield f"With adapters of {model.shape.adapter} after each feed-forward, in adapters.safetensors. transformers"
        yield "knows none: it reads the model without them, which is another function."
        yield ""
    yield from ("```python", "from transformers import AutoTokenizer, T5ForConditionalGeneration", "")
    yield 'tokenizer = AutoTokenizer.from_pretrained("FOLDER")'
    yield 'model = T5ForConditionalGeneration.from_pretrained("FOLDER")'
    yield from ("```", "", f"or, with t5study: {ask}.")


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
