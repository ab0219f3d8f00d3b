"""The published layout: Hugging Face T5 folders, read and written.

    config.json               written by us, because transformers' own loses what v1.1 is (see `_config_of`)
    model.safetensors         float32, under the names that transformers knows
    generation_config.json
    spiece.model              the vocabulary, as it was given
    tokenizer.json, tokenizer_config.json     the same vocabulary for transformers (tokenizer.py)
    README.md                 the model card: how it was made, digests, how to use it (card.py)
    manifest.json             size and xxh3 digest of each; checked whenever it is there

Any T5 of version 1.0 or 1.1 (and mT5) in safetensors can be read, in one file or in several. Nothing is ever
unpickled, nothing outside the folder is opened, and no number is used before names, shapes, types and (where there is
a manifest) digests have been checked.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from t5study.ground.errors import UserError
from t5study.ground.pairs import EOS, PAD, Ids
from t5study.ground.store import MANIFEST, code_version, digest_file, fingerprint, whole_folder, write_json
from t5study.model.architectures import EncoderDecoder
from t5study.model.card import write_card
from t5study.model.shapes import BUCKETS, MAX_DISTANCE, Shape
from t5study.model.tokenizer import write_tokenizer
from t5study.model.untrusted import FORMAT, WEIGHTS, Stored, inside, json_object, listed_files, open_weights
from t5study.vocab import Vocab

VOCAB = "spiece.model"
WRITTEN = (
    "config.json",
    WEIGHTS,
    "generation_config.json",
    VOCAB,
    "tokenizer.json",
    "tokenizer_config.json",
    "README.md",
)
EPSILON = 1e-6  # of the RMS norm, in every released model
ACTIVATIONS = {"relu": ("relu", "relu"), "gated_gelu": ("gated-gelu", "gelu_new")}  # feed_forward_proj, dense_act_fn
_MOST_ROWS, _WIDEST, _MOST_LAYERS = 1 << 24, 1 << 20, 1000
# Tables padded further than to a multiple of 128 are harmless; more than this is another model's vocabulary.
_MOST_UNUSED_ROWS = 1024


# --- names --------------------------------------------------------------------------------------------------------


def published(name: str) -> str:
    """The published name of a weight.

    >>> published("encoder.layers.3.attention.q"), published("decoder.layers.0.feed.wi_1")
    ('encoder.block.3.layer.0.SelfAttention.q.weight', 'decoder.block.0.layer.2.DenseReluDense.wi_1.weight')
    >>> published("decoder.layers.1.cross.norm"), published("decoder.norm"), published("embedding")
    ('decoder.block.1.layer.1.layer_norm.weight', 'decoder.final_layer_norm.weight', 'shared.weight')
    """
    if name in ("embedding", "head"):
        return {"embedding": "shared.weight", "head": "lm_head.weight"}[name]
    stack, _, rest = name.partition(".")
    if rest == "norm":
        return f"{stack}.final_layer_norm.weight"
    if rest == "bias":
        return f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    _, layer, part, matrix = rest.split(".")
    last = 1 if stack == "encoder" else 2
    place, title = {
        "attention": (0, "SelfAttention"),
        "cross": (1, "EncDecAttention"),
        "feed": (last, "DenseReluDense"),
    }[part]
    if matrix == "norm":
        return f"{stack}.block.{layer}.layer.{place}.layer_norm.weight"
    return f"{stack}.block.{layer}.layer.{place}.{title}.{'o' if matrix == 'out' else matrix}.weight"


# Keys that some published files hold and no T5 uses: the table that old code made in the first cross-attention.
_STRAY = re.compile(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight")
_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")  # of shared.weight


# --- writing ------------------------------------------------------------------------------------------------------


def save_released(model: EncoderDecoder, folder: Path, vocab_path: Path, **card: Any) -> None:
    """Writes a model that transformers, t5study and anything else that reads safetensors can load.

    A folder that is not there appears whole or not at all. One that is there (a stage under way) is written into,
    each file whole, manifest.json last. card: what the model card says of how the model was made, by name; see
    `card.write_card`. UserError if the vocabulary is not the model's.
    """
    folder = Path(folder)
    vocab = Vocab.load(vocab_path)
    check_vocab(model.shape, vocab.ids, vocab_path)
    for stack in ("encoder", "decoder"):
        if not getattr(model.shape, f"{stack}_layers"):
            raise UserError(f"{folder}: a model without {stack} layers has no place in the published layout")
    if folder.exists():
        (folder / MANIFEST).unlink(missing_ok=True)
        _fill(model, folder, vocab, card)
    else:
        with whole_folder(folder) as work:
            _fill(model, work, vocab, card)


def _fill(model: EncoderDecoder, folder: Path, vocab: Vocab, card: Mapping[str, Any]) -> None:
    write_json(folder / "config.json", _config_of(model.shape))
    write_json(
        folder / "generation_config.json",
        {"decoder_start_token_id": PAD, "eos_token_id": EOS, "pad_token_id": PAD},
    )
    with _beside(folder / VOCAB) as path:
        shutil.copyfile(vocab.path, path)
    write_tokenizer(folder, vocab)
    tensors = {published(name): weight.detach().float().cpu().contiguous() for name, weight in model.named_parameters()}
    with _beside(folder / WEIGHTS) as path:
        save_file(tensors, path, metadata={"format": "pt"})
        shutil.copymode(folder / "config.json", path)  # the library lets nobody else read its files
    with _beside(folder / "README.md") as path:
        write_card(path, folder, model.shape, vocab, card)
    files = {
        name: {"bytes": (folder / name).stat().st_size, "xxh3": digest_file(folder / name)}
        for name in WRITTEN
        if (folder / name).exists()
    }
    about = json.loads(json.dumps(card, default=str))
    write_json(
        folder / MANIFEST,
        {"format": FORMAT, "value": None, "parents": [], "code": code_version(), "files": files, "card": about},
    )


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A name to write to, which takes the place of `path` once it is written and synced."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield beside
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _config_of(shape: Shape) -> dict[str, Any]:
    """config.json. `tie_word_embeddings` and `scale_decoder_outputs` are both written, because transformers 4 goes by
    the first and 5 by the second, and either alone turns a v1.1 model into another one without a word."""
    projection, act = ACTIVATIONS[shape.activation]
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "d_model": shape.d_model,
        "d_ff": shape.d_ff,
        "d_kv": shape.d_kv,
        "num_heads": shape.heads,
        "num_layers": shape.encoder_layers,
        "num_decoder_layers": shape.decoder_layers,
        "vocab_size": shape.table_rows,
        "feed_forward_proj": projection,
        "dense_act_fn": act,
        "is_gated_act": shape.activation == "gated_gelu",
        "tie_word_embeddings": shape.tied,
        "scale_decoder_outputs": shape.tied,
        "relative_attention_num_buckets": BUCKETS,
        "relative_attention_max_distance": MAX_DISTANCE,
        "layer_norm_epsilon": EPSILON,
        "initializer_factor": 1.0,
        "dropout_rate": 0.1,
        "is_encoder_decoder": True,
        "use_cache": True,
        "pad_token_id": PAD,
        "eos_token_id": EOS,
        "decoder_start_token_id": PAD,
        "dtype": "float32",
        "torch_dtype": "float32",
    }


def check_vocab(shape: Shape, ids: Ids, path: Path) -> None:
    """UserError if a vocabulary is not the one that a model of this shape was made for, as far as sizes tell."""
    if not ids.size <= shape.table_rows < ids.size + _MOST_UNUSED_ROWS:
        raise UserError(
            f"{path}: found a vocabulary of {ids.size:,} ids (table of {ids.table_rows:,} rows), but the model's table "
            f"has {shape.table_rows:,} rows; give the vocabulary the model was trained with"
        )


# --- reading ------------------------------------------------------------------------------------------------------


def load_released(folder: Path) -> tuple[EncoderDecoder, Shape]:
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


def load_vocab(folder: Path, shape: Shape, path: Path | None = None) -> Vocab:
    """The vocabulary in a released folder, or the one given, if it fits the model. transformers 5 saves none."""
    folder = Path(folder)
    if path is None and not (folder / VOCAB).exists():
        raise UserError(f"{folder}: has no {VOCAB}; copy the model's own .model there, or give it with --vocab")
    vocab = Vocab.load(path or folder / VOCAB)
    check_vocab(shape, vocab.ids, vocab.path)
    return vocab


def digest(folder: Path) -> str:
    """32 hex characters that name the weights of a released folder, in one file or in several."""
    folder = Path(folder)
    names = sorted(path.name for path in folder.glob("model*.safetensors"))
    digests = [digest_file(folder / name) for name in names]
    return digests[0] if len(digests) == 1 else fingerprint(digests)


def _load(folder: Path) -> tuple[EncoderDecoder, Shape]:
    listed = listed_files(folder)
    config = json_object(folder, "config.json", listed)
    with ExitStack() as stack:
        found = open_weights(folder, listed, stack)
        shape, head = _shape(folder / "config.json", config, found)
        model = _checked_model(folder, shape, head, found)
        for name, weight in model.named_parameters():
            weight.detach().copy_(found[head if name == "head" else published(name)].read())
        _check_copies(folder, found)
        _check_head(folder, config, shape, model, found)
    if (folder / VOCAB).exists():
        check_vocab(shape, Vocab.load(inside(folder, VOCAB, listed)).ids, folder / VOCAB)
    return model, shape


# --- what a folder must hold --------------------------------------------------------------------------------------


def _shape(path: Path, config: Mapping[str, Any], found: Mapping[str, Stored]) -> tuple[Shape, str]:
    """The shape that config.json and the weights agree on, and the name of the weight that is the head.

    What the decoder's output is multiplied with goes by `scale_decoder_outputs` where it is written (transformers 5),
    else by `tie_word_embeddings` (transformers 4). A model that shares its table without the scaling, as transformers
    5 trains them, is read as an untied one whose head starts as the table: the same function.
    """

    def whole(name: str, most: int, default: int | None = None) -> int:
        value = config.get(name, default)
        if type(value) is not int or not 1 <= value <= most:
            raise UserError(f"{path}: field {name}: found {value!r}; a T5 has a whole number from 1 to {most:,}")
        return value

    def same(name: str, wanted: Any) -> None:
        if config.get(name, wanted) != wanted:
            raise UserError(
                f"{path}: field {name}: found {config[name]!r}; every T5 has {wanted}, other models are not read"
            )

    if config.get("model_type", "t5") not in ("t5", "mt5"):
        raise UserError(f"{path}: field model_type: found {config['model_type']!r}; give a folder of a T5 (or mT5)")
    same("relative_attention_num_buckets", BUCKETS)
    same("relative_attention_max_distance", MAX_DISTANCE)
    same("layer_norm_epsilon", EPSILON)
    projections = {projection: name for name, (projection, _) in ACTIVATIONS.items()}
    default = "gated-gelu" if config.get("model_type") == "mt5" else "relu"
    if (projection := config.get("feed_forward_proj", default)) not in projections:
        raise UserError(f"{path}: field feed_forward_proj: found {projection!r}; give a model with relu or gated-gelu")
    share = config.get("tie_word_embeddings", True)
    scaled = config.get("scale_decoder_outputs", share is not False)
    for name, value in (("tie_word_embeddings", share), ("scale_decoder_outputs", scaled)):
        if not isinstance(value, bool):
            raise UserError(f"{path}: field {name}: found {value!r}; write true or false")
    head = "lm_head.weight" if "lm_head.weight" in found or not share else published("embedding")
    layers = whole("num_layers", _MOST_LAYERS)
    decoder_layers = layers if config.get("num_decoder_layers") is None else whole("num_decoder_layers", _MOST_LAYERS)
    shape = Shape(
        d_model=whole("d_model", _WIDEST),
        d_ff=whole("d_ff", _WIDEST),
        d_kv=whole("d_kv", _WIDEST),
        heads=whole("num_heads", _WIDEST),
        encoder_layers=layers,
        decoder_layers=decoder_layers,
        table_rows=whole("vocab_size", _MOST_ROWS),
        activation=projections[projection],
        tied=scaled,
    )
    return shape, head


def _checked_model(folder: Path, shape: Shape, head: str, found: dict[str, Stored]) -> EncoderDecoder:
    """A model to fill, once names, shapes and types are known to be right. Nothing is allocated before that."""
    embedding = published("embedding")
    for copy in _COPIES:
        if embedding not in found and copy in found:
            found[embedding] = found.pop(copy)
    with torch.device("meta"):
        sketch = EncoderDecoder(shape)
    wanted = {published(name): tuple(weight.shape) for name, weight in sketch.named_parameters() if name != "head"}
    wanted |= {copy: wanted[embedding] for copy in (head, *_COPIES) if copy in found or copy == head}
    unknown = [name for name in found if name not in wanted and not _STRAY.fullmatch(name)]
    shapes = {
        name: f"found {_by(found[name].shape)}, needs {_by(form)}"
        for name, form in wanted.items()
        if name in found and found[name].shape != form
    }
    types = {
        name: f"found {found[name].type}"
        for name in wanted
        if name in found and found[name].type not in ("F32", "F16", "BF16", "F64")
    }
    wrong = [
        _several("missing", [name for name in wanted if name not in found]),
        _several("unknown", sorted(unknown)),
        _several("of another shape", [f"{name}: {told}" for name, told in shapes.items()]),
        _several("of a type that is no floating-point number", [f"{name}: {told}" for name, told in types.items()]),
    ]
    if any(wrong):
        raise UserError(
            f"{folder}: the weights do not fit config.json: {'; '.join(filter(None, wrong))}; "
            "write or download the folder again"
        )
    return EncoderDecoder(shape)


def _by(form: tuple[int, ...]) -> str:
    return "x".join(map(str, form))


def _several(what: str, names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{len(names)} {what} ({', '.join(names[:3])}{more})" if names else ""


def _check_copies(folder: Path, found: Mapping[str, Stored]) -> None:
    for copy in _COPIES:
        if copy in found and not torch.equal(found[copy].read(), found[published("embedding")].read()):
            raise UserError(f"{folder}: {copy} differs from shared.weight; T5 has one table for both")


def _check_head(
    folder: Path, config: Mapping[str, Any], shape: Shape, model: EncoderDecoder, found: Mapping[str, Stored]
) -> None:
    """A file may hold the head of a tied model too, if it is the table. If it is not, readers disagree about what the
    model is: transformers 4 drops it, transformers 5 keeps it."""
    if shape.tied and "lm_head.weight" in found and not torch.equal(found["lm_head.weight"].read(), model.embedding):
        raise UserError(
            f"{folder}: lm_head.weight differs from shared.weight, though config.json says they are one; set "
            "tie_word_embeddings and scale_decoder_outputs to false there if this is a v1.1 model"
        )
