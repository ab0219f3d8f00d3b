"""Commands around text: corpus, vocab, show."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


def _corpus(patterns: list[str] | None) -> Any:
    from t5study.corpus import pydocs
    from t5study.corpus.read import text_files

    return text_files(patterns) if patterns else pydocs.here()


# --- corpus -------------------------------------------------------------------------------------------------------


def corpus_build(args: argparse.Namespace) -> None:
    from t5study.corpus.build import build_corpus
    from t5study.ground.store import whole_folder

    source = _corpus(args.text)
    with whole_folder(args.out) as folder:
        counts = build_corpus(source, folder)
    print(f"{args.out}: " + ", ".join(f"{name} {value:,}" for name, value in counts.items() if isinstance(value, int)))


def corpus_tokens(args: argparse.Namespace) -> None:
    from t5study.corpus.build import read_documents
    from t5study.corpus.tokens import TokenStore, write_tokens
    from t5study.vocab import load_vocab

    vocab = load_vocab(args.vocab)
    write_tokens(read_documents(args.corpus), vocab, args.out, max_tokens=args.max_tokens)
    store = TokenStore.open(args.out)
    print(f"{args.out}: documents {len(store):,}, tokens {store.n_tokens:,} ({store.tokens.dtype})")


def corpus_inspect(args: argparse.Namespace) -> None:
    from t5study.ground.store import read_json, verify

    manifest = verify(args.folder)
    for name, entry in manifest["files"].items():
        print(f"{name}: {entry['bytes']:,} bytes, xxh3 {entry['xxh3']}")
    print(f"written by: t5study {manifest['code']}")
    for name in manifest["files"]:
        if name.endswith(".json"):
            for fact, value in read_json(args.folder / name).items():
                print(f"{fact.replace('_', ' ')}: {value:,}" if type(value) is int else f"{fact}: {value}")
    if (args.folder / "documents.parquet").is_file():
        from t5study.corpus.build import read_documents

        print(f"first document: {next(iter(read_documents(args.folder)), '')[:300]!r}")
    if (args.folder / "tokens.npy").is_file():
        from t5study.corpus.tokens import TokenStore

        store = TokenStore.open(args.folder, verify=False)
        first = store.tokens[: min(20, int(store.offsets[1]))]
        print(f"first document: {[int(i) for i in first]} ...")


# --- vocab --------------------------------------------------------------------------------------------------------


def vocab_train(args: argparse.Namespace) -> None:
    from t5study.vocab import Vocab, train_vocab

    if args.out.exists():
        raise UserError(f"{args.out}: exists already; delete it or choose another name")
    train_vocab((page.text for page in _corpus(args.text).pages()), args.pieces, args.out)
    print(_sizes(Vocab.load(args.out)))


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
