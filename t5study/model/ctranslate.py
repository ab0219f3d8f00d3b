"""CTranslate2: a model written for it, and that model asked. The optional, faster way to answers on a CPU.

Its own converter (4.8) reads transformers' model objects, which since transformers 5 say of every T5 that its ends are
tied: an untied model comes out scaled by d_model^-0.5, wrong by tens of nats. So the weights are laid out here from our
own, with the scale that the shape has, and nothing of transformers is needed.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from t5study.ground.errors import UserError
from t5study.ground.pairs import EOS, PAD, UNK
from t5study.ground.store import write_manifest
from t5study.model.architectures import EncoderDecoder, Model
from t5study.model.shapes import MAX_DISTANCE
from t5study.vocab import AnyVocab, ByteVocab

_NAMES = {PAD: "<pad>", EOS: "</s>", UNK: "<unk>"}


def library(name: str = "ctranslate2") -> Any:
    """The package, or one of its modules. UserError where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError("ctranslate2: is not installed; pip install 't5study[ctranslate2]'") from None


def write_ctranslate(model: Model, folder: Path, vocab: AnyVocab, **facts: Any) -> None:
    """Fills a folder with model.bin, config.json, shared_vocabulary.json and a manifest that holds `facts`.

    UserError for a model that CTranslate2 has no place for.
    """
    if not isinstance(model, EncoderDecoder) or model.shape.adapter:
        what = "adapters" if model.shape.adapter else f"a {model.architecture}"
        raise UserError(f"{folder}: CTranslate2 has no place for {what}; answer with --backend torch")
    spec = _spec(model)
    names = spell(vocab, model.shape.table_rows)
    spec.register_source_vocabulary(names)
    spec.register_target_vocabulary(names)
    spec.config.bos_token = spec.config.decoder_start_token = _NAMES[PAD]
    spec.config.eos_token, spec.config.unk_token = _NAMES[EOS], _NAMES[UNK]
    spec.validate()
    spec.save(str(folder))
    write_manifest(folder, **facts)


def spell(vocab: AnyVocab, rows: int) -> list[str]:
    """A name for every row of the table, no two alike: pieces as SentencePiece has them, bytes as the characters of
    their number (as transformers names them), the rows that pad the table <unused_N>."""
    if isinstance(vocab, ByteVocab):
        names = [*_NAMES.values(), *(chr(byte) for byte in range(256))]
    else:
        names = [*_NAMES.values(), *vocab.pieces[UNK + 1 :]]
        names += [f"<extra_id_{k}>" for k in reversed(range(vocab.ids.sentinels))]
    return names + [f"<unused_{i}>" for i in range(len(names), rows)]


def _spec(model: EncoderDecoder) -> Any:
    """The model as CTranslate2 specifies one: https://opennmt.net/CTranslate2/guides/transformers.html#t5"""
    specs = library("ctranslate2.specs")
    shape, activation = model.shape, library("ctranslate2.specs.common_spec").Activation
    spec = specs.TransformerSpec.from_config(
        (shape.encoder_layers, shape.decoder_layers),
        shape.heads,
        pre_norm=True,
        activation=activation.RELU if shape.activation == "relu" else activation.GELUTanh,
        ffn_glu=shape.activation == "gated_gelu",
        relative_attention_bias=True,
        rms_norm=True,
    )
    embedding = _numbers(model.embedding)
    for stack, ours in ((spec.encoder, model.encoder), (spec.decoder, model.decoder)):
        tables = stack.embeddings if isinstance(stack.embeddings, list) else [stack.embeddings]
        tables[0].weight = embedding
        stack.scale_embeddings = False
        stack.layer_norm.gamma = _numbers(ours.norm)
        bias = _numbers(ours.bias)
        for there, layer in zip(stack.layer, ours, strict=True):
            own = there.self_attention
            own.relative_attention_bias = bias
            own.relative_attention_max_distance = np.int32(MAX_DISTANCE)
            _attention(own, layer.attention, ["qkv"])
            if stack is spec.decoder:
                _attention(there.attention, layer.cross, ["q", "kv"])
            feed = layer.feed
            there.ffn.layer_norm.gamma = _numbers(feed.norm)
            there.ffn.linear_0.weight = _numbers(feed.wi_0 if feed.gated else feed.wi)
            if feed.gated:
                there.ffn.linear_0_noact.weight = _numbers(feed.wi_1)
            there.ffn.linear_1.weight = _numbers(feed.wo)
    spec.decoder.projection.weight = embedding if model.head is None else _numbers(model.head)
    spec.decoder.scale_outputs = shape.logit_scale
    return spec


def _attention(there: Any, ours: Any, groups: Sequence[str]) -> None:
    """q, k and v, those of a group side by side, then out."""
    there.queries_scale = 1.0
    there.layer_norm.gamma = _numbers(ours.norm)
    for linear, group in zip(there.linear, groups, strict=False):
        linear.weight = np.concatenate([_numbers(getattr(ours, matrix)) for matrix in group])
    there.linear[-1].weight = _numbers(ours.out)


def _numbers(weight: Tensor) -> np.ndarray:
    return weight.detach().float().cpu().numpy()


# --- asking -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A model in CTranslate2's hands."""

    translator: Any
    names: list[str]
    ids: dict[str, int]

    @staticmethod
    def open(folder: Path, precision: str, threads: int, device: str = "cpu") -> Asked:
        """precision: float32 or int8, for which the weights are cut as they are read."""
        names = json.loads((folder / "shared_vocabulary.json").read_text(encoding="utf-8"))
        translator = library().Translator(str(folder), device=device, compute_type=precision, intra_threads=threads)
        return Asked(translator, names, {name: i for i, name in enumerate(names)})

    def answers(
        self, sources: Sequence[np.ndarray], max_length: int, beams: int, alpha: float, batch_rows: int
    ) -> list[tuple[np.ndarray, float]]:
        """Ids of each answer, EOS and padding left out, and its score as our own decoding has it: log-probability,
        for beams over ((5 + n) / 6)^alpha.

        CTranslate2's own search divides by n^alpha instead: of what it brings back, the best by T5's rule is taken.
        """
        found = self.translator.translate_batch(
            [[self.names[i] for i in source] for source in sources],
            max_batch_size=batch_rows,
            beam_size=beams,
            num_hypotheses=beams,
            length_penalty=0.0 if beams == 1 else alpha,
            max_input_length=0,
            max_decoding_length=max_length,
            min_decoding_length=0,
            return_scores=True,
            return_end_token=True,
        )
        return [self._best(one, beams, alpha) for one in found]

    def _best(self, result: Any, beams: int, alpha: float) -> tuple[np.ndarray, float]:
        best: tuple[np.ndarray, float] | None = None
        for names, score in zip(result.hypotheses, result.scores, strict=True):
            ids = np.array([self.ids[name] for name in names], np.int32)
            if beams > 1:
                score *= len(ids) ** alpha / ((5 + len(ids)) / 6) ** alpha
            if best is None or score > best[1]:
                best = ids[(ids != EOS) & (ids != PAD)], score
        assert best is not None
        return best

    def nats(self, sources: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> np.ndarray:
        """-log p(target | source) of each, float64. Targets end in EOS, which CTranslate2 adds itself."""
        rows = self.translator.score_batch(
            [[self.names[i] for i in source] for source in sources],
            [[self.names[i] for i in target[:-1]] for target in targets],
            max_input_length=0,
        )
        return np.array([-sum(row.log_probs) for row in rows])
