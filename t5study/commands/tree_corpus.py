"""The commands that make text ready to train on: corpus build, tokens, inspect; vocab train, inspect."""

from __future__ import annotations

import argparse
import re
from typing import Any

from t5study.commands import flags
from t5study.commands.flags import Parser, Real, Whole, folder, place
from t5study.commands.leaves import group, leaf


def amount(text: str) -> int:
    """A number of tokens or bytes: 35000000, 2^29.

    >>> amount("2^29"), amount("1000")
    (536870912, 1000)
    """
    found = re.fullmatch(r"(\d{1,15})(?:\^(\d{1,2}))?", text.strip())
    value = int(found[1]) ** int(found[2] or 1) if found and len(found[1]) <= (3 if found[2] else 15) else 0
    if not 1 <= value <= 2**50:
        raise argparse.ArgumentTypeError(f"found {text[:40]!r}, give a number such as 1000000 or 2^29")
    return value


def add(commands: Any) -> None:
    """Adds them to the command line."""
    corpus = group(commands, "corpus", "text -> documents -> tokens, ready to pre-train on")
    _build(corpus)
    tokens = leaf(
        corpus,
        "tokens",
        "corpus.tokens",
        "Encode documents once: tokens.npy and offsets.npy, which training maps into memory.",
        "--corpus my-corpus --vocab my.model --out my-tokens\n"
        "  t5study corpus tokens --corpus c4 --vocab my.model --max-tokens 2^29 --trained 2^35 --out c4-small",
    )
    tokens.add_argument("--corpus", type=folder, required=True, help="folder that `corpus build` wrote")
    tokens.add_argument("--vocab", type=folder, required=True, help="SentencePiece .model, or: bytes")
    tokens.add_argument("--max-tokens", type=amount, help="stop after this many tokens: 1000000, 2^29")
    tokens.add_argument("--trained", type=amount, help="say how often this many tokens of training go through them")
    tokens.add_argument("--workers", type=Whole(1, 1024), default=1, help="processes that encode (1: a thread a core)")
    tokens.add_argument("--out", type=folder, required=True, help="folder to write; must not exist")
    inspect = leaf(
        corpus,
        "inspect",
        "corpus.inspect",
        "Check every file of a corpus or token folder against its digest; show counts, what each rule took, lengths, "
        "languages, and what was left out.",
        "my-corpus --samples 3 --plot rules.svg",
    )
    inspect.add_argument("folder", type=folder, help="folder that `corpus build` or `corpus tokens` wrote")
    inspect.add_argument("--samples", type=Whole(0, 5), default=1, help="pages to show of every reason")
    inspect.add_argument(
        "--plot", type=folder, help="draw what rules took, lengths and languages: an .svg or .png to write"
    )
    _vocab(group(commands, "vocab", "train or look at a SentencePiece vocabulary"))


def _build(corpus: Any) -> None:
    build = leaf(
        corpus,
        "build",
        "corpus.build",
        "Make documents of text: your files as they are (--text), or a recipe of the paper's (--recipe) from web "
        "archives and dumps. Without either: the documentation inside the Python packages of this machine. A recipe's "
        "build that was interrupted goes on with the same command.",
        "--text 'books/*.txt' 'web/*.jsonl.zst' --out my-corpus\n"
        "  t5study corpus build --recipe c4 --profile paper --input 'wet/*.gz' --workers 8 --out c4",
    )
    flags.text(build)
    build.add_argument("--out", type=folder, required=True, help="folder to write; must not exist")
    build.add_argument(
        "--recipe",
        choices=["c4", "unfiltered", "realnews", "webtext", "wikipedia", "own"],
        help="the paper's data sets (Table 8); own: your text with the rules of a profile",
    )
    build.add_argument("--profile", help="whose rules: paper (default), 2.2.0, 3.0.1 or 3.1.0, versions of C4")
    build.add_argument(
        "--input",
        nargs="+",
        type=place,
        metavar="PATTERN",
        help="files of a recipe: .wet and .warc (.gz), .xml.bz2 dumps, .json.gz of C4, text; hub:allenai/c4/en/*.gz",
    )
    _lists(build)
    build.add_argument(
        "--engine",
        nargs="+",
        default=["pool"],
        metavar="ENGINE",
        help="pool (processes here), ray, or: task 3/10 (the third of ten jobs of a Slurm array)",
    )
    build.add_argument("--workers", type=Whole(1, 4096), default=1, help="processes, each below about 1 GB")
    build.add_argument("--memory", type=amount, default=2**28, help="bytes that a reducer holds")
    build.add_argument("--lengths", action="store_true", help="cut WET records by Content-Length, not as C4 did")
    build.add_argument("--rejects", action="store_true", help="keep every page that is left out, with its reason")
    build.add_argument("--estimate", action="store_true", help="only say what it will take: core-hours, disk")


def _lists(build: Parser) -> None:
    build.add_argument(
        "--skip",
        nargs="+",
        choices=["clean", "dedup", "language", "badwords", "urls", "length"],
        help="rules that the recipe own leaves out",
    )
    build.add_argument("--language", help="recipe own: the pages of this language (de, fr, ro ...), not of English")
    build.add_argument("--detector", choices=["langdetect", "cld2", "resiliparse"], help="recipe own: who says which")
    build.add_argument("--sure", type=Real(0, 1e6), help="recipe own: how sure it must be, by the detector's measure")
    build.add_argument("--bad-words", type=folder, help="recipe own: a list in its language, an entry a line")
    build.add_argument("--sites", type=folder, help="realnews: Grover's domain_to_allowed_subdomains.json")
    build.add_argument("--sites-digest", help="sha256 of a list of sites that is not Grover's")
    build.add_argument("--urls", nargs="+", type=place, metavar="PATTERN", help="webtext: files of URLs, one a line")


def _vocab(vocab: Any) -> None:
    train = leaf(
        vocab,
        "train",
        "text.vocab_train",
        "Train a unigram vocabulary on text. T5's 100 sentinels (<extra_id_0> ...) come on top of its pieces.",
        "--text 'books/*.txt' --pieces 8000 --out my.model\n"
        "  t5study vocab train --parts 10=c4 1='de/*.json.gz' 1='fr/*.json.gz' 1='ro/*.json.gz' --out t5.model",
    )
    flags.text(train)
    train.add_argument("--corpus", type=folder, help="instead of --text: a folder that `corpus build` wrote")
    train.add_argument(
        "--parts",
        nargs="+",
        type=place,
        metavar="N=SOURCE",
        help="instead: several corpora or patterns by characters, T5's 10 parts English to 1 each of three languages",
    )
    train.add_argument("--pieces", type=Whole(1), default=32_000, help="pieces, sentinels not counted")
    train.add_argument("--out", type=folder, required=True, help="the .model file to write; must not exist")
    look = leaf(
        vocab,
        "inspect",
        "text.vocab_inspect",
        "Sizes and special ids of a vocabulary; the ids of a text if you give one.",
        "my.model 'Thank you <extra_id_0> me to your party'",
    )
    look.add_argument("vocab", type=folder, help="SentencePiece .model, or: bytes")
    look.add_argument("text", nargs="?", help="a text to encode and to decode again")
