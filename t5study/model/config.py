"""config.json: what a folder says its model is, written and read.

transformers 4 and 5 go by different fields, and either alone turns a v1.1 model into another one without a word:

    written by                     tie_word_embeddings   scale_decoder_outputs   decoder's output is scaled
    Google, transformers 4, v1.0   absent or true        absent                  yes
    Google, transformers 4, v1.1   false                 absent                  no
    transformers 5, v1.0 / v1.1    true / true           true / false            as the second says
    transformers 5, mT5            true                  absent                  no: its mT5 never scales
    t5study                        true / false          the same                as both say

What the published layout has no word for is said in fields of our own: `architecture` and `adapter`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t5study.ground.errors import UserError
from t5study.ground.pairs import EOS, PAD
from t5study.model.shapes import ARCHITECTURES, BUCKETS, LANGUAGE_MODELS, MAX_DISTANCE, Shape, check

EPSILON = 1e-6  # of the RMS norm, in every released model
ACTIVATIONS = {"relu": ("relu", "relu"), "gated_gelu": ("gated-gelu", "gelu_new")}  # feed_forward_proj, dense_act_fn
BYTE_TOKENIZER = "ByT5Tokenizer"  # tokenizer_class of a model whose vocabulary is the bytes
ENCODER_DECODER, SHARED = "encoder_decoder", "shared_encoder_decoder"
_MOST_ROWS, _WIDEST, _MOST_LAYERS = 1 << 24, 1 << 20, 1000


@dataclass(frozen=True)
class Described:
    """shape, architecture: of the model. head: which weight of ours the softmax matrix of an untied one is read from:
    "head", or "embedding" where both are one table but nothing is scaled."""

    shape: Shape
    architecture: str
    head: str


def config_of(shape: Shape, architecture: str) -> dict[str, Any]:
    """config.json of a model. transformers knows no language model of this kind, so it gets no `model_type` of its."""
    projection, act = ACTIVATIONS[shape.activation]
    foreign = architecture in LANGUAGE_MODELS
    own: dict[str, Any] = {} if architecture == ENCODER_DECODER else {"architecture": architecture}
    own |= {"adapter": shape.adapter} if shape.adapter else {}
    return own | {
        "architectures": ["T5StudyLanguageModel" if foreign else "T5ForConditionalGeneration"],
        "model_type": "t5study" if foreign else "t5",
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
        "is_encoder_decoder": not foreign,
        "use_cache": True,
        "pad_token_id": PAD,
        "eos_token_id": EOS,
        "decoder_start_token_id": PAD,
        "dtype": "float32",
        "torch_dtype": "float32",
    }


def architecture_of(path: Path, config: Mapping[str, Any]) -> str:
    """The architecture that config.json names; without a name it is the encoder-decoder."""
    found = config.get("architecture", ENCODER_DECODER)
    if found not in ARCHITECTURES:
        raise UserError(f"{path}: field architecture: found {found!r}; this t5study knows {', '.join(ARCHITECTURES)}")
    return found


def described(path: Path, config: Mapping[str, Any], head_is_there: bool) -> Described:
    """What config.json describes. path: of the file, for what is said of it. head_is_there: whether the weights hold
    lm_head.weight. UserError, with the field, for what is no T5 or none that can be.

    A model that shares its table without the scaling, as transformers 5 trains them, is described as an untied one
    whose head is the table: the same function.
    """

    def whole(name: str, most: int, least: int = 1, default: int | None = None) -> int:
        value = config.get(name, default)
        if type(value) is not int or not least <= value <= most:
            raise UserError(f"{path}: field {name}: found {value!r}; a T5 has a whole number from {least} to {most:,}")
        return value

    def same(name: str, wanted: Any) -> None:
        if config.get(name, wanted) != wanted:
            raise UserError(
                f"{path}: field {name}: found {config[name]!r}; every T5 has {wanted}, other models are not read"
            )

    architecture = architecture_of(path, config)
    kinds = ("t5study",) if architecture in LANGUAGE_MODELS else ("t5", "mt5")
    if config.get("model_type", kinds[0]) not in kinds:
        raise UserError(f"{path}: field model_type: found {config['model_type']!r}; give a folder of a T5 (or mT5)")
    same("relative_attention_num_buckets", BUCKETS)
    same("relative_attention_max_distance", MAX_DISTANCE)
    same("layer_norm_epsilon", EPSILON)
    projections = {projection: name for name, (projection, _) in ACTIVATIONS.items()}
    default = "gated-gelu" if config.get("model_type") == "mt5" else "relu"
    if (projection := config.get("feed_forward_proj", default)) not in projections:
        raise UserError(f"{path}: field feed_forward_proj: found {projection!r}; give a model with relu or gated-gelu")
    shared, scaled = _ends(path, config)
    layers = whole("num_layers", _MOST_LAYERS, least=0 if architecture in LANGUAGE_MODELS else 1)
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
        adapter=whole("adapter", _WIDEST, least=0, default=0),
    )
    try:
        check(shape, architecture)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return Described(shape, architecture, "head" if head_is_there or not shared else "embedding")


def _ends(path: Path, config: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether embedding and softmax share one table, and whether the decoder's output is scaled: see the top."""
    multilingual = config.get("model_type") == "mt5"
    share = config.get("tie_word_embeddings", not multilingual)
    scales = not (multilingual and str(config.get("transformers_version", "")).partition(".")[0] not in ("", "3", "4"))
    scaled = config.get("scale_decoder_outputs", share is not False and scales)
    for name, value in (("tie_word_embeddings", share), ("scale_decoder_outputs", scaled)):
        if not isinstance(value, bool):
            raise UserError(f"{path}: field {name}: found {value!r}; write true or false")
    return share, scaled
