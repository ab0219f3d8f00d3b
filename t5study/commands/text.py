"""Commands around text: vocab, show."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from t5study.ground.errors import UserError

if TYPE_CHECKING:
    from t5study.ground.pairs import Ids
    from t5study.vocab import AnyVocab

SENTENCE = (  # the paper's, in its Table 3, and another one, so that there is more than one span to hide
    "Thank you for inviting me to your party last week . The music was good , the cake was better , and on the way "
    "home we talked of nothing else ."
)
LEAST_TOKENS, MOST_TOKENS = 2, 10_000


# --- vocab --------------------------------------------------------------------------------------------------------


def vocab_train(args: argparse.Namespace) -> None:
    from t5study.vocab import Vocab, train_vocab

    if args.out.exists():
        raise UserError(f"{args.out}: exists already; delete it or choose another name")
    train_vocab(_texts(args), args.pieces, args.out)
    print(_sizes(Vocab.load(args.out)))


def _texts(args: argparse.Namespace) -> Iterator[str]:
    """What a vocabulary is trained on: files, a corpus, several sources in parts, or what is inside Python."""
    from t5study.commands.corpus import corpus_source
    from t5study.corpus.build import read_documents

    if sum(bool(one) for one in (args.text, args.corpus, args.parts)) > 1:
        raise UserError("vocab train: found more than one of --text, --corpus and --parts; give one")
    if args.corpus:
        return read_documents(args.corpus)
    if args.parts:
        return _in_parts(args.parts)
    return (page.text for page in corpus_source(args.text).pages())


def _in_parts(parts: list[str]) -> Iterator[str]:
    """10=english 1='german/*.txt': by characters, folders that `corpus build` wrote or files."""
    from t5study.corpus.build import has_documents, read_documents
    from t5study.corpus.read import text_files
    from t5study.corpus.recipes import mixed

    sources: list[Iterator[str]] = []
    numbers: list[int] = []
    for part in parts:
        number, equals, where = part.partition("=")
        if not equals or not number.isascii() or not number.isdigit() or not 1 <= int(number) <= 10**6 or not where:
            raise UserError(f"--parts: found {part[:60]!r}; give parts such as 10=my-corpus 1='german/*.txt'")
        numbers.append(int(number))
        if has_documents(Path(where)):
            sources.append(read_documents(Path(where)))
        else:
            sources.append(page.text for page in text_files([where]).pages())
    return mixed(sources, numbers)


def vocab_inspect(args: argparse.Namespace) -> None:
    from t5study.vocab import load_vocab

    vocab = load_vocab(args.vocab)
    print(_sizes(vocab))
    if args.text is not None:
        ids = [int(i) for i in vocab.encode(args.text, sentinels=True)]
        print(f"ids: {ids}\ntext: {vocab.decode(ids)}")


def _sizes(vocab: AnyVocab) -> str:
    ids, where = vocab.ids, vocab.path or "bytes"
    return (
        f"{where}: {ids.pieces:,} pieces + {ids.sentinels} sentinels = {ids.size:,} ids, table {ids.table_rows:,} "
        f"rows; pad 0, eos 1, unk 2, <extra_id_0> {ids.sentinel(0)}"
    )


# --- show ---------------------------------------------------------------------------------------------------------


def show(args: argparse.Namespace) -> None:
    """An objective as text: what it hides and what it asks for. Words are the tokens unless a vocabulary is given."""
    from t5study import objectives
    from t5study.ground.seeds import keys

    if args.objective is None:
        print("\n".join(objectives.names()))
        print("\nlook at one: t5study show 'span_corruption(rate=0.15, mean_span=3)'")
        return
    objective = objectives.parse(args.objective)
    text = " ".join((SENTENCE if args.text is None else args.text).split())
    if args.vocab:
        ids, tokens_N, say = _pieces(args.vocab, text)
    else:
        ids, tokens_N, say = _words(text)
    if not LEAST_TOKENS <= len(tokens_N) <= MOST_TOKENS:
        raise UserError(f"--text: found {len(tokens_N):,} tokens; give {LEAST_TOKENS} to {MOST_TOKENS:,}")
    raw_BL = np.tile(tokens_N, (args.rows, 1))
    length_B = np.full(args.rows, len(tokens_N), np.int32)
    key_B = keys(args.seed, "show", np.arange(args.rows))
    pairs = objective.pairs(raw_BL, length_B, key_B, ids, objectives.roomy(len(tokens_N)))
    lengths = objective.lengths(512)
    print(
        f"{objective.label}\n"
        f"a row of 512 input tokens reads {lengths.raw} tokens of text; its targets have up to {lengths.targets}\n\n"
        f"text      {text}"
    )
    for pair in pairs:
        print(f"\ninputs    {say(pair.source)}\ntargets   {say(pair.target)}")


Spelling = tuple["Ids", np.ndarray, Callable[[np.ndarray], str]]  # a text's ids, and how ids are said


def _pieces(path: Path, text: str) -> Spelling:
    from t5study.vocab import load_vocab

    vocab = load_vocab(path)
    return vocab.ids, vocab.encode(text), lambda row_N: f"{vocab.decode(row_N)} </s>".lstrip()


def _words(text: str) -> Spelling:
    """Every different word is an id: no vocabulary needed to see what an objective does."""
    from t5study.ground.pairs import Ids

    names = ["<pad>", "</s>", "<unk>", *dict.fromkeys(text.split())]
    place = {name: i for i, name in enumerate(names) if i > 2}
    ids = Ids(size=len(names) + 100)
    names += [f"<extra_id_{k}>" for k in reversed(range(100))]
    tokens_N = np.array([place[word] for word in text.split()], np.int32)
    return ids, tokens_N, lambda row_N: " ".join(names[i] for i in row_N)
