"""Translation as T5 reads it: "translate English to German: " and a sentence -> the sentence in German, as it stands.

    wmt/ende, wmt/enfr, wmt/enro       the paper's; validation sets newstest2013, newstest2014, newsdev2016
    wmt/en-cs                          any pair of languages
    wmt/multi30k:en-de                 only what lies in a folder called multi30k
    wmt/en-de@newstest2014             scored on that set; nothing to train on

Read are all files of the pair in the folder "translation" (or "wmt") and the folders in it: two files with a line a
sentence (train.en and train.de; europarl-v7.de-en.de and europarl-v7.de-en.en), WMT's SGM (newstest2014-deen-src.en.sgm
and -ref.de.sgm) and the hub's parquet. A set is validated on by its name: the paper's own if it is there, else dev*,
val* and newsdev*, else the first of test*, tst* and newstest*; the other test sets are left alone. All else is trained
on.
Several references of one set (ref.A, ref.B) are all acceptable; outputs of systems (hyp) are not read.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from t5study.ground.errors import Missing, UserError
from t5study.tasks.records import short, table, texts
from t5study.tasks.sources import Home
from t5study.tasks.task import Factory, Row, Rows, Task, make_task

LANGUAGES: Mapping[str, str] = {
    "af": "Afrikaans", "ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan", "cs": "Czech",
    "cy": "Welsh", "da": "Danish", "de": "German", "el": "Greek", "en": "English", "eo": "Esperanto", "es": "Spanish",
    "et": "Estonian", "eu": "Basque", "fa": "Persian", "fi": "Finnish", "fr": "French", "ga": "Irish",
    "gl": "Galician", "gu": "Gujarati", "ha": "Hausa", "he": "Hebrew", "hi": "Hindi", "hr": "Croatian",
    "hu": "Hungarian", "hy": "Armenian", "id": "Indonesian", "is": "Icelandic", "it": "Italian", "iu": "Inuktitut",
    "ja": "Japanese", "ka": "Georgian", "kk": "Kazakh", "km": "Khmer", "ko": "Korean", "la": "Latin",
    "liv": "Livonian", "lt": "Lithuanian", "lv": "Latvian", "mk": "Macedonian", "mr": "Marathi", "ms": "Malay",
    "mt": "Maltese", "ne": "Nepali", "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "ps": "Pashto",
    "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sah": "Yakut", "si": "Sinhala", "sk": "Slovak",
    "sl": "Slovenian", "sq": "Albanian", "sr": "Serbian", "sv": "Swedish", "sw": "Swahili", "ta": "Tamil",
    "te": "Telugu", "th": "Thai", "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese",
    "xh": "Xhosa", "yo": "Yoruba", "zh": "Chinese", "zu": "Zulu",
}  # fmt: skip

_DEV = re.compile(r"(dev|val|valid|validation|newsdev|newsdiscussdev|tune)\d*")
_TEST = re.compile(r"(test|tst|devtest|newstest|newsdiscusstest|generaltest|newssyscomb|eval)\d*")
_BLANKS = re.compile(r"[\t\n\r ]+")
_NO_SET = frozenset({"src", "ref", "tok", "raw"})  # words of a file's name that do not tell sets apart
_SEGMENT = re.compile(r"<seg\b[^>]*>(.*?)</seg>", re.IGNORECASE | re.DOTALL)
_ADDRESS = re.compile(r"(?:(?P<folder>[^:@/]+):)?(?P<source>[a-z]{2,3})-(?P<target>[a-z]{2,3})(?:@(?P<set>[^:@/]+))?")


@dataclass(frozen=True)
class Pair:
    """What a task translates. official: the sets that the paper validates on. inside: only files in a folder of that
    name. only: validate on the sets whose names begin so, and train on nothing."""

    name: str
    source: str
    target: str
    official: tuple[str, ...] = ()
    inside: str = ""
    only: str = ""
    column: str = ""

    @property
    def prefix(self) -> str:
        """What an input begins with."""
        return f"translate {LANGUAGES[self.source]} to {LANGUAGES[self.target]}: "


PAPER = (
    Pair("ende", "en", "de", ("newstest2013",), column="EnDe"),
    Pair("enfr", "en", "fr", ("newstest2014",), column="EnFr"),
    Pair("enro", "en", "ro", ("newsdev2016",), column="EnRo"),
)


# --- from names to sets -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ParallelSet:
    """Files that belong together: text or SGM; or, without a source, one parquet file that has both sides."""

    name: str
    folder: Path
    source: Path | None
    targets: tuple[Path, ...]


@dataclass(frozen=True)
class _Side:
    """One file of a set, as its name tells it. role: "src", "ref" or "" (either). letter: of one of several references.
    rank: what is better read of two (whether it is SGM, whether it is tokenised)."""

    path: Path
    name: str
    language: str
    role: str
    letter: str
    rank: tuple[bool, bool]


def sets(folder: Path, pair: Pair) -> list[ParallelSet]:
    """All sets of a pair in a folder and the folders in it, by folder and name."""
    sides: dict[tuple[Path, str], list[_Side]] = {}
    found: list[ParallelSet] = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and _lies_inside(path, folder, pair.inside):
            if path.name.endswith(".parquet"):
                if _has_both(path, pair):
                    found.append(ParallelSet(path.stem.lower(), path.parent, None, (path,)))
            elif (side := _side(path, pair)) is not None:
                sides.setdefault((path.parent, side.name), []).append(side)
    for (parent, name), these in sides.items():
        sources = [one for one in these if one.language == pair.source and one.role != "ref"]
        targets = [one for one in these if one.language == pair.target and one.role != "src"]
        if sources and targets:
            # plain text before SGM, raw text before tokenised; of several references all
            plainest = sorted(targets, key=lambda one: (one.rank, one.letter))[0]
            alike = [one for one in targets if (one.rank, one.role) == (plainest.rank, plainest.role)]
            source = min(sources, key=lambda one: one.rank)
            found.append(ParallelSet(name, parent, source.path, tuple(one.path for one in alike)))
    return sorted(found, key=lambda one: (str(one.folder), one.name))


def _lies_inside(path: Path, folder: Path, name: str) -> bool:
    return not name or name.lower() in [part.lower() for part in path.relative_to(folder.parent).parts[:-1]]


def _side(path: Path, pair: Pair) -> _Side | None:
    name = path.name.lower()
    for ending in (".gz", ".zst", ".txt"):
        name = name.removesuffix(ending)
    base, _, language = name.removesuffix(".sgm").rpartition(".")
    if not base or language not in (pair.source, pair.target):
        return None
    words = re.split(r"[.\-]", base)
    if "hyp" in words:
        return None
    role = next((word for word in words if word in ("src", "ref")), "")
    after = words.index("ref") + 1 if role == "ref" else len(words)
    letter = words[after] if after < len(words) and len(words[after]) == 1 else ""
    both = {pair.source, pair.target, pair.source + pair.target, pair.target + pair.source}
    rest = [word for i, word in enumerate(words) if word not in _NO_SET | both and not (letter and i == after)]
    return _Side(path, "-".join(rest), language, role, letter, (name.endswith(".sgm"), "tok" in words))


def _has_both(path: Path, pair: Pair) -> bool:
    first = next(islice(table(path), 1), None)
    told = first.get("translation") if first else None
    return isinstance(told, Mapping) and {pair.source, pair.target} <= set(told)


def split_of(found: Sequence[ParallelSet], pair: Pair) -> dict[str, list[ParallelSet]]:
    """Which sets are for training and which for validation (see the top of this file)."""
    if pair.only:
        return {"train": [], "validation": [one for one in found if one.name.startswith(pair.only.lower())]}
    kinds: dict[str, list[ParallelSet]] = {"official": [], "dev": [], "test": [], "train": []}
    for one in found:
        kinds["official" if one.name.startswith(pair.official) else _kind(one.name)].append(one)
    tests = sorted(kinds["test"], key=lambda one: one.name)[:1]
    return {"train": kinds["train"], "validation": kinds["official"] or kinds["dev"] or tests}


def _kind(name: str) -> str:
    words = re.split(r"[-_]", name)
    if "train" in words:
        return "train"
    kinds = {"dev": _DEV, "test": _TEST}
    return next((kind for kind, form in kinds.items() if any(map(form.fullmatch, words))), "train")


# --- from sets to rows --------------------------------------------------------------------------------------------


def rows_of(one: ParallelSet, pair: Pair, split: str) -> Iterator[Row]:
    """The rows of a set. A blank line has no row in training, and is an error in validation: leaving it out would
    change the score."""
    for number, source, targets in _columns(one, pair):
        if source.strip() and all(target.strip() for target in targets):
            references = tuple(targets) if len(targets) > 1 else ()
            yield Row(f"{one.folder.name}/{one.name}-{number}", pair.prefix + source, targets[0], references)
        elif split == "validation":
            blank = one.source if one.source and not source.strip() else one.targets[0]
            raise UserError(f"{blank}: row {number}: found a blank line; get a fresh copy")


def _columns(one: ParallelSet, pair: Pair) -> Iterator[tuple[int, str, list[str]]]:
    """(number, source, targets) of every line."""
    if one.source is None:
        for record in table(one.targets[0]):
            told = record.get("translation")
            there = told if isinstance(told, Mapping) else {}
            source, target = there.get(pair.source), there.get(pair.target)
            if not isinstance(source, str) or not isinstance(target, str):
                record.wrong("translation", f"found {short(told)}; give {pair.source} and {pair.target}")
            yield record.number, source, [target]
        return
    files = (one.source, *one.targets)
    columns = [sentences(file) for file in files]
    for file, column in zip(files, columns, strict=True):
        if len(column) != len(columns[0]):
            raise UserError(
                f"{file}: found {len(column):,} sentences where {one.source.name} has {len(columns[0]):,}; "
                "line N of one belongs to line N of the other, so get a fresh copy of both"
            )
    for number, (source, *targets) in enumerate(zip(*columns, strict=True), start=1):
        yield number, source, targets


def sentences(file: Path) -> list[str]:
    """The sentences of one side: a line each, or a <seg> each of an SGM file."""
    lines = [line for _, line in texts(file)]
    if ".sgm" not in file.suffixes:
        return lines
    found = _SEGMENT.findall("\n".join(lines))
    if not found:
        raise UserError(f"{file}: found no <seg> in it; give a file of WMT's SGM layout")
    return [_BLANKS.sub(" ", html.unescape(text)).strip() for text in found]


# --- tasks ------------------------------------------------------------------------------------------------------


def _translate(pair: Pair, data: Path | None = None) -> Task:
    wanted = f"{(*pair.official, 'newstest2014')[0]}.{pair.source}"
    home = Home(
        f"wmt/{pair.name}",
        ("translation", "wmt"),
        {"train": (f"train.{pair.source}",), "validation": (wanted,)},
        "https://www.statmt.org/wmt16/translation-task.html",
    )
    folder = home.folder(data)
    chosen = split_of(sets(folder, pair), pair)
    splits = {
        split: tuple(row for one in these for row in rows_of(one, pair, split)) for split, these in chosen.items()
    }
    if not any(splits.values()):
        raise Missing(
            f"{folder}: found no two files of {pair.name}; put {wanted} and its like in .{pair.target} "
            f"{'into its folder ' + pair.inside if pair.inside else 'there'}, from {home.where}"
        )
    beside = f"put train.{pair.source} and train.{pair.target} into {folder}"
    missing = {
        "train": beside,
        "validation": beside.replace("train.", f"{pair.official[0]}." if pair.official else "dev."),
    }
    rows = Rows(splits, {split: told for split, told in missing.items() if not splits[split]})
    column = pair.column or f"{pair.source}-{pair.target}"
    return make_task(home.task, rows, metric="bleu", column=column, input_length=512, target_length=512)


def other(name: str) -> Factory | None:
    """The task of a pair that has no name of its own ("en-cs", "multi30k:en-de", "en-de@newstest2014"), or None."""
    found = _ADDRESS.fullmatch(name)
    if found is None or found["source"] == found["target"]:
        return None
    for code in (found["source"], found["target"]):
        if code not in LANGUAGES:
            raise UserError(f"task wmt/{name}: found the language {code!r}; give one of {', '.join(LANGUAGES)}")
    official = next((one.official for one in PAPER if (one.source, one.target) == found.group("source", "target")), ())
    pair = Pair(name, found["source"], found["target"], official, found["folder"] or "", found["set"] or "")
    return partial(_translate, pair)


TASKS: dict[str, Factory] = {pair.name: partial(_translate, pair) for pair in PAPER}
