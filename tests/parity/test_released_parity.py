"""Parity with transformers through released folders: what we save it loads as the same function, what it saves we do,
and its tokenizer gives our ids."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from shared_data import SHARED

from t5study.ground.pairs import EOS, Batch, pad_rows
from t5study.model.architectures import EncoderDecoder, arrange, build
from t5study.model.released import load_released, save_released
from t5study.model.shapes import Shape
from t5study.vocab import ByteVocab, Vocab, train_vocab

transformers = pytest.importorskip("transformers")

TEXT = [
    "The quick brown fox jumps over the lazy dog, again and again, 1234567890 times.",
    "Thank you for inviting me to your party last week; naïve café ½ ™ (all of it)!",
    "A whale is large, a flea is small. \"Why?\" asked Zoë: 'because' & so on - $5 = 100 %.",
] * 30
V1_0 = {"activation": "relu", "tied": True}
V1_1 = {"activation": "gated_gelu", "tied": False}


@pytest.fixture(scope="module")
def vocab(tmp_path_factory: pytest.TempPathFactory) -> Vocab:
    path = tmp_path_factory.mktemp("vocab") / "v.model"
    train_vocab(TEXT, 88, path)
    return Vocab.load(path)


def _shape(vocab: Vocab, **changes) -> Shape:
    return Shape(
        d_model=32, d_ff=48, d_kv=8, heads=3, encoder_layers=2, decoder_layers=3,
        table_rows=vocab.ids.table_rows, **changes,
    )  # fmt: skip


def _trained(shape: Shape, seed: int) -> EncoderDecoder:
    """Weights of a size that training leads to: with fresh ones softmax sees scores near zero, and hides mistakes."""
    model = build(shape, seed)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        for name, weight in model.named_parameters():
            if name.endswith("norm"):
                weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.3)
            elif name.endswith(".q"):
                weight.mul_(4)
            elif name.endswith("bias"):
                weight.mul_(3)
    return model


def _rows(vocab: Vocab, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sources of up to 150 tokens, past the last bucket of the relative bias, and targets; ragged, EOS at the end."""
    random = np.random.default_rng(seed)

    def rows(lengths: list[int]) -> np.ndarray:
        return pad_rows([np.append(random.integers(3, vocab.ids.size, n - 1), EOS) for n in lengths])[0]

    return rows([150, 3, 40]), rows([37, 140, 2])


def _ours(model: EncoderDecoder, source_BS: np.ndarray, target_BT: np.ndarray) -> torch.Tensor:
    """Logits of the real target tokens, row after row."""

    def parts(block: np.ndarray) -> tuple[np.ndarray, ...]:
        segment = (block != 0).astype(np.int32)
        return block, segment, np.arange(block.shape[1], dtype=np.int32) * segment

    return model.logits(arrange(Batch(*parts(source_BS), *parts(target_BT))))


def _theirs(model, source_BS: np.ndarray, target_BT: np.ndarray) -> torch.Tensor:
    source = torch.from_numpy(source_BS).long()
    target = torch.from_numpy(target_BT).long()
    with torch.no_grad():
        logits = model.eval()(
            input_ids=source, attention_mask=(source != 0).long(), decoder_input_ids=model._shift_right(target)
        ).logits
    return logits[target != 0]


@pytest.mark.parametrize("version", [V1_0, V1_1], ids=["v1.0", "v1.1"])
def test_transformers_loads_what_we_save_as_the_same_function(tmp_path: Path, vocab: Vocab, version: dict):
    model = _trained(_shape(vocab, **version), 1)
    save_released(model, tmp_path / "ours", vocab.path)
    peer = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    rows = _rows(vocab, 2)
    ours, theirs = _ours(model, *rows), _theirs(peer, *rows)
    assert ours.std() > 0.1
    assert (ours - theirs).abs().max() <= 1e-5 * max(1.0, float(theirs.abs().max()))
    assert peer.generation_config.decoder_start_token_id == 0


@pytest.mark.parametrize("shards", ["1GB", "20KB"], ids=["one file", "shards"])
@pytest.mark.parametrize("version", [V1_0, V1_1], ids=["v1.0", "v1.1"])
def test_what_transformers_saves_comes_back_to_the_bit(tmp_path: Path, vocab: Vocab, version: dict, shards: str):
    """There and back: ours, read and saved again by transformers, read by us."""
    model = _trained(_shape(vocab, **version), 3)
    save_released(model, tmp_path / "ours", vocab.path)
    peer = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    peer.save_pretrained(tmp_path / "theirs", max_shard_size=shards)
    assert (tmp_path / "theirs" / "model.safetensors.index.json").exists() == (shards != "1GB")
    back, shape = load_released(tmp_path / "theirs")
    assert shape == model.shape
    weights = dict(back.named_parameters())
    assert all(torch.equal(weights[name], weight) for name, weight in model.named_parameters())


@pytest.mark.parametrize("projection", ["relu", "gated-gelu"])
def test_a_fresh_model_of_transformers(tmp_path: Path, vocab: Vocab, projection: str):
    """Built by its own class from its own config, which ties every head."""
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=vocab.ids.table_rows, d_model=32, d_ff=48, d_kv=8, num_layers=2, num_decoder_layers=3, num_heads=3,
        feed_forward_proj=projection, decoder_start_token_id=0, tie_word_embeddings=projection == "relu",
    )  # fmt: skip
    peer = transformers.T5ForConditionalGeneration(config)
    peer.save_pretrained(tmp_path / "theirs")
    model, shape = load_released(tmp_path / "theirs")
    assert shape.tied == (projection == "relu")
    rows = _rows(vocab, 4)
    ours, theirs = _ours(model, *rows), _theirs(peer, *rows)
    assert (ours - theirs).abs().max() <= 1e-5 * max(1.0, float(theirs.abs().max()))


# --- the tokenizer ------------------------------------------------------------------------------------------------

AWKWARD = [
    "", " ", "Thank you <extra_id_0> me to your party <extra_id_1> week.", "x<extra_id_99>y",
    "  spaces   and\ttabs\nlines  ",
    "naïve café ﬁne ½ ™ Ⅳ", "e\u0301 ÀÉ", "日本語 テスト", "😀😀 ok", "word" * 50, "\u3000wide\u00a0no-break\u200bzero",
    "▁ already ▁there", "a\u2028b", "a b", "ＦＵＬＬ　ｗｉｄｔｈ", "1/2 & 3 < 4", "don't \"quote\" it",
]  # fmt: skip


def _compare(vocab: Vocab, folder: Path, texts: list[str]) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == vocab.ids.size
    special = [tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id]
    assert special == [0, 1, 2]
    assert tokenizer.convert_tokens_to_ids("<extra_id_0>") == vocab.ids.size - 1
    assert tokenizer.convert_tokens_to_ids("<extra_id_99>") == vocab.ids.size - 100
    for text in texts:
        ours = [*vocab.encode(text, sentinels=True).tolist(), EOS]
        assert tokenizer(text).input_ids == ours, text
    plain = "Thank you for inviting me to your party last week."
    assert tokenizer.decode(vocab.encode(plain)) == vocab.decode(vocab.encode(plain)) == plain


def test_the_tokenizer_of_a_vocabulary_of_ours(tmp_path: Path, vocab: Vocab):
    save_released(build(_shape(vocab, **V1_0), 0), tmp_path / "m", vocab.path)
    _compare(vocab, tmp_path / "m", AWKWARD + TEXT[:3])
    # The file alone, as the tokenizers library reads it, and as transformers saves it again.
    from tokenizers import Tokenizer

    alone = Tokenizer.from_file(str(tmp_path / "m" / "tokenizer.json"))
    transformers.AutoTokenizer.from_pretrained(tmp_path / "m").save_pretrained(tmp_path / "again")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    for text in AWKWARD:
        ours = [*vocab.encode(text, sentinels=True).tolist(), EOS]
        assert alone.encode(text).ids == ours, text
        assert again(text).input_ids == ours, text


@pytest.mark.skipif(SHARED is None, reason="needs the published vocabulary")
def test_the_tokenizer_of_the_published_vocabulary(tmp_path: Path):
    assert SHARED is not None
    vocab = Vocab.load(SHARED / "tokenizer" / "t5_spiece.model")
    shape = Shape(d_model=4, d_ff=4, d_kv=2, heads=1, encoder_layers=1, decoder_layers=1, table_rows=32_128)
    save_released(build(shape, 0), tmp_path / "m", vocab.path)
    novel = (SHARED / "tokenizer" / "sentencepiece_test" / "botchan.txt").read_text(encoding="utf-8").split("\n")
    _compare(vocab, tmp_path / "m", AWKWARD + novel[:300])
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "m").convert_tokens_to_ids("<extra_id_0>") == 32_099


def test_the_tokenizer_of_bytes(tmp_path: Path):
    shape = Shape(d_model=4, d_ff=4, d_kv=2, heads=1, encoder_layers=1, decoder_layers=1, table_rows=384)
    save_released(build(shape, 0), tmp_path / "m", None)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    assert type(tokenizer).__name__ == "ByT5Tokenizer"
    for text in AWKWARD:
        if "<extra_id" not in text:
            assert tokenizer(text).input_ids == [*ByteVocab().encode(text).tolist(), EOS], text
    assert tokenizer.convert_tokens_to_ids("<extra_id_0>") == 259  # which no ByT5 was trained on; ours is 258


# --- what transformers has no words for ---------------------------------------------------------------------------


def test_a_shared_model_is_read_as_the_same_function(tmp_path: Path, vocab: Vocab):
    shape = replace(_shape(vocab, **V1_1), encoder_layers=3)
    model = build(shape, 7, "shared_encoder_decoder")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith((".q", "bias")):
                weight.mul_(4)
    save_released(model, tmp_path / "m", vocab.path)
    peer = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "m", dtype=torch.float32)
    rows = _rows(vocab, 2)
    ours, theirs = _ours(model, *rows), _theirs(peer, *rows)
    assert ours.std() > 0.1
    assert (ours - theirs).abs().max() <= 1e-5 * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize("architecture", ["language_model", "prefix_lm"])
def test_a_language_model_is_refused(tmp_path: Path, vocab: Vocab, architecture: str):
    save_released(build(replace(_shape(vocab), encoder_layers=0), 7, architecture), tmp_path / "m", vocab.path)
    with pytest.raises(OSError, match=r"model.safetensors"):
        transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "m")
    with pytest.raises(ValueError, match="t5study"):
        transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "m")


@pytest.mark.parametrize("version", [V1_0, V1_1], ids=["v1.0", "v1.1"])
def test_answers_are_those_of_transformers(tmp_path: Path, vocab: Vocab, version: dict):
    """Text in, text out, by each side's own tokenizer, model and greedy decoding."""
    from t5study.answer import answer

    save_released(_trained(_shape(vocab, **version), 6), tmp_path / "m", vocab.path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    peer = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "m", dtype=torch.float32).eval()
    prompts = [
        "A whale is large",
        "the lazy <extra_id_0> again",
        "",
        "Thank you for inviting me to your party last week",
    ]
    asked = tokenizer(prompts, return_tensors="pt", padding=True)
    wanted = peer.generate(**asked, max_new_tokens=12, do_sample=False, num_beams=1, use_cache=False)
    assert answer(tmp_path / "m", prompts, max_length=12) == [vocab.decode(ids.numpy()) for ids in wanted]
