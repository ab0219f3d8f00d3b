"""Commands that make text ready to train on: corpus build, tokens, inspect."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from t5study.ground.errors import Stopped, UserError

LARGE = 10**9  # bytes of input from which a build says beforehand what it will take


def corpus_source(patterns: list[str] | None) -> Any:
    """Where pages come from: the user's files, or the documentation inside Python."""
    from t5study.corpus import pydocs
    from t5study.corpus.read import text_files

    return text_files(patterns) if patterns else pydocs.here()


# --- build ----------------------------------------------------------------------------------------------------------

_OF_RECIPES = ("input", "profile", "skip", "sites", "sites_digest", "urls", "language", "detector", "sure", "bad_words")


def build(args: argparse.Namespace) -> None:
    if args.recipe is not None:
        _build_recipe(args)
        return
    for name in _OF_RECIPES:
        if getattr(args, name) is not None:
            raise UserError(f"--{name.replace('_', '-')}: belongs to a recipe; give --recipe c4, or --text alone")
    from t5study.corpus.build import build_corpus
    from t5study.ground.store import whole_folder

    source = corpus_source(args.text)
    with whole_folder(args.out) as folder:
        counts = build_corpus(source, folder)
    print(f"{args.out}: " + ", ".join(f"{name} {value:,}" for name, value in counts.items() if isinstance(value, int)))


def _build_recipe(args: argparse.Namespace) -> None:
    from t5study.corpus.engines import NotYet, parse_engine
    from t5study.corpus.read import find_files
    from t5study.corpus.recipe_build import build_recipe, estimate
    from t5study.corpus.recipes import make_recipe

    if args.text:
        raise UserError("--text: found it with --recipe; give the recipe's files with --input")
    if not args.input:
        raise UserError(f"--input: missing; give the files that the recipe {args.recipe} is made of")
    recipe = make_recipe(
        args.recipe,
        args.profile or "paper",
        skip=args.skip or (),
        sites=args.sites,
        sites_digest=args.sites_digest,
        addresses=find_files(args.urls) if args.urls else (),
        language=args.language,
        detector=args.detector,
        sure=args.sure,
        bad_words=args.bad_words,
    )
    engine = parse_engine(args.engine, args.workers)
    if args.estimate:
        print(estimate(recipe, args.input, args.lengths))
        return
    if sum(path.stat().st_size for path in find_files(args.input)) >= LARGE:
        print(f"build: {estimate(recipe, args.input, args.lengths)}", file=sys.stderr, flush=True)
    with _stopping():
        try:
            counts = build_recipe(
                recipe,
                args.input,
                args.out,
                engine,
                lengths=args.lengths,
                rejects=args.rejects,
                memory=args.memory,
            )
        except NotYet as told:
            print(told)
            return
    print(f"{args.out}: " + ", ".join(f"{name} {counts[name]:,}" for name in ("pages read", "documents", "characters")))


@contextmanager
def _stopping() -> Iterator[None]:
    """SIGTERM from a scheduler ends a build as Ctrl-C does: workers too, and the same command goes on."""

    def stop(signum: int, frame: object) -> None:
        raise Stopped(signum)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# --- tokens -----------------------------------------------------------------------------------------------------------


def tokens(args: argparse.Namespace) -> None:
    from t5study.corpus.build import read_documents
    from t5study.corpus.recipes import repeats
    from t5study.corpus.tokens import TokenStore, write_tokens
    from t5study.vocab import load_vocab

    vocab = load_vocab(args.vocab)
    documents = read_documents(args.corpus)
    write_tokens(documents, vocab, args.out, max_tokens=args.max_tokens, workers=args.workers)
    store = TokenStore.open(args.out)
    print(f"{args.out}: documents {len(store):,}, tokens {store.n_tokens:,} ({store.tokens.dtype})")
    if args.trained:
        times = repeats(store.n_tokens, args.trained)
        print(f"{args.trained:,} tokens of pre-training go through it {times:,.4g} times")


# --- inspect ----------------------------------------------------------------------------------------------------------


def inspect(args: argparse.Namespace) -> None:
    from t5study.ground.store import read_json, verify

    manifest = verify(args.folder)
    for name, entry in manifest["files"].items():
        print(f"{name}: {entry['bytes']:,} bytes, xxh3 {entry['xxh3']}")
    print(f"written by: t5study {manifest['code']}")
    if "account.json" in manifest["files"]:
        from t5study.corpus.inspect import told

        print(told(args.folder, samples=args.samples))
    else:
        for name in manifest["files"]:
            if name.endswith(".json"):
                for fact, value in read_json(args.folder / name).items():
                    print(f"{fact.replace('_', ' ')}: {value:,}" if type(value) is int else f"{fact}: {value}")
    if args.plot:
        from t5study.corpus.inspect import plot

        plot(args.folder, args.plot)
        print(f"{args.plot}: written")
    _first_document(args.folder)


def _first_document(folder: Path) -> None:
    from t5study.corpus.build import has_documents, read_documents

    if has_documents(folder):
        print(f"first document: {next(iter(read_documents(folder)), '')[:300]!r}")
    if (folder / "tokens.npy").is_file():
        from t5study.corpus.tokens import TokenStore

        store = TokenStore.open(folder, verify=False)
        first = store.tokens[: min(20, int(store.offsets[1]))]
        print(f"first document: {[int(i) for i in first]} ...")
