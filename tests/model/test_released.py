"""Published folders: what is written comes back, and whatever is wrong with a folder is one line, before any weight
is used. Numbers are those of RELIABILITY's list of bad inputs where there is one."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from t5study.ground.errors import UserError
from t5study.ground.store import read_json, verify, write_json
from t5study.model.architectures import build
from t5study.model.names import published
from t5study.model.released import load_released, load_vocab, save_released, shape_of
from t5study.model.shapes import ARCHITECTURES, LANGUAGE_MODELS, Shape
from t5study.vocab import ByteVocab, Vocab, train_vocab

TEXT = ["The quick brown fox jumps over the lazy dog, again and again.", "A whale is large; a flea is small."] * 20


@pytest.fixture(scope="module")
def vocab(tmp_path_factory: pytest.TempPathFactory) -> Vocab:
    path = tmp_path_factory.mktemp("vocab") / "v.model"
    train_vocab(TEXT, 40, path)
    return Vocab.load(path)


def _shape(vocab: Vocab, **changes) -> Shape:
    settings = {"d_model": 16, "d_ff": 24, "d_kv": 4, "heads": 2, "encoder_layers": 1, "decoder_layers": 2}
    return Shape(**{**settings, "table_rows": vocab.ids.table_rows, **changes})


@pytest.fixture
def folder(tmp_path: Path, vocab: Vocab) -> Path:
    save_released(build(_shape(vocab), 0), tmp_path / "model", vocab.path, steps=3)
    return tmp_path / "model"


@pytest.fixture
def foreign(folder: Path) -> Path:
    """A folder as others write it: without our manifest."""
    (folder / "manifest.json").unlink()
    return folder


# --- what is written comes back -----------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"activation": "gated_gelu", "tied": False}, {"activation": "gated_gelu"}])
def test_a_model_comes_back_to_the_bit(tmp_path: Path, vocab: Vocab, changes: dict):
    shape = _shape(vocab, **changes)
    model = build(shape, 7)
    save_released(model, tmp_path / "model", vocab.path)
    back, found = load_released(tmp_path / "model")
    assert found == shape
    weights = dict(back.named_parameters())
    assert weights.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(weights[name], weight) for name, weight in model.named_parameters())
    assert all(weight.dtype == torch.float32 and weight.requires_grad for weight in weights.values())


def test_equal_models_give_equal_bytes(tmp_path: Path, vocab: Vocab):
    for name in ("one", "two"):
        save_released(build(_shape(vocab), 1), tmp_path / name, vocab.path, objective="spans", steps=3)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == [
        "README.md", "config.json", "generation_config.json", "manifest.json", "model.safetensors", "spiece.model",
        "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    verify(tmp_path / "one")
    assert len({(tmp_path / "one" / name).stat().st_mode for name in names}) == 1  # who may read one may read all


def test_the_config_says_what_transformers_4_and_5_go_by(tmp_path: Path, vocab: Vocab):
    save_released(build(_shape(vocab, activation="gated_gelu", tied=False), 0), tmp_path / "m", vocab.path)
    config = read_json(tmp_path / "m" / "config.json")
    assert config["tie_word_embeddings"] is False
    assert config["scale_decoder_outputs"] is False
    assert (config["feed_forward_proj"], config["dense_act_fn"], config["is_gated_act"]) == (
        "gated-gelu", "gelu_new", True,
    )  # fmt: skip
    assert config["vocab_size"] == vocab.ids.table_rows
    assert config["num_decoder_layers"] == 2


def test_the_card_tells_how_the_model_was_made(tmp_path: Path, vocab: Vocab):
    scores = [{"task": "glad | sad", "metric": "accuracy", "value": 87.5}]
    save_released(
        build(_shape(vocab), 0), tmp_path / "m", vocab.path,
        title="Two\nlines", objective="span corruption", tokens_seen=12_345, scores=scores, rerun="t5study train",
    )  # fmt: skip
    card = (tmp_path / "m" / "README.md").read_text()
    assert "# Two lines\n" in card
    assert "| objective | span corruption |" in card
    assert "| tokens seen | 12,345 |" in card
    assert "| glad \\| sad | accuracy | 87.5 |" in card
    assert "```\nt5study train\n```" in card
    assert read_json(tmp_path / "m" / "manifest.json")["card"]["tokens_seen"] == 12_345


def test_a_stage_that_is_there_is_written_into(tmp_path: Path, vocab: Vocab):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "journal.jsonl").write_text("{}\n")
    for seed in (1, 2):  # a stage that was killed after writing writes again
        save_released(build(_shape(vocab), seed), tmp_path / "work", vocab.path)
    model, _ = load_released(tmp_path / "work")
    assert torch.equal(model.embedding, build(_shape(vocab), 2).embedding)
    assert (tmp_path / "work" / "journal.jsonl").read_text() == "{}\n"
    assert not [path for path in (tmp_path / "work").iterdir() if path.name.endswith(".tmp")]


def test_killed_while_writing_leaves_no_folder(tmp_path: Path, vocab: Vocab):
    """SIGKILL from inside, at the moment the weights have been written: nothing has the folder's name."""
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from t5study.model import released\n"
        "from t5study.model.architectures import build\n"
        "from t5study.model.shapes import Shape\n"
        "out, vocab, rows = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])\n"
        "released.write_card = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "released.save_released(build(Shape(16, 24, 4, 2, 1, 1, rows), 0), out, vocab)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "m"), str(vocab.path), str(vocab.ids.table_rows)]
    assert subprocess.run(words, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode == -9
    assert not (tmp_path / "m").exists()
    assert len(list(tmp_path.iterdir())) == 1  # what it had begun, beside it
    save_released(build(_shape(vocab), 0), tmp_path / "m", vocab.path)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


# --- what the layout has no words for -----------------------------------------------------------------------------


def _varied(model, seed: int):
    """Every weight of a size of its own, adapters' second matrices too, which start from zero."""
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.1)
    return model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("adapter", [0, 4])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_comes_back(tmp_path: Path, vocab: Vocab, architecture: str, adapter: int, tied: bool):
    encoder = 0 if architecture in LANGUAGE_MODELS else 2
    shape = _shape(vocab, encoder_layers=encoder, adapter=adapter, tied=tied)
    model = _varied(build(shape, 0, architecture), 1)
    save_released(model, tmp_path / "m", vocab.path)
    verify(tmp_path / "m")
    back, found = load_released(tmp_path / "m")
    assert (found, shape_of(tmp_path / "m"), back.architecture) == (shape, shape, architecture)
    weights = dict(back.named_parameters())
    assert weights.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(weights[name], weight) for name, weight in model.named_parameters())
    own = adapter and architecture not in LANGUAGE_MODELS
    assert (tmp_path / "m" / "adapters.safetensors").exists() == bool(own)
    assert load_vocab(tmp_path / "m", found).digest == vocab.digest


def test_a_shared_model_is_an_ordinary_t5_to_others(tmp_path: Path, vocab: Vocab):
    shape = _shape(vocab, encoder_layers=2)
    save_released(build(shape, 3, "shared_encoder_decoder"), tmp_path / "m", vocab.path)
    (tmp_path / "m" / "manifest.json").unlink()
    _config(tmp_path / "m", architecture=...)
    model, _ = load_released(tmp_path / "m")
    assert model.architecture == "encoder_decoder"
    assert torch.equal(model.encoder.layers[1].attention.q, model.decoder.layers[1].attention.q)
    assert torch.equal(model.encoder.layers[0].feed.wo, model.decoder.layers[0].feed.wo)
    assert "written twice" in (tmp_path / "m" / "README.md").read_text()


def test_a_shared_model_whose_halves_differ(tmp_path: Path, vocab: Vocab):
    save_released(build(_shape(vocab, encoder_layers=2), 3), tmp_path / "m", vocab.path)
    (tmp_path / "m" / "manifest.json").unlink()
    _config(tmp_path / "m", architecture="shared_encoder_decoder")
    assert "SelfAttention.q.weight differs from encoder.block." in _refused(tmp_path / "m").replace("layer_norm", "q")
    _config(tmp_path / "m", num_layers=1)
    assert "stacks that share their layers have as many" in _refused(tmp_path / "m")


def test_a_language_model_is_refused_by_name(tmp_path: Path, vocab: Vocab):
    save_released(build(_shape(vocab, encoder_layers=0), 3, "prefix_lm"), tmp_path / "m", vocab.path)
    names = {path.name for path in (tmp_path / "m").iterdir()}
    assert "language_model.safetensors" in names
    assert "model.safetensors" not in names
    assert "transformers has no such model" in (tmp_path / "m" / "README.md").read_text()
    (tmp_path / "m" / "manifest.json").unlink()
    for changes, says in [
        (
            {"architecture": "decoder"},
            "field architecture: found 'decoder'; this t5study knows encoder_decoder, shared",
        ),
        (
            {"architecture": "language_model", "num_layers": 2},
            "encoder_layers: found 2; a language_model has a decoder",
        ),
        ({"architecture": "language_model", "model_type": "t5"}, "field model_type: found 't5'"),
    ]:
        _config(tmp_path / "m", **{"num_layers": 0, "model_type": "t5study", **changes})
        assert says in _refused(tmp_path / "m")


def test_adapters_that_are_not_there(tmp_path: Path, vocab: Vocab):
    save_released(build(_shape(vocab, adapter=4), 3), tmp_path / "m", vocab.path)
    (tmp_path / "m" / "manifest.json").unlink()
    (tmp_path / "m" / "adapters.safetensors").unlink()
    assert "adapters.safetensors: no such file" in _refused(tmp_path / "m")
    _config(tmp_path / "m", adapter=...)
    assert load_released(tmp_path / "m")[1] == _shape(vocab)  # what transformers sees
    _config(tmp_path / "m", adapter=-1)
    assert "field adapter: found -1" in _refused(tmp_path / "m")


def test_a_model_of_bytes(tmp_path: Path, vocab: Vocab):
    model = build(_shape(vocab, table_rows=384), 0)
    save_released(model, tmp_path / "m", None)
    assert not (tmp_path / "m" / "spiece.model").exists()
    assert read_json(tmp_path / "m" / "tokenizer_config.json")["tokenizer_class"] == "ByT5Tokenizer"
    assert load_vocab(tmp_path / "m", model.shape) == ByteVocab()
    (tmp_path / "m" / "tokenizer_config.json").unlink()  # ByT5's own folders say it in config.json
    assert load_vocab(tmp_path / "m", model.shape) == ByteVocab()
    _config(tmp_path / "m", tokenizer_class=...)
    with pytest.raises(UserError, match="has no spiece.model"):
        load_vocab(tmp_path / "m", model.shape)
    assert load_vocab(tmp_path / "m", model.shape, Path("bytes")) == ByteVocab()


def test_shards_are_written_and_replaced(tmp_path: Path, vocab: Vocab):
    model = build(_shape(vocab), 2)
    (tmp_path / "m").mkdir()
    for most in (3000, 10**9, 5000):
        save_released(model, tmp_path / "m", vocab.path, shard_bytes=most)
        files = sorted((tmp_path / "m").glob("model*.safetensors"))
        assert len(files) == len(list((tmp_path / "m").glob("*.safetensors")))
        assert (len(files) == 1) == (most == 10**9)
        assert (tmp_path / "m" / "model.safetensors.index.json").exists() == (len(files) > 1)
        for file in files:
            tensors = load_file(file)
            assert len(tensors) == 1 or sum(tensor.nbytes for tensor in tensors.values()) <= most
        verify(tmp_path / "m")
        back, _ = load_released(tmp_path / "m")
        assert all(
            torch.equal(a, b) for a, b in zip(back.state_dict().values(), model.state_dict().values(), strict=True)
        )
        assert f"`{files[0].name}`".strip("`") in (tmp_path / "m" / "README.md").read_text()


# --- other people's folders ---------------------------------------------------------------------------------------


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def _config(folder: Path, **changes) -> None:
    config = read_json(folder / "config.json") | changes
    write_json(folder / "config.json", {name: value for name, value in config.items() if value is not ...})


def _shards(folder: Path) -> dict[str, str]:
    """Cuts the weights into two files with an index; returns the index's map."""
    tensors, places = _tensors(folder), {}
    names = sorted(tensors)
    for part, some in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-0000{part}-of-00002.safetensors"
        save_file({name: tensors[name] for name in some}, folder / file)
        places |= dict.fromkeys(some, file)
    (folder / "model.safetensors").unlink()
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})
    return places


def test_shards_are_read(foreign: Path):
    wanted = load_released(foreign)[0]
    _shards(foreign)
    found = load_released(foreign)[0]
    assert all(
        torch.equal(a, b) for a, b in zip(wanted.state_dict().values(), found.state_dict().values(), strict=True)
    )


def test_what_old_published_files_hold_beside_is_read_past(foreign: Path):
    tensors = _tensors(foreign)
    tensors["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.ones(32, 2)
    tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"].clone()
    tensors["decoder.embed_tokens.weight"] = tensors["shared.weight"].clone()
    tensors["lm_head.weight"] = tensors["shared.weight"].clone()
    save_file(tensors, foreign / "model.safetensors")
    for name in ("spiece.model", "tokenizer.json", "README.md", "generation_config.json"):
        (foreign / name).unlink()
    _config(foreign, tie_word_embeddings=..., scale_decoder_outputs=..., num_decoder_layers=2)
    model, shape = load_released(foreign)
    assert shape.tied
    assert torch.equal(model.embedding, tensors["shared.weight"])


def test_a_v1_1_model_that_transformers_5_tied_is_read_as_the_same_function(tmp_path: Path, vocab: Vocab):
    save_released(build(_shape(vocab, activation="gated_gelu"), 0), tmp_path / "m", vocab.path)
    (tmp_path / "m" / "manifest.json").unlink()
    _config(tmp_path / "m", scale_decoder_outputs=False)
    model, shape = load_released(tmp_path / "m")
    assert not shape.tied
    assert torch.equal(model.head, model.embedding)


def test_half_precision_is_read_as_float32(foreign: Path):
    tensors = _tensors(foreign)
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, foreign / "model.safetensors")
    model, _ = load_released(foreign)
    assert torch.equal(model.embedding, tensors["shared.weight"].bfloat16().float())


def test_links_of_the_hub_cache_are_followed(foreign: Path, tmp_path: Path):
    blobs, snapshot = tmp_path / "cache" / "blobs", tmp_path / "cache" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in foreign.iterdir():
        shutil.move(path, blobs / f"hash-of-{path.name}")
        (snapshot / path.name).symlink_to(Path("../../blobs") / f"hash-of-{path.name}")
    assert load_released(snapshot)[1].d_model == 16


# --- what is wrong with a folder ----------------------------------------------------------------------------------


def _refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_released(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    return message


class _Marker:
    """51: pickled code that leaves a mark when it is run."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt"])
def test_pickled_weights_are_never_opened(foreign: Path, tmp_path: Path, name: str):
    (foreign / "model.safetensors").unlink()
    (foreign / name).write_bytes(pickle.dumps(_Marker(tmp_path / "ran")))
    message = _refused(foreign)
    assert name in message
    assert "save_pretrained" in message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "spiece.model", "manifest.json"])
def test_a_pickle_under_another_name_is_refused(foreign: Path, tmp_path: Path, name: str):
    (foreign / name).write_bytes(pickle.dumps(_Marker(tmp_path / "ran")))
    assert name in _refused(foreign)
    assert not (tmp_path / "ran").exists()


def _header(length: int, header: dict, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", length or len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        _header(2**63, {}),
        _header(0, {"shared.weight": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}}, b"\0" * 8),
        _header(0, {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"\0" * 8),
        _header(
            0,
            {
                "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
            },
            b"\0" * 12,
        ),
    ],
    ids=["empty", "short", "length", "shape lie", "offsets", "overlap"],
)
def test_lies_in_a_header(foreign: Path, content: bytes):
    (foreign / "model.safetensors").write_bytes(content)
    assert "model.safetensors: found no whole safetensors file" in _refused(foreign)


def test_every_cut_of_the_weights_is_found(foreign: Path):
    content = (foreign / "model.safetensors").read_bytes()
    for size in range(0, len(content), max(1, len(content) // 20)):
        (foreign / "model.safetensors").write_bytes(content[:size])
        assert "model.safetensors" in _refused(foreign)


def test_every_flipped_bit_is_found_where_there_is_a_manifest(folder: Path):
    content = bytearray((folder / "model.safetensors").read_bytes())
    for at in range(0, len(content), max(1, len(content) // 20)):
        content[at] ^= 1
        (folder / "model.safetensors").write_bytes(content)
        assert "model.safetensors: its digest differs from manifest.json" in _refused(folder)
        content[at] ^= 1


def _edit(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict[str, torch.Tensor]], None]:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = change(tensors[name])

    return edit


Q = published("encoder.layers.0.attention.q")


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda tensors: tensors.pop(Q), f"1 missing ({Q})"),
        (lambda tensors: tensors.update({"extra.weight": torch.zeros(1)}), "1 unknown (extra.weight)"),
        (lambda tensors: tensors.update({Q.upper(): tensors.pop(Q)}), f"1 missing ({Q}); 1 unknown ({Q.upper()})"),
        (_edit(Q, lambda q: q.T.contiguous()), f"1 of another shape ({Q}: found 16x8, needs 8x16)"),
        (_edit(Q, lambda q: q.long()), f"({Q}: found I64)"),
        (_edit(Q, lambda q: q * float("nan")), f"{Q}: found 128 numbers NaN or infinite"),
        (_edit(Q, lambda q: q.where(q != q[0, 0], float("inf"))), f"{Q}: found 1 numbers NaN or infinite"),
        (lambda tensors: tensors.clear(), "39 missing ("),
        (
            lambda tensors: tensors.update({"lm_head.weight": tensors["shared.weight"] * 2}),
            "differs from shared.weight",
        ),
        (
            lambda tensors: tensors.update({"encoder.embed_tokens.weight": tensors["shared.weight"] * 2}),
            "encoder.embed_tokens.weight differs from shared.weight",
        ),
    ],
    ids=["missing", "extra", "renamed", "transposed", "type", "nan", "inf", "none", "head", "embedding"],
)
def test_weights_that_do_not_fit(foreign: Path, edit: Callable[[dict[str, torch.Tensor]], None], says: str):
    tensors = _tensors(foreign)
    edit(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, foreign / "model.safetensors")
    assert says in _refused(foreign)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"d_model": 32}, "of another shape"),
        ({"num_layers": 3}, "missing"),
        ({"num_layers": 10**12}, "field num_layers: found 1000000000000"),
        ({"d_ff": 0}, "field d_ff: found 0"),
        ({"d_ff": "24"}, "field d_ff: found '24'"),
        ({"d_ff": True}, "field d_ff: found True"),
        ({"d_model": ...}, "field d_model: found None"),
        ({"vocab_size": 32_128}, "of another shape"),
        ({"model_type": "bert"}, "field model_type: found 'bert'"),
        ({"feed_forward_proj": "gated-silu"}, "field feed_forward_proj: found 'gated-silu'"),
        ({"feed_forward_proj": "gated-gelu"}, "wi_0"),
        ({"relative_attention_num_buckets": 64}, "field relative_attention_num_buckets: found 64"),
        ({"layer_norm_epsilon": 1e-5}, "field layer_norm_epsilon"),
        ({"tie_word_embeddings": "no"}, "field tie_word_embeddings: found 'no'"),
        ({"tie_word_embeddings": False, "scale_decoder_outputs": False}, "1 missing (lm_head.weight)"),
    ],
)
def test_a_config_that_does_not_fit(foreign: Path, changes: dict, says: str):
    _config(foreign, **changes)
    assert says in _refused(foreign)


@pytest.mark.parametrize("content", ["", "[]", "{", "\x00", "[" * 100_000, '"text"'])
def test_a_config_that_is_none(foreign: Path, content: str):
    (foreign / "config.json").write_text(content)
    assert "config.json" in _refused(foreign)


def test_names_and_links_may_not_lead_out_of_the_folder(foreign: Path, tmp_path: Path):
    places = _shards(foreign)
    shutil.copy(foreign / next(iter(places.values())), tmp_path / "outside.safetensors")
    for place in ("../outside.safetensors", str(tmp_path / "outside.safetensors"), "..", "", "a\0b.safetensors"):
        write_json(foreign / "model.safetensors.index.json", {"weight_map": {**places, "shared.weight": place}})
        assert any(says in _refused(foreign) for says in ("found the file name", "only safetensors are read"))
    write_json(foreign / "model.safetensors.index.json", {"weight_map": {**places, "shared.weight": "x.bin"}})
    assert "only safetensors are read" in _refused(foreign)
    (foreign / "model.safetensors").symlink_to("/etc/passwd")
    message = _refused(foreign)
    assert "leads out of the folder" in message
    assert "/bin/" not in message
    (foreign / "model.safetensors").unlink()
    (foreign / "model.safetensors").symlink_to(tmp_path / "nowhere")
    assert "no such file" in _refused(foreign)


def test_an_index_that_lies(foreign: Path):
    places = _shards(foreign)
    index = foreign / "model.safetensors.index.json"
    first, second = sorted(set(places.values()))
    for weight_map, says in [
        ({**places, Q: first if places[Q] == second else second}, f"{Q}: not found in"),
        ({**places, "shared.weight": "model-00003-of-00002.safetensors"}, "no such file"),
        ({}, "field weight_map"),
        ([], "field weight_map"),
        ({"shared.weight": 1}, "field weight_map"),
    ]:
        write_json(index, {"weight_map": weight_map})
        assert says in _refused(foreign)
    write_json(index, {"weight_map": places})
    tensors = load_file(foreign / first)
    tensors[Q] = torch.zeros(8, 16)
    save_file(tensors, foreign / first)
    twin = load_file(foreign / second)
    twin[Q] = torch.zeros(8, 16)
    save_file(twin, foreign / second)
    assert f"{Q}: found in {first} too" in _refused(foreign)


def test_manifests(folder: Path):
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", manifest | {"format": 2})
    assert "field format: found 2, this t5study reads 1; use a newer t5study" in _refused(folder)
    write_json(folder / "manifest.json", manifest | {"files": 3})
    assert "field files" in _refused(folder)
    write_json(folder / "manifest.json", manifest)
    _config(folder, d_ff=25)
    assert "config.json: its digest differs" in _refused(folder)


def test_another_vocabulary_than_the_models(foreign: Path, vocab: Vocab, tmp_path: Path):
    with pytest.raises(UserError, match="the model's table has 32,128 rows"):
        save_released(build(_shape(vocab, table_rows=32_128), 0), tmp_path / "other", vocab.path)
    assert not (tmp_path / "other").exists()
    train_vocab([f"{TEXT[0]} {i:x} {i * i:x}" for i in range(3000)], 300, tmp_path / "larger.model")
    shutil.copy(tmp_path / "larger.model", foreign / "spiece.model")
    assert "spiece.model: found a vocabulary of 400 ids" in _refused(foreign)


def test_no_folder_and_no_right_to_read(foreign: Path, tmp_path: Path):
    assert "no such folder" in _refused(tmp_path / "none")
    assert "found a file" in _refused(foreign / "config.json")
    (tmp_path / "empty").mkdir()
    assert "config.json: no such file" in _refused(tmp_path / "empty")
    (foreign / "model.safetensors").unlink()
    assert "has no model.safetensors" in _refused(foreign)
    (foreign / "model.safetensors").mkdir()
    assert "model.safetensors" in _refused(foreign)
    if os.geteuid():
        (foreign / "config.json").chmod(0)
        assert "cannot be read" in _refused(foreign)


def test_a_file_that_changes_while_it_is_read(foreign: Path, monkeypatch: pytest.MonkeyPatch):
    from t5study.model import untrusted

    read, path = untrusted.Stored.read, foreign / "model.safetensors"
    content = path.read_bytes()

    def read_and_replace(self: untrusted.Stored) -> torch.Tensor:
        if content:
            (foreign / "new").write_bytes(content)
            os.replace(foreign / "new", path)
        return read(self)

    monkeypatch.setattr(untrusted.Stored, "read", read_and_replace)
    assert "changed while it was read" in _refused(foreign)
