"""Documents -> a token store, beside sentencepiece's own batch encoding of the same texts on all cores, in one run.

    python bench/tokens.py [a SentencePiece .model or "train"]

About 20 MB of this machine's documentation (corpus/pydocs.py), in another order each time it is repeated, built into
`documents.parquet` first. Ours is what `t5study corpus tokens` does: the corpus is checked and read, encoded, written,
digested, opened and checked again. Theirs is one call with all texts in memory already, and nothing written: arrays
come back ("numpy"), or lists, which is its default. Contenders take turns. A speed is the median of the turns' by the
wall clock, processor seconds are the median of this process's and its children's, and a ratio the median of the turns'.
A ratio is to their arrays, the faster form. Exits with 1 if the command as it is by default is under 0.95 of them.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import sentencepiece

from t5study.corpus import pydocs
from t5study.corpus.build import build_corpus, read_documents
from t5study.corpus.page import Page
from t5study.corpus.tokens import TokenStore, write_tokens
from t5study.ground.machine import cores, describe
from t5study.vocab import Vocab, train_vocab

TURNS, PIECES, BYTES = 9, 8000, 20_000_000
ASKED = 0.95


def texts() -> list[str]:
    """Pages of the documentation, again and again in drawn orders until they are 20 MB."""
    pages, found, size = [page.text for page in pydocs.here().pages()], [], 0
    draw = random.Random(1)
    while size < BYTES:
        for text in draw.sample(pages, len(pages)):
            found.append(text)
            if (size := size + len(text.encode())) >= BYTES:
                break
    return found


def took(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the wall clock, and of the processor: this process's and those of its children, which have ended."""
    before, start = os.times(), time.perf_counter()
    work()
    wall, after = time.perf_counter() - start, os.times()
    return wall, sum(after[:4]) - sum(before[:4])


def write_corpus(some: list[str], folder: Path) -> None:
    """`documents.parquet` and what belongs to it."""

    class Source:
        value = "texts"

        def pages(self, drops: object = None) -> list[Page]:
            return [Page(text, f"text:{i}") for i, text in enumerate(some)]

    folder.mkdir()
    build_corpus(Source(), folder)  # pyright: ignore[reportArgumentType]


def command(corpus: Path, vocab: Vocab, out: Path, **how: int) -> TokenStore:
    """What `t5study corpus tokens` does (commands/corpus.py)."""
    write_tokens(read_documents(corpus), vocab, out, **how)
    return TokenStore.open(out)


def of_arrays(turns: list[dict[str, tuple[float, float]]], one: str, i: int) -> float:
    """A contender's speed as a part of their arrays', by the wall clock (i 0) or by processor seconds (i 1)."""
    return statistics.median(turn["sentencepiece, arrays"][i] / turn[one][i] for turn in turns)


def main() -> int:
    many = cores()
    with tempfile.TemporaryDirectory() as name:
        folder, fresh = Path(name), count()
        some, corpus = texts(), folder / "corpus"
        where = folder / "small.model" if sys.argv[1:] in ([], ["train"]) else Path(sys.argv[1])
        if where.parent == folder:
            train_vocab(some, PIECES, where)
        vocab, processor = Vocab.load(where), sentencepiece.SentencePieceProcessor(model_file=str(where))
        write_corpus(some, corpus)
        some = list(read_documents(corpus))  # the same texts in the corpus's order
        size = sum(len(text.encode()) for text in some) / 1e6
        print(f"{describe()}; {many} cores; sentencepiece {sentencepiece.__version__}, {vocab.ids.pieces:,} pieces")
        print(f"{len(some):,} documents, {size:.1f} MB; {TURNS} turns, medians")

        def ours(**how: int) -> TokenStore:
            return command(corpus, vocab, folder / f"{next(fresh)}", **how)

        def written() -> None:
            write_tokens(some, vocab, folder / f"{next(fresh)}")

        contenders: dict[str, Callable[[], object]] = {
            "sentencepiece, arrays": lambda: processor.encode(some, return_type="numpy", num_threads=many),
            "sentencepiece, lists": lambda: processor.encode(some, out_type=int, num_threads=many),
            "corpus tokens": ours,
            "corpus tokens, one thread": lambda: ours(threads=1),
            f"corpus tokens --workers {many}": lambda: ours(workers=many),
            "of it: write_tokens, texts in memory": written,
            "of it: reading the corpus": lambda: list(read_documents(corpus)),
        }
        arrays, store = processor.encode(some, return_type="numpy"), ours()
        assert np.array_equal(np.concatenate(arrays), store.tokens), "the same ids"
        turns = [{one: took(work) for one, work in contenders.items()} for _ in range(TURNS)]
        print(f"{'':40} {'MB/s':>7} {'wall s':>8} {'of arrays':>10} {'processor s':>12} {'of arrays':>10}")
        for one in contenders:
            wall, used = (statistics.median(turn[one][i] for turn in turns) for i in (0, 1))
            by_wall, by_used = (of_arrays(turns, one, i) for i in (0, 1))
            print(f"{one:40} {size / wall:7.1f} {wall:8.2f} {by_wall:10.2f} {used:12.2f} {by_used:10.2f}")
    ratio, used = (of_arrays(turns, "corpus tokens", i) for i in (0, 1))
    print(f"corpus tokens is {ratio:.2f} of sentencepiece's arrays, {used:.2f} by processor time; {ASKED} is asked for")
    return int(ratio < ASKED)


if __name__ == "__main__":
    sys.exit(main())
