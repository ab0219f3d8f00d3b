"""Numbers and lists as a report writes them."""

from __future__ import annotations

from collections.abc import Iterable

from t5study.study.scores import Column


def figure(value: float | None, column: Column | None = None) -> str:
    """Two decimals of a metric, three of nats.

    >>> figure(-1.2345)
    '−1.23'
    """
    digits = 3 if column is not None and column.kind == "likelihood" else 2
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def signed(value: float | None, column: Column | None = None) -> str:
    """
    >>> signed(0.5), signed(-0.001), signed(None)
    ('+0.50', '0.00', '–')
    """
    text = figure(value, column)
    if value is None or not text.strip("−0."):
        return text.removeprefix("−")
    return text if value < 0 else f"+{text}"


def sigmas(units: float | None) -> str:
    """A difference in standard deviations of the repeated baselines.

    >>> sigmas(3.14), sigmas(-43.8), sigmas(None)
    ('+3.1 σ', '−44 σ', '–')
    """
    if units is None:
        return "–"
    text = f"{units:+.1f}" if abs(units) < 9.95 else f"{units:+.0f}"
    return ("0.0" if text in ("+0.0", "-0.0") else text).replace("-", "−") + " σ"


def size(units: float) -> str:
    """The same without its sign, beside a change that has one.

    >>> size(-3.14)
    '3.1 σ'
    """
    return sigmas(abs(units)).removeprefix("+")


def count(n: float) -> str:
    """
    >>> count(4128768), count(812), count(2132480), count(34359738368)
    ('4.1 million', '812', '2.1 million', '34.4 billion')
    """
    for unit, size in (("billion", 1e9), ("million", 1e6)):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return f"{n:,.0f}"


def listed(words: Iterable[str]) -> str:
    """
    >>> listed(["a", "b", "c"]), listed(["a"])
    ('a, b and c', 'a')
    """
    words = list(words)
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1] if words else "none"


def plural(n: int, word: str) -> str:
    """
    >>> plural(1, "run"), plural(2, "run")
    ('1 run', '2 runs')
    """
    return f"{n:,} {word}{'' if n == 1 else 's'}"
