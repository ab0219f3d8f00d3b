"""The vocabulary: text <-> ids. SentencePiece does the work; T5's rules about special ids live here.

    0 pad   1 eos   2 unk   3 ... pieces - 1 ordinary   then 100 sentinels counting down: <extra_id_0> is the last id

The `.model` file holds the pieces only. Sentinels are ids on top of it, as in the published vocabulary (32,000 pieces
+ 100), so no text can spell one by accident: `</s>`, `<pad>` and `<extra_id_0>` in a document are ordinary text.
A vocabulary is trained by us (`train_vocab`: unigram, any size), read from an existing file (T5's own, for example),
or it is the 256 bytes, as in ByT5, and needs neither.
"""

from __future__ import annotations

import heapq
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import sentencepiece
import xxhash

from t5study.ground.errors import UserError
from t5study.ground.pairs import EOS, PAD, UNK, Ids
from t5study.ground.store import whole_file

SENTINELS = 100
BYTES = "bytes"  # the name of the byte vocabulary where a file could stand
_SENTINEL = re.compile(r"<extra_id_(0|[1-9]\d{0,5})>")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LARGEST_FILE = 1 << 28

# Training. All fixed, so that a vocabulary depends on the texts and its size alone, never on the machine: the
# trainer's floating-point sums run in as many parts as it has threads.
_THREADS = 4
_SENTENCE_BYTES = 4000  # the trainer skips longer ones; ours are cut
_SAMPLE_BYTES = 6_000_000  # enough for 4,000 pieces of prose; training takes about 1.4 s a megabyte
_COVERAGE = (
    0.99995  # of characters; the rest are unknown. English text keeps all of ASCII this way, at 0.9995 it does not
)
_MOST_PIECES = 1_000_000


@dataclass(frozen=True)
class Vocab:
    """path: the `.model` file. digest: xxh3-128 of its bytes, what enters fingerprints. ids: its numbers."""

    path: Path
    digest: str
    ids: Ids
    _processor: sentencepiece.SentencePieceProcessor = field(repr=False, compare=False)

    @staticmethod
    def load(path: Path | str, sentinels: int = SENTINELS) -> Vocab:
        """Reads a SentencePiece `.model`. UserError, in one line, if it is damaged or its special ids are not T5's."""
        path = Path(path)
        if not 0 <= sentinels <= _MOST_PIECES:
            raise UserError(f"{path}: sentinels: found {sentinels}; give 0 to {_MOST_PIECES}, T5 has {SENTINELS}")
        content = _read(path)
        processor = sentencepiece.SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(content)
            pieces = [processor.IdToPiece(i) for i in range(processor.GetPieceSize())]
        except (RuntimeError, UnicodeDecodeError, ValueError) as error:
            raise UserError(
                f"{path}: found no SentencePiece model ({_one_line(error)}); give a .model file, or a fresh copy of it"
            ) from None
        _check(path, processor, pieces)
        return Vocab(path, xxhash.xxh3_128_hexdigest(content), Ids(len(pieces) + sentinels, sentinels), processor)

    @property
    def pieces(self) -> list[str]:
        """Every piece of the file as SentencePiece spells it, ids.pieces of them."""
        return [self._processor.IdToPiece(i) for i in range(self.ids.pieces)]

    def encode(self, text: str, sentinels: bool = False) -> np.ndarray:
        """Ids of a text, int32 (N,), without EOS. `<extra_id_k>` is text unless `sentinels` says it is a sentinel."""
        return _with_sentinels(self, text) if sentinels else self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str], threads: int = 1) -> list[np.ndarray]:
        """Ids of many texts, int32 (N,) each, without EOS. Sentinels in them stay text. `threads` changes only the
        time it takes. Half a surrogate pair, which no UTF-8 can hold, is read as U+FFFD."""
        try:
            return self._processor.Encode(list(texts), return_type="numpy", num_threads=threads)
        except (UnicodeEncodeError, TypeError):  # the library says TypeError for text that is no UTF-8
            whole = [_SURROGATE.sub("\ufffd", text) for text in texts]
            return self._processor.Encode(whole, return_type="numpy", num_threads=threads)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Text of ids. Padding, EOS and ids of the table's padded rows are dropped; sentinels read `<extra_id_k>`."""
        parts: list[str] = []
        run: list[int] = []
        for i in (int(i) for i in ids):
            if i < 0:
                raise ValueError(f"id {i} of a vocabulary")
            if i < self.ids.pieces:
                if i not in (PAD, EOS):
                    run.append(i)
            elif i < self.ids.size:
                parts += [self._processor.Decode(run), f"<extra_id_{self.ids.size - 1 - i}>"]
                run = []
        return " ".join(part for part in [*parts, self._processor.Decode(run)] if part)


@dataclass(frozen=True)
class ByteVocab:
    """UTF-8 bytes as ids, with the methods of `Vocab`: byte b is id b + 3, and the table has 384 rows as ByT5's has.

    Sentinels are no ids of their own. ByT5 was trained with seqio's byte vocabulary, which has no extra ids, so its
    objective's sentinels count down from the highest byte: <extra_id_0> is 258, byte 0xFF (ByT5's documentation in
    transformers says the same). The eleven highest bytes, 0xF5 to 0xFF, occur in no UTF-8 text, so that many sentinels
    can be told from text; ByT5 in its own pre-training (1,024 bytes, spans of 20) needs eight. An objective that needs
    more goes on down into bytes that text has, as T5's goes on into ordinary pieces.

    >>> ByteVocab().ids.sentinel(0), ByteVocab().ids.table_rows
    (258, 384)
    """

    path: None = field(default=None, init=False)
    digest: str = field(default=xxhash.xxh3_128_hexdigest(b"UTF-8 bytes, as ByT5"), init=False)
    ids: Ids = field(default=Ids(size=259, sentinels=11), init=False)

    def encode(self, text: str, sentinels: bool = False) -> np.ndarray:
        """Ids of a text, int32 (N,), without EOS. `<extra_id_k>` is text unless `sentinels` says it is a sentinel.

        >>> ByteVocab().encode("né <extra_id_0>", sentinels=True).tolist()
        [113, 198, 172, 35, 258]
        """
        if sentinels:
            return _with_sentinels(self, text)
        whole = _SURROGATE.sub("\ufffd", text).encode()
        return np.frombuffer(whole, np.uint8).astype(np.int32) + (UNK + 1)

    def encode_batch(self, texts: Sequence[str], threads: int = 1) -> list[np.ndarray]:
        """Ids of many texts, int32 (N,) each, without EOS. Sentinels in them stay text."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Text of ids. Special ids and ids of the table's padded rows are dropped, as are bytes that make no UTF-8;
        sentinels read `<extra_id_k>`."""
        parts = bytearray()
        for i in (int(i) for i in ids):
            if i < 0:
                raise ValueError(f"id {i} of a vocabulary")
            if self.ids.pieces <= i < self.ids.size:
                parts += f"<extra_id_{self.ids.size - 1 - i}>".encode()
            elif UNK < i < self.ids.pieces:
                parts.append(i - UNK - 1)
        return parts.decode("utf-8", "ignore")


AnyVocab = Vocab | ByteVocab


def load_vocab(where: Path | str) -> AnyVocab:
    """ "bytes", or a SentencePiece `.model`, or a folder with spiece.model in it. UserError where there is none."""
    path = Path(where)
    if str(path) == BYTES and not path.exists():
        return ByteVocab()
    return Vocab.load(path / "spiece.model" if path.is_dir() else path)


def _with_sentinels(vocab: AnyVocab, text: str) -> np.ndarray:
    parts: list[np.ndarray] = []
    at = 0
    for match in _SENTINEL.finditer(text):
        if (k := int(match[1])) < vocab.ids.sentinels:
            parts += [vocab.encode(text[at : match.start()]), np.array([vocab.ids.sentinel(k)], np.int32)]
            at = match.end()
    return np.concatenate([*parts, vocab.encode(text[at:])])


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise UserError(f"{path}: found a folder; give a SentencePiece .model file")
        if path.stat().st_size > _LARGEST_FILE:
            raise UserError(f"{path}: found {path.stat().st_size:,} bytes; give a SentencePiece .model file")
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give a SentencePiece .model file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a file that can") from None
    if not content:
        raise UserError(f"{path}: found an empty file; give a SentencePiece .model file")
    return content


def _check(path: Path, processor: sentencepiece.SentencePieceProcessor, pieces: list[str]) -> None:
    """What SentencePiece itself lets through, and T5's three special ids."""
    found = {"pad": processor.pad_id(), "eos": processor.eos_id(), "unk": processor.unk_id()}
    for (name, at), wanted in zip(found.items(), (PAD, EOS, UNK), strict=True):
        if at != wanted:
            told = "has none" if at < 0 else f"found id {at}"
            raise UserError(
                f"{path}: {name}: {told}, T5 has it at {wanted}; train one with `t5study vocab train`, "
                "or give one made with pad_id=0, eos_id=1, unk_id=2"
            )
    if len(pieces) <= UNK + 1:
        raise UserError(f"{path}: found {len(pieces)} pieces, so no ordinary ones; give another .model file")
    first: dict[str, int] = {}
    for i, piece in enumerate(pieces):
        if first.setdefault(piece, i) != i:
            raise UserError(f"{path}: piece {i}: found {piece!r} again, first at {first[piece]}; give another file")
        if not piece or "\0" in piece:
            raise UserError(f"{path}: piece {i}: found {piece!r}, which no text can hold; give another file")
        if not math.isfinite(processor.GetScore(i)):
            raise UserError(f"{path}: piece {i}: found the score {processor.GetScore(i)}; give another file")
        if _SENTINEL.fullmatch(piece.lstrip("\u2581")):
            raise UserError(
                f"{path}: piece {i}: found {piece!r}; sentinels are added on top of the file, so give one without"
            )


def _one_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()[:160] or type(error).__name__


# --- training ---------------------------------------------------------------------------------------------------


class TextTooSmall(UserError):
    """Texts that cannot give the pieces asked for, but `most` of them."""

    def __init__(self, pieces: int, most: int):
        super().__init__(
            f"pieces: found {pieces}, but these texts give {most} at most; ask for fewer or give more text"
        )
        self.most = most


def train_vocab(texts: Iterable[str], pieces: int, out: Path | str) -> None:
    """Trains a unigram vocabulary of `pieces` pieces, pad, eos and unk counted, sentinels not, and writes `out`.

    The file is there whole or not at all, and the same for the same texts in any order: training sees the
    sample of about 6 MB whose lines have the smallest hashes. UserError if the texts cannot give that many pieces.
    """
    if isinstance(pieces, bool) or not isinstance(pieces, int) or not UNK + 2 <= pieces <= _MOST_PIECES:
        raise UserError(f"pieces: found {pieces!r}; give a whole number from {UNK + 2} to {_MOST_PIECES:,}")
    out = Path(out)
    if out.is_dir():
        raise UserError(f"{out}: found a folder; give the name of a .model file to write")
    sample = _sample(texts)
    if not sample:
        raise UserError("vocabulary: found no text to train on; give text that is more than white space")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=iter(sample),
            model_writer=model,
            model_type="unigram",
            vocab_size=pieces,
            pad_id=PAD,
            eos_id=EOS,
            unk_id=UNK,
            bos_id=-1,
            num_threads=_THREADS,
            input_sentence_size=0,
            max_sentence_length=_SENTENCE_BYTES + 8,
            character_coverage=_COVERAGE,
            normalization_rule_name="nmt_nfkc",
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        if most := re.search(r"too high.*<= (\d+)", str(error)):
            raise TextTooSmall(pieces, int(most[1])) from None
        raise UserError(f"pieces: found {pieces}, {_why(str(error))}") from None
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as beside:
        beside.write_bytes(model.getvalue())


def _why(message: str) -> str:
    """The trainer's complaints in words that say what to do."""
    if least := re.search(r"required_chars.*?\d+ vs (\d+)", message):
        return f"but the characters of these texts need {least[1]} alone; ask for more than that"
    return f"and training failed ({_one_line(RuntimeError(message))}); ask for another number or give more text"


def _sample(texts: Iterable[str]) -> list[str]:
    """Lines by ascending hash until there are enough: a fair sample that does not depend on the texts' order."""
    held: list[tuple[int, str]] = []  # a heap with the largest hash on top
    size = 0
    for line in _sentences(texts):
        key = xxhash.xxh3_64_intdigest(line.encode())
        if size < _SAMPLE_BYTES or key < -held[0][0]:
            heapq.heappush(held, (-key, line))
            size += len(line)
            while size - len(held[0][1]) >= _SAMPLE_BYTES:
                size -= len(heapq.heappop(held)[1])
    return [line for _, line in sorted(held, reverse=True)]


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    """Lines of at most 4,000 bytes, with something in them. Longer ones are cut, at a space where there is one."""
    for text in texts:
        # The trainer cuts out what is spelled like a special piece: a space keeps its characters in.
        text = re.sub(r"<(/s|pad|unk)>", r"< \1>", _SURROGATE.sub("\ufffd", text).replace("\0", " "))
        for line in text.splitlines():
            while len(line.encode()) > _SENTENCE_BYTES:
                cut = line.encode()[: _SENTENCE_BYTES + 1].decode("utf-8", "ignore")
                head = cut.rpartition(" ")[0] or cut[:-1]
                yield head
                line = line[len(head) :]
            if line.strip():
                yield line
