"""What became of the pages of a recipe's build, for people: counts, what rules took, lengths, languages, samples."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from t5study.ground.errors import UserError
from t5study.ground.store import read_json

_TOTALS = ("pages read", "documents", "characters", "held out")
_NO_LOSS = ("kept", "line: kept", "bad word, kept by lot")
_BAR = 40


def told(folder: Path, samples: int = 1) -> str:
    """The account of a build as lines of text; samples: pages to show of every reason."""
    counts, account = read_json(folder / "corpus.json"), read_json(folder / "account.json")
    recipe = account["recipe"]
    lines = [f"recipe: {recipe['name']}, profile {recipe['profile']['name']}, {len(account['inputs']):,} files"]
    lines += [f"{name}: {counts[name]:,}" for name in _TOTALS]
    lines += ["", "pages that rules took", *_bars(pages_lost(counts), counts["pages read"])]
    if lost := lines_lost(counts):
        lines += [
            "",
            "lines and sentences that rules took",
            *_bars(lost, sum(lost.values()) + counts.get("line: kept", 0)),
        ]
    if unread := {name: count for name, count in counts.items() if name.startswith("not read: ")}:
        lines += ["", "what could not be read, and the first of it"]
        first = account["first not read"]
        lines += [f"  {count:>12,}  {name[10:]} ({first.get(name[10:], '')})" for name, count in _falling(unread)]
    lines += ["", "documents by length in characters", *_bars(_by_length(account["lengths"]), counts["documents"])]
    lines += ["", "documents by language", *_bars(account["languages"], counts["documents"])]
    if (languages := _by_language(counts, account["languages"])) != account["languages"]:
        lines += ["", _BY_LANGUAGE, *_bars(languages, sum(languages.values()))]
    dropped = read_json(folder / "dropped.json")
    for reason in dropped if samples else ():
        lines += ["", f"left out, {reason}"]
        lines += [f"  {page['url'][:80]}: {page['text'][:160]!r}" for page in dropped[reason][:samples]]
    return "\n".join(lines) + "\n"


def pages_lost(counts: dict[str, int]) -> dict[str, int]:
    """Pages that each rule took."""
    return {
        name: count
        for name, count in counts.items()
        if name not in (*_TOTALS, *_NO_LOSS) and not name.startswith(("line: ", "sentence: ", "not read: "))
    }


def lines_lost(counts: dict[str, int]) -> dict[str, int]:
    """Lines, or sentences, that each rule took out of pages."""
    return {
        name: count
        for name, count in counts.items()
        if name.startswith(("line: ", "sentence: ")) and name not in _NO_LOSS
    }


def _falling(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _bars(counts: dict[str, int], whole: int) -> list[str]:
    """A line for each: how many, what share of the whole, a bar."""
    if not counts:
        return ["  none"]
    most, width = max(counts.values()), max(map(len, counts))
    ordered = counts.items() if all(name[:1].isdigit() for name in counts) else _falling(counts)
    return [
        f"  {name:<{width}} {count:>12,} {100 * count / max(whole, 1):6.2f} %  "
        f"{'█' * round(_BAR * count / most) or '▏'}"
        for name, count in ordered
    ]


_BY_LANGUAGE = "pages by language, of those that were asked for it"


def _by_language(counts: dict[str, int], kept: dict[str, int]) -> dict[str, int]:
    """Documents, and pages that went for their language."""
    shares = Counter(kept)
    shares.update({name[10:]: count for name, count in counts.items() if name.startswith("language: ")})
    return dict(shares)


def _by_length(lengths: dict[str, int]) -> dict[str, int]:
    """{bits of the length: documents} -> {"128 to 255": documents}"""
    bits = sorted(int(one) for one in lengths)
    return {f"{1 << (one - 1):,} to {(1 << one) - 1:,}": lengths[str(one)] for one in bits if one}


def plot(folder: Path, path: Path) -> None:
    """Draws what rules took, lengths and languages, as .svg or .png. UserError for another ending, or no account."""
    if path.suffix.lower() not in (".svg", ".png"):
        raise UserError(f"{path}: found {path.suffix or 'no ending'}; give a name that ends in .svg or .png")
    if not (folder / "account.json").is_file():
        raise UserError(f"{folder}: holds no account of rules; give a folder that `corpus build --recipe` wrote")
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "t5study"
    import matplotlib.pyplot as plt

    counts, account = read_json(folder / "corpus.json"), read_json(folder / "account.json")
    parts: list[tuple[str, dict[str, Any]]] = [
        ("pages that rules took", dict(_falling(pages_lost(counts)))),
        ("lines and sentences that rules took", dict(_falling(lines_lost(counts)))),
        ("documents by length in characters", _by_length(account["lengths"])),
        (_BY_LANGUAGE, dict(_falling(_by_language(counts, account["languages"])))),
    ]
    parts = [(title, found) for title, found in parts if found]
    heights = [max(2, len(found)) for _, found in parts]
    figure, axes = plt.subplots(
        len(parts), 1, figsize=(8, 1.2 * len(parts) + 0.28 * sum(heights)), squeeze=False, height_ratios=heights
    )
    for axis, (title, found) in zip(axes[:, 0], parts, strict=True):
        axis.barh(list(found), list(found.values()), color="#4878a8")
        axis.invert_yaxis()
        axis.set_title(title, loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
    figure.savefig(path, metadata=metadata)
    plt.close(figure)
