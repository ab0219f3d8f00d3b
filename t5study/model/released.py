"""The published layout: Hugging Face T5 folders, read and written.

    config.json               written by us, because transformers' own loses what v1.1 is (config.py)
    model.safetensors         float32, under the names that transformers knows (names.py); large models in several
                              files with model.safetensors.index.json
    adapters.safetensors      adapter sub-layers, which the layout has no names for
    generation_config.json
    spiece.model              the vocabulary, as it was given; a model that reads bytes has none
    tokenizer.json, tokenizer_config.json     the same vocabulary for transformers (tokenizer.py)
    README.md                 the model card: how it was made, digests, how to use it (card.py)
    manifest.json             size and xxh3 digest of each; checked whenever it is there

A language model has no place in that layout. Its folder has language_model.safetensors instead, under our own names,
so that transformers refuses it rather than fill a T5 with random numbers.

Any T5 of version 1.0 or 1.1 (mT5, ByT5, Flan-T5) in safetensors can be read, in one file or in several. Nothing is
ever unpickled, nothing outside the folder is opened, and no number is used before names, shapes, types and (where
there is a manifest) digests have been checked.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from t5study import vocab as vocabularies
from t5study.ground.errors import UserError
from t5study.ground.fingerprint import fingerprint
from t5study.ground.pairs import EOS, PAD, Ids
from t5study.ground.store import MANIFEST, code_version, digest_file, whole_file, whole_folder, write_json
from t5study.model.architectures import EncoderDecoder, LanguageModel, Model
from t5study.model.card import write_card
from t5study.model.config import (
    BYTE_TOKENIZER,
    SHARED,
    Described,
    architecture_of,
    config_of,
    described,
)
from t5study.model.fitting import check, check_copies, fill
from t5study.model.names import COPIES, STRAY, published
from t5study.model.shapes import LANGUAGE_MODELS, Shape
from t5study.model.tokenizer import write_tokenizer
from t5study.model.untrusted import (
    ADAPTERS,
    FORMAT,
    INDEX,
    LANGUAGE_MODEL,
    WEIGHTS,
    Stored,
    inside,
    json_object,
    listed_files,
    open_file,
    open_weights,
)
from t5study.vocab import AnyVocab, ByteVocab, Vocab

VOCAB = "spiece.model"
EMBEDDING, HEAD = published("embedding"), published("head")
SHARD_BYTES = 5 * 10**9  # of a file of weights; larger models are written in several
# Tables padded further than to a multiple of 128 are harmless; more than this is another model's vocabulary.
_MOST_UNUSED_ROWS = 1024


# --- writing ------------------------------------------------------------------------------------------------------


def save_released(
    model: Model, folder: Path, vocab_path: Path | None, *, shard_bytes: int = SHARD_BYTES, **card: Any
) -> None:
    """Writes a model that transformers, t5study and anything else that reads safetensors can load.

    A folder that is not there appears whole or not at all. One that is there (a stage under way) is written into,
    each file whole, manifest.json last. vocab_path: a `.model`; None for the byte vocabulary. shard_bytes: the most
    bytes of weights in a file. card: what the model card says of how the model was made, by name; see
    `card.write_card`. UserError if the vocabulary is not the model's.
    """
    folder = Path(folder)
    vocab = ByteVocab() if vocab_path is None else Vocab.load(vocab_path)
    check_vocab(model.shape, vocab)
    if folder.exists():
        (folder / MANIFEST).unlink(missing_ok=True)
        _fill(model, folder, vocab, shard_bytes, card)
    else:
        with whole_folder(folder) as work:
            _fill(model, work, vocab, shard_bytes, card)


def _fill(model: Model, folder: Path, vocab: AnyVocab, shard_bytes: int, card: Mapping[str, Any]) -> None:
    for stale in (*folder.glob("model-*.safetensors"), folder / INDEX, folder / WEIGHTS, folder / "tokenizer.json"):
        stale.unlink(missing_ok=True)
    byte_class = {"tokenizer_class": BYTE_TOKENIZER} if isinstance(vocab, ByteVocab) else {}
    write_json(folder / "config.json", config_of(model.shape, model.architecture) | byte_class)
    write_json(
        folder / "generation_config.json",
        {"decoder_start_token_id": PAD, "eos_token_id": EOS, "pad_token_id": PAD},
    )
    if isinstance(vocab, Vocab):
        with whole_file(folder / VOCAB) as path:
            shutil.copyfile(vocab.path, path)
    write_tokenizer(folder, vocab)
    weights = _write_weights(model, folder, shard_bytes)
    vocabulary = [VOCAB] if isinstance(vocab, Vocab) else []
    with whole_file(folder / "README.md") as path:
        write_card(path, [folder / name for name in [*weights, *vocabulary]], model, vocab, card)
    names = ["config.json", "generation_config.json", "README.md", "tokenizer_config.json", *vocabulary, *weights]
    names += [name for name in ("tokenizer.json", INDEX) if (folder / name).exists()]
    files = {
        name: {"bytes": (folder / name).stat().st_size, "xxh3": digest_file(folder / name)} for name in sorted(names)
    }
    about = json.loads(json.dumps(card, default=str))
    write_json(
        folder / MANIFEST,
        {"format": FORMAT, "value": None, "parents": [], "code": code_version(), "files": files, "card": about},
    )


def _write_weights(model: Model, folder: Path, shard_bytes: int) -> list[str]:
    """Writes the weights; returns the names of their files."""
    tensors = {name: weight.detach().float().cpu().contiguous() for name, weight in model.named_parameters()}
    if model.architecture in LANGUAGE_MODELS:
        _save(tensors, folder / LANGUAGE_MODEL)
        return [LANGUAGE_MODEL]
    adapters = {name: tensors.pop(name) for name in list(tensors) if ".adapter." in name}
    stored = {published(name): tensor for name, tensor in tensors.items()}
    for copy, name in _twins(model).items():  # a safetensors file holds no number under two names
        stored[copy] = stored[name].clone()
    shards = _shards(stored, shard_bytes)
    names = (
        [WEIGHTS]
        if len(shards) == 1
        else [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    )
    for name, shard in zip(names, shards, strict=True):
        _save(shard, folder / name)
    if len(shards) > 1:
        places = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        total = sum(tensor.nbytes for tensor in stored.values())
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})
    if adapters:
        _save(adapters, folder / ADAPTERS)
        names.append(ADAPTERS)
    return names


def _shards(tensors: Mapping[str, Tensor], most: int) -> list[dict[str, Tensor]]:
    """In order, as many to a file as have room in it; a tensor larger than a file gets one for itself."""
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > most:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    return shards


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    with whole_file(path) as beside:
        save_file(tensors, beside, metadata={"format": "pt"})
        shutil.copymode(path.parent / "config.json", beside)  # the library lets nobody else read its files


def check_vocab(shape: Shape, vocab: AnyVocab) -> None:
    """UserError if a vocabulary is not the one that a model of this shape was made for, as far as sizes tell."""
    ids: Ids = vocab.ids
    if not ids.size <= shape.table_rows < ids.size + _MOST_UNUSED_ROWS:
        raise UserError(
            f"{vocab.path or 'bytes'}: found a vocabulary of {ids.size:,} ids (table of {ids.table_rows:,} rows), but "
            f"the model's table has {shape.table_rows:,} rows; give the vocabulary the model was trained with"
        )


# --- reading ------------------------------------------------------------------------------------------------------


def load_released(folder: Path) -> tuple[EncoderDecoder | LanguageModel, Shape]:
    """A model in float32 on the CPU, and its shape. UserError, in one line, for all that is not as it should be."""
    folder = Path(folder)
    if not folder.is_dir():
        told = "found a file" if folder.exists() else "no such folder"
        raise UserError(f"{folder}: {told}; give a folder with config.json and model.safetensors")
    try:
        return _load(folder)
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: cannot be read ({error.strerror}); check its permissions"
        ) from None


def shape_of(folder: Path) -> Shape:
    """The shape of a folder's model, without its weights being read."""
    listed = listed_files(folder)
    with ExitStack() as stack:
        config = json_object(folder, "config.json", listed)
        return described(folder / "config.json", config, HEAD in _opened(folder, config, listed, stack)).shape


def load_vocab(folder: Path, shape: Shape, path: Path | None = None) -> AnyVocab:
    """The vocabulary in a released folder, or the one given ("bytes", or a `.model`), if it fits the model.

    A folder whose tokenizer_class is ByT5's needs none: its vocabulary is the bytes. transformers 5 saves none.
    """
    folder = Path(folder)
    if path is not None:
        vocab = vocabularies.load_vocab(path)
    elif (folder / VOCAB).exists():
        vocab = Vocab.load(folder / VOCAB)
    elif _reads_bytes(folder):
        vocab = ByteVocab()
    else:
        raise UserError(f"{folder}: has no {VOCAB}; copy the model's own .model there, or give it with --vocab")
    check_vocab(shape, vocab)
    return vocab


def digest(folder: Path) -> str:
    """32 hex characters that name the weights of a released folder, in one file or in several."""
    digests = [digest_file(path) for path in sorted(Path(folder).glob("*.safetensors"))]
    return digests[0] if len(digests) == 1 else fingerprint(digests)


def card_of(folder: Path) -> dict[str, Any]:
    """What a folder that we wrote says of how its model was made; nothing for other folders."""
    if not (folder / MANIFEST).exists():
        return {}
    card = json_object(folder, MANIFEST, {}).get("card")
    return card if isinstance(card, dict) else {}


def _reads_bytes(folder: Path) -> bool:
    """Whether a folder says that its vocabulary is the bytes, as ByT5's do: in either of two files."""
    places = [name for name in ("tokenizer_config.json", "config.json") if (folder / name).exists()]
    said = [json_object(folder, name, {}).get("tokenizer_class") for name in places]
    return BYTE_TOKENIZER in said


def _load(folder: Path) -> tuple[EncoderDecoder | LanguageModel, Shape]:
    listed = listed_files(folder)
    config = json_object(folder, "config.json", listed)
    with ExitStack() as stack:
        found = _opened(folder, config, listed, stack)
        told = described(folder / "config.json", config, HEAD in found)
        if told.shape.adapter and told.architecture not in LANGUAGE_MODELS:
            found |= open_file(folder, ADAPTERS, listed, stack)
        for copy in COPIES:
            if EMBEDDING not in found and copy in found:
                found[EMBEDDING] = found.pop(copy)
        with torch.device("meta"):
            sketch = _unfilled(told)
        names = _stored(sketch, told)
        forms = {names[name]: tuple(weight.shape) for name, weight in sketch.named_parameters()}
        twins = _twins(sketch)
        optional = {copy: EMBEDDING for copy in (*COPIES, HEAD) if copy in found and copy not in forms}
        check(folder, forms | {copy: forms[name] for copy, name in (twins | optional).items()}, found, passed=[STRAY])
        model = _unfilled(told)
        fill(model, names, found)
        check_copies(folder, twins | optional, found)
    if (folder / VOCAB).exists():
        check_vocab(told.shape, Vocab.load(inside(folder, VOCAB, listed)))
    return model, told.shape


def _opened(folder: Path, config: Mapping[str, Any], listed: Mapping[str, Any], stack: ExitStack) -> dict[str, Stored]:
    if architecture_of(folder / "config.json", config) in LANGUAGE_MODELS:
        return open_file(folder, LANGUAGE_MODEL, listed, stack)
    return open_weights(folder, listed, stack)


def _stored(model: Model, told: Described) -> dict[str, str]:
    """What each weight of ours is called in a folder."""
    foreign = told.architecture in LANGUAGE_MODELS
    names = [name for name, _ in model.named_parameters()]
    stored = {name: name if foreign or ".adapter." in name else published(name) for name in names}
    return stored | ({"head": stored[told.head]} if "head" in stored else {})


def _unfilled(told: Described) -> EncoderDecoder | LanguageModel:
    """A model without numbers: under torch.device("meta") to compare names and shapes with, else to fill."""
    if told.architecture in LANGUAGE_MODELS:
        return LanguageModel(told.shape, prefix=told.architecture == "prefix_lm")
    return EncoderDecoder(told.shape, shared=told.architecture == SHARED)


def _twins(model: Model) -> dict[str, str]:
    """Names in the published layout that hold the numbers of another: the decoder's half of a model whose stacks share
    their layers, which makes it an ordinary T5 to everybody else."""
    if model.architecture != SHARED:
        return {}
    names = [name for name, _ in model.named_parameters() if name.startswith("encoder.layers.")]
    own = [name for name in names if ".adapter." not in name]
    return {published(name.replace("encoder", "decoder", 1)): published(name) for name in own}
