"""The vocabulary: T5's ids, training that repeats itself, and every way a model file can be wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
import sentencepiece
from shared_data import SHARED

from t5study.ground.errors import UserError
from t5study.ground.pairs import Ids
from t5study.vocab import ByteVocab, Vocab, load_vocab, train_vocab

FOXES = [
    f"The {a} fox number {i} jumps over the {b} dog, and {c} of them said </s> or <pad> or <extra_id_{i % 3}>."
    for i in range(60)
    for a, b, c in [("quick", "lazy", "both"), ("brown", "sleeping", "neither"), ("clever", "old", "one")]
]
TEXTS = [
    *FOXES,
    *(" ".join(line.split()) for name in ("if", "while", "lambda", "naming") for line in topics[name].split("\n")),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vocab") / "small.model"
    train_vocab(TEXTS, 120, path)
    return path


@pytest.fixture(scope="module")
def vocab(model: Path) -> Vocab:
    return Vocab.load(model)


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# --- ids --------------------------------------------------------------------------------------------------------


def test_ids_of_a_trained_vocabulary(vocab: Vocab):
    assert vocab.ids == Ids(size=220, sentinels=100)
    assert (vocab.ids.pieces, vocab.ids.sentinel(0), vocab.ids.sentinel(99), vocab.ids.table_rows) == (
        120,
        219,
        120,
        256,
    )


def test_text_survives_and_special_names_in_it_stay_text(vocab: Vocab):
    for text in (*FOXES[:5], "</s>", "<pad> </s> <pad>", "<extra_id_0> <extra_id_2>", ""):
        ids = vocab.encode(text)
        assert ids.dtype == np.int32
        assert ids.ndim == 1
        assert vocab.decode(ids) == text
        assert ids.max(initial=0) < vocab.ids.pieces
        assert not {0, 1, 2} & set(ids.tolist())


def test_sentinels_are_ids_only_where_asked_for(vocab: Vocab):
    text = "The quick <extra_id_0> jumps <extra_id_99> dog"
    ids = vocab.encode(text, sentinels=True)
    assert [int(i) for i in ids if i >= vocab.ids.pieces] == [219, 120]
    assert vocab.decode(ids) == text
    assert ids.tolist() == [
        *vocab.encode("The quick").tolist(), 219, *vocab.encode("jumps").tolist(), 120, *vocab.encode("dog").tolist(),
    ]  # fmt: skip
    for no_sentinel in ("<extra_id_100>", "<extra_id_00>", "<extra_id_-1>", "<extra_id_>"):
        assert vocab.encode(no_sentinel, sentinels=True).max() < vocab.ids.pieces
    assert vocab.encode("", sentinels=True).tolist() == []
    assert vocab.decode([219, 218]) == "<extra_id_0> <extra_id_1>"


def test_decoding_drops_padding_eos_and_the_tables_spare_rows(vocab: Vocab):
    ids = vocab.encode("The lazy dog")
    assert vocab.decode([0, *ids, 1, 0, 0]) == "The lazy dog"
    assert vocab.decode([220, *ids, 255, 5000]) == "The lazy dog"
    assert vocab.decode([]) == vocab.decode([0, 0, 1]) == ""
    assert "⁇" in vocab.decode([2])
    with pytest.raises(ValueError, match="id -1"):
        vocab.decode([-1])


def test_batches_equal_single_texts_on_any_number_of_threads(vocab: Vocab):
    texts = [*FOXES[:40], "", " ", "\u2028", "שלום 🎉 e\u0301", "x" * 5000]
    single = [vocab.encode(text).tolist() for text in texts]
    for threads in (1, 3):
        assert [ids.tolist() for ids in vocab.encode_batch(texts, threads)] == single
    assert vocab.encode_batch([]) == []


def test_text_that_no_utf8_can_hold(vocab: Vocab):
    assert vocab.encode("The \ud800 dog").tolist() == vocab.encode("The \ufffd dog").tolist()
    assert vocab.encode("The \0 dog").ndim == 1
    with pytest.raises(TypeError):
        vocab.encode_batch([3])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("sentinels", [0, 1, 99, 1000])
def test_any_number_of_sentinels(model: Path, sentinels: int):
    vocab = Vocab.load(model, sentinels)
    assert vocab.ids == Ids(120 + sentinels, sentinels)
    if sentinels:
        last = sentinels - 1
        assert vocab.encode(f"<extra_id_{last}>", sentinels=True).tolist() == [120]
        assert vocab.decode([120]) == f"<extra_id_{last}>"


def test_a_wrong_number_of_sentinels(model: Path):
    with pytest.raises(UserError, match="sentinels: found -1"):
        Vocab.load(model, -1)


# --- T5's own ---------------------------------------------------------------------------------------------------

KNOWN = {
    "Hello world": [8774, 296],
    "Attention rocks!": [20748, 12288, 55],
    "This is a test.": [100, 19, 3, 9, 794, 5],
}


@pytest.fixture(scope="module")
def published() -> Vocab:
    if SHARED is None:
        pytest.skip("the published vocabulary is not on this machine")
    return Vocab.load(SHARED / "tokenizer" / "t5_spiece.model")


def test_the_published_vocabulary_has_its_published_ids(published: Vocab):
    assert published.ids == Ids(32_100)
    assert (published.ids.pieces, published.ids.sentinel(0), published.ids.sentinel(99)) == (32_000, 32_099, 32_000)
    assert published.ids.table_rows == 32_128
    for text, ids in KNOWN.items():
        assert published.encode(text).tolist() == ids
        assert published.decode(ids) == text
    assert published.encode("</s>").tolist() != [1]


def test_the_same_ids_as_transformers(published: Vocab):
    transformers = pytest.importorskip("transformers")
    processor = sentencepiece.SentencePieceProcessor(model_file=str(published.path))
    pieces = [(processor.IdToPiece(i), processor.GetScore(i)) for i in range(published.ids.pieces)]
    peer = transformers.T5Tokenizer(vocab=[*pieces, *((f"<extra_id_{k}>", 0.0) for k in range(99, -1, -1))])
    for text in [
        "A whole sentence, with (signs) & 1,234 numbers!",
        "  two  spaces and a line ",
        "naïve Straße café 漢字",
        "The <extra_id_0> walks in <extra_id_1> park",
        *KNOWN,
    ]:
        assert peer(text).input_ids == [*published.encode(text, sentinels=True).tolist(), 1]


@pytest.mark.skipif(SHARED is None, reason="the other vocabularies are not on this machine")
def test_vocabularies_of_other_makers():
    assert SHARED is not None
    known = Vocab.load(SHARED / "tokenizer" / "seqio_test" / "sentencepiece.model")
    assert known.encode("this is a test").tolist() == [11, 8, 6, 3, 8, 6, 3, 5, 10]
    with pytest.raises(UserError, match=r"spm_test_model.model: pad: has none, T5 has it at 0; train one") as error:
        Vocab.load(SHARED / "tokenizer" / "sentencepiece_test" / "spm_test_model.model")
    one_line(error)


# --- damaged files ----------------------------------------------------------------------------------------------


def _train_otherwise(path: Path, **settings) -> Path:
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(TEXTS), model_prefix=str(path.with_suffix("")), vocab_size=120, minloglevel=2, **settings
    )
    return path


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"pad_id": 0, "eos_id": 2, "unk_id": 1, "bos_id": -1}, "eos: found id 2, T5 has it at 1"),
        ({"pad_id": 3, "eos_id": 1, "unk_id": 0, "bos_id": 2}, "pad: found id 3, T5 has it at 0"),
        ({"pad_id": 0, "eos_id": -1, "unk_id": 2, "bos_id": 1}, "eos: has none, T5 has it at 1"),
        ({"pad_id": 0, "eos_id": 1, "unk_id": 3, "bos_id": 2}, "unk: found id 3, T5 has it at 2"),
        (
            {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "user_defined_symbols": "<extra_id_0>"},
            "piece 3: found '<extra_id_0>'; sentinels are added on top",
        ),
    ],
)
def test_special_ids_that_are_not_t5s(tmp_path: Path, settings: dict, says: str):
    path = _train_otherwise(tmp_path / "other.model", **settings)
    with pytest.raises(UserError) as error:
        Vocab.load(path)
    assert says in one_line(error)
    assert "other.model" in str(error.value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _with_piece(model: Path, piece: bytes, score: bytes = b"\x00\x00\x80\xbf") -> bytes:
    """The file with one more piece at its end (repeated field 1 of the model: 1 text, 2 score)."""
    entry = b"\x0a" + _varint(len(piece)) + piece + b"\x15" + score
    return model.read_bytes() + b"\x0a" + _varint(len(entry)) + entry


@pytest.mark.parametrize(
    ("piece", "score"),
    [
        (b"nul\0piece", b"\x00\x00\x80\xbf"),
        ("\u2581The".encode(), b"\x00\x00\x80\xbf"),  # there already
        (b"fresh", b"\x00\x00\xc0\x7f"),  # a score of NaN
        (b"fresh", b"\x00\x00\x80\x7f"),  # of infinity
        (b"x" * 100_000, b"\x00\x00\x80\xbf"),
        (b"bad\xff\xfe", b"\x00\x00\x80\xbf"),
        (b"", b"\x00\x00\x80\xbf"),
    ],
)
def test_a_piece_that_should_not_be_there(model: Path, tmp_path: Path, piece: bytes, score: bytes):
    assert Vocab.load(model).ids.pieces == 120
    (tmp_path / "fine.model").write_bytes(_with_piece(model, b"fresh"))
    assert Vocab.load(tmp_path / "fine.model").ids.pieces == 121
    (tmp_path / "bad.model").write_bytes(_with_piece(model, piece, score))
    with pytest.raises(UserError, match=r"bad\.model") as error:
        Vocab.load(tmp_path / "bad.model")
    assert len(one_line(error)) < 500


def test_no_model_at_all(tmp_path: Path, model: Path):
    (tmp_path / "empty.model").write_bytes(b"")
    (tmp_path / "text.model").write_text("a vocabulary, as text")
    (tmp_path / "cut.model").write_bytes(model.read_bytes()[:-200_000])
    for name, says in [
        ("none.model", "no such file"),
        ("empty.model", "found an empty file"),
        ("text.model", "found no SentencePiece model"),
        ("cut.model", "found no SentencePiece model"),
        (".", "found a folder"),
    ]:
        with pytest.raises(UserError, match=says) as error:
            Vocab.load(tmp_path / name)
        one_line(error)


FUZZ = """
import random, sys
from pathlib import Path
from t5study.ground.errors import UserError
from t5study.vocab import Vocab
whole, work = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
chance = random.Random(0)
refused = 0
for trial in range(80):
    hurt = bytearray(whole)
    if trial % 2:
        hurt = hurt[: chance.randrange(len(hurt))]
    else:
        for _ in range(8):
            hurt[chance.randrange(len(hurt))] ^= 1 << chance.randrange(8)
    work.write_bytes(hurt)
    try:
        vocab = Vocab.load(work)
        vocab.decode(vocab.encode("The quick fox, number 3."))
    except UserError as error:
        assert "\\n" not in str(error), error
        refused += 1
print(refused)
"""


def test_damaged_files_are_refused_or_read_but_never_crash(model: Path, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(model), str(tmp_path / "hurt.model")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[1],
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 38  # every cut is found; of flips, those that matter to the form


# --- training ---------------------------------------------------------------------------------------------------


def test_the_same_bytes_for_the_same_texts_in_any_order(model: Path, tmp_path: Path):
    train_vocab(iter(TEXTS[::-1]), 120, tmp_path / "again.model")
    assert (tmp_path / "again.model").read_bytes() == model.read_bytes()
    assert Vocab.load(tmp_path / "again.model").digest == Vocab.load(model).digest
    train_vocab(TEXTS[:-9], 120, tmp_path / "other.model")
    assert Vocab.load(tmp_path / "other.model").digest != Vocab.load(model).digest


def test_a_large_corpus_is_sampled_whatever_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from t5study import vocab

    monkeypatch.setattr(vocab, "_SAMPLE_BYTES", 4000)
    held = vocab._sample(TEXTS)
    assert 4000 <= sum(map(len, held)) < 4200
    assert held == vocab._sample(TEXTS[::-1])
    assert set(held) < set(vocab._sentences(TEXTS))


def test_long_lines_are_cut_and_nothing_is_lost():
    from t5study import vocab

    words = " ".join(f"wörd{i}" for i in range(3000))
    parts = list(vocab._sentences([words + "\nshort\n\n  \n", "x" * 9001, "a\0b"]))
    assert all(len(part.encode()) <= 4000 for part in parts)
    joined = "".join(parts)
    assert joined == words + "short" + "x" * 9001 + "a b"


@pytest.mark.parametrize("pieces", [-1, 0, 1, 2, 3, 2**31, 10**6 + 1, True, 2.5, "100"])
def test_sizes_that_are_none(tmp_path: Path, pieces):
    with pytest.raises(UserError, match="pieces: found") as error:
        train_vocab(TEXTS, pieces, tmp_path / "x.model")
    one_line(error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("texts", "pieces", "says"),
    [
        (["a few words"], 1000, r"these texts give \d+ at most"),
        (TEXTS, 5000, r"these texts give \d+ at most"),
        (TEXTS, 10, "characters of these texts need"),
        ([], 100, "found no text"),
        (["", " \n\t ", "\u2028"], 100, "found no text"),
    ],
)
def test_texts_that_cannot_give_so_many(tmp_path: Path, texts: list[str], pieces: int, says: str):
    with pytest.raises(UserError, match=says) as error:
        train_vocab(texts, pieces, tmp_path / "x.model")
    one_line(error)
    assert list(tmp_path.iterdir()) == []


def test_the_size_that_the_message_names_is_right(tmp_path: Path):
    with pytest.raises(UserError) as error:
        train_vocab(TEXTS, 5000, tmp_path / "x.model")
    most = int(str(error.value).split("give ")[1].split(" ")[0])
    train_vocab(TEXTS, most, tmp_path / "x.model")
    assert Vocab.load(tmp_path / "x.model").ids.pieces == most


def test_half_read_texts_leave_nothing(tmp_path: Path):
    def texts():
        yield from TEXTS
        raise UserError("a.jsonl: line 3: found invalid JSON")

    with pytest.raises(UserError, match=r"a\.jsonl"):
        train_vocab(texts(), 120, tmp_path / "x.model")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="found a folder"):
        train_vocab(TEXTS, 120, tmp_path)


# --- bytes --------------------------------------------------------------------------------------------------------

AWKWARD = ["", "Hi I am", "né à 日本 😀", "\x00\t\n", "</s> <pad> <extra_id_0>", "\u2028", "\U0010ffff"]


@pytest.mark.parametrize("text", AWKWARD)
def test_bytes_there_and_back(text: str):
    vocab = ByteVocab()
    ids = vocab.encode(text)
    assert ids.dtype == np.int32
    assert ids.tolist() == [byte + 3 for byte in text.encode()]
    assert vocab.decode(ids) == text
    assert vocab.decode([0, *ids, 1, 300]) == text
    assert [row.tolist() for row in vocab.encode_batch([text, "x"])] == [ids.tolist(), [123]]


def test_sentinels_of_bytes_are_the_highest():
    vocab = ByteVocab()
    assert (vocab.ids.size, vocab.ids.table_rows, vocab.ids.sentinel(0), vocab.ids.sentinel(10)) == (259, 384, 258, 248)
    ids = vocab.encode("a<extra_id_0>é<extra_id_10>b<extra_id_11>", sentinels=True)
    assert ids.tolist() == [100, 258, 198, 172, 248, 101, *(byte + 3 for byte in b"<extra_id_11>")]
    assert vocab.decode(ids) == "a<extra_id_0>é<extra_id_10>b<extra_id_11>"
    every = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)])).encode()
    assert max(every) + 3 < vocab.ids.sentinel(10)  # no text holds one


def test_bytes_that_are_no_text():
    vocab = ByteVocab()
    assert vocab.decode([3 + 0xC3, 3 + 0x28]) == "("
    assert vocab.encode("\ud800").tolist() == vocab.encode("\ufffd").tolist()
    with pytest.raises(ValueError, match="id -1"):
        vocab.decode([-1])


def test_which_vocabulary_is_meant(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert load_vocab("bytes") == load_vocab(Path("bytes")) == ByteVocab()
    assert load_vocab(model) == Vocab.load(model)
    (tmp_path / "spiece.model").write_bytes(model.read_bytes())
    assert load_vocab(tmp_path).digest == Vocab.load(model).digest
    monkeypatch.chdir(tmp_path)
    Path("bytes").write_bytes(model.read_bytes())
    assert isinstance(load_vocab("bytes"), Vocab)  # a file of that name is meant, where there is one
    assert ByteVocab().digest != Vocab.load(model).digest
