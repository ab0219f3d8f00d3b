"""Recipes: which pages, which rules, in which order. Each is a value; RECIPES has those of the paper's Tables 8 and 9.

    c4          Common Crawl, all rules, nothing said twice, English                          745 GB in the paper
    unfiltered  the same without rules and without dedup: one page a URL, English             6.1 TB
    realnews    c4 on the sites of RealNews; bring the list of sites                           35 GB
    webtext     c4 on the pages that OpenWebText links to; bring the list of URLs              17 GB
    wikipedia   articles of a dump, as they are. With books beside it as plain text: Wikipedia + TBC   16 and 20 GB
    own         your text with the rules of a profile, without those you name

The rules themselves stand in rules.py and rules_spans.py.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from t5study.corpus.dedup import save
from t5study.corpus.files import told
from t5study.corpus.page import Drop, Page, dropped
from t5study.corpus.profiles import Profile, find_profile
from t5study.corpus.rules_url import normalise_url, url_key
from t5study.ground.errors import UserError
from t5study.ground.store import read_json

UNSIGNED = {"fingerprint": False}
# Grover's domain_to_allowed_subdomains.json at commit 38f7184, which RealNews-like C4 was made with: 141,626 bytes.
GROVER = "75681899371acbf57b502ca8be48b3ca2d3339a276c396f3001b6a14da691ff3"

# What `own` can leave out, by the word that a user says.
PARTS = ("clean", "dedup", "language", "badwords", "urls", "length")


@dataclass(frozen=True)
class Listed:
    """A list that the user brings: sites or addresses. digest: sha256 of the file, or of the files in their order."""

    digest: str
    paths: tuple[Path, ...] = field(metadata=UNSIGNED)


@dataclass(frozen=True)
class Recipe:
    """clean: the rules before dedup. dedup: spans that other pages have go. finish: language, then bad words.
    one_url: one page a URL. rules are the profile's, whose fields can be changed (`replace`)."""

    name: str
    profile: Profile
    clean: bool = True
    dedup: bool = True
    one_url: bool = True
    capped: bool = True
    sites: Listed | None = None
    addresses: Listed | None = None

    def admits(self, page: Page, known: Callable[[Page], str]) -> str:
        """Why a page plays no part at all, or "". known: the test of the lists (`by_lists`)."""
        from t5study.corpus.rules import is_too_long

        if self.capped and is_too_long(page.text, self.profile):
            return "too long"
        if self.name != "own" and self.one_url and self.profile.same_url == "newest" and not page.timestamp:
            return "without a date"
        return known(page)

    def address(self, page: Page) -> str:
        """What pages are told apart by: the normalised URL. Where that is only the name of a file and a line in
        it, which files of other folders may share, a page is the same as its own copies alone."""
        return normalise_url(page.url, self.profile) if "://" in page.url else f"{page.url}\n{page.text}"

    def before(self, page: Page, counts: Counter[str]) -> Page | Drop:
        """The rules of a page by itself, before dedup."""
        from t5study.corpus.rules import clean

        if not self.clean:
            return page if page.text.strip() else dropped("empty", counts)
        return clean(page, self.profile, counts)

    def after(self, pages: Sequence[Page | Drop], counts: Counter[str]) -> list[Page | Drop]:
        """The rules that come last, each over all pages before the next: language, bad words."""
        from t5study.corpus.rules import in_language, without_bad_words

        known = [in_language(one, self.profile, counts) if isinstance(one, Page) else one for one in pages]
        return [without_bad_words(one, self.profile, counts) if isinstance(one, Page) else one for one in known]

    def owner(self, page: Page) -> str:
        """The address whose md5 decides which page keeps a span: the newest code takes it as the server spells it."""
        return page.url if self.profile.same_url == "newest" else normalise_url(page.url, self.profile)


def make_recipe(
    name: str,
    profile: str = "paper",
    *,
    skip: Sequence[str] = (),
    sites: Path | None = None,
    sites_digest: str | None = None,
    addresses: Sequence[Path] = (),
    language: str | None = None,
    detector: str | None = None,
    sure: float | None = None,
) -> Recipe:
    """The recipe of a name. UserError for an unknown one, and for a list that is missing or not what it should be.

    language, detector, sure: of the recipe own, in place of English, langdetect and 0.99.
    """
    if name not in NAMES:
        raise UserError(f"recipe: found {name!r}; give one of {', '.join(NAMES)}")
    if skip and name != "own":
        raise UserError(f"--skip: found {skip[0]!r} with the recipe {name}; rules are left out of the recipe own alone")
    for part in skip:
        if part not in PARTS:
            raise UserError(f"--skip: found {part!r}; give one of {', '.join(PARTS)}")
    if (sites is not None) != (name == "realnews"):
        need = "needs --sites, the JSON of sites RealNews was made of" if name == "realnews" else "takes no --sites"
        raise UserError(f"recipe {name}: {need}")
    if bool(addresses) != (name == "webtext"):
        need = "needs --urls, OpenWebText's files of URLs" if name == "webtext" else "takes no --urls"
        raise UserError(f"recipe {name}: {need}")
    rules = _in_language(find_profile(profile), name, skip, language, detector, sure)
    if "language" in skip or name == "wikipedia":
        rules = replace(rules, language=None)
    if rules.language is not None:  # told now, not when all pages have been read
        from t5study.corpus.language import check_language

        check_language(rules.detector, rules.language)
    if "badwords" in skip or name in ("unfiltered", "wikipedia"):
        rules = replace(rules, bad_words=None)
    if name == "wikipedia":
        rules = replace(rules, validation=False)
    bare = name in ("unfiltered", "wikipedia")
    return Recipe(
        name,
        rules,
        clean=not bare and "clean" not in skip,
        dedup=not bare and "dedup" not in skip,
        one_url=name != "wikipedia" and "urls" not in skip,
        capped=name != "wikipedia" and "length" not in skip,
        sites=None if sites is None else _sites(sites, sites_digest),
        addresses=_listed(addresses) if addresses else None,
    )


def _in_language(
    rules: Profile, name: str, skip: Sequence[str], language: str | None, detector: str | None, sure: float | None
) -> Profile:
    """A profile with the language that a user asks for, by the detector that a user names."""
    asked = {"--language": language, "--detector": detector, "--sure": sure}
    given = [flag for flag, value in asked.items() if value is not None]
    if not given:
        return rules
    if name != "own" or "language" in skip:
        why = "with --skip language" if name == "own" else f"with the recipe {name}; it is the recipe own's alone"
        raise UserError(f"{given[0]}: found it {why}")
    from t5study.corpus import language as languages

    detector = detector or rules.detector
    if detector != rules.detector and sure is None:
        raise UserError(
            f"--sure: missing; {detector} measures in its own way, so C4's {rules.probability} means nothing to it "
            "(cld2: a share of the text, 0 to 1; resiliparse: a distance, 0 to 1200, smaller is surer)"
        )
    languages.detector(detector)  # whether it is there
    sure = rules.probability if sure is None else sure
    return replace(rules, language=language or rules.language, detector=detector, probability=sure)


NAMES = ("c4", "unfiltered", "realnews", "webtext", "wikipedia", "own")

# --- lists that the user brings -----------------------------------------------------------------------------------


def _listed(paths: Sequence[Path]) -> Listed:
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(Path(path).read_bytes())
        except OSError as error:
            raise UserError(f"{told(path)}: cannot be read ({error.strerror}); give a file that can") from None
    return Listed(digest.hexdigest(), tuple(Path(path) for path in paths))


def _sites(path: Path, wanted: str | None) -> Listed:
    """The list of sites, which must be the one that RealNews-like C4 was made with, or one whose digest is given."""
    listed = _listed([path])
    _read_sites(path)
    if wanted is None and listed.digest != GROVER:
        raise UserError(
            f"{told(path)}: is not Grover's list at commit 38f7184 (141,626 bytes, sha256 {GROVER[:12]}...); to use "
            f"your own, say --sites-digest {listed.digest}"
        )
    if wanted is not None and wanted.lower() != listed.digest:
        raise UserError(f"{told(path)}: its sha256 is {listed.digest}, not {wanted[:80]}; get the list again")
    return listed


def _read_sites(path: Path) -> dict[str, Any]:
    sites = read_json(path)
    if not isinstance(sites, dict) or not all(
        value is True or (isinstance(value, list) and all(isinstance(one, str) for one in value))
        for value in sites.values()
    ):
        raise UserError(f'{told(path)}: found no list of sites; give {{"example.com": true or ["news", ...]}}')
    return sites


def write_addresses(listed: Listed, path: Path) -> None:
    """The URLs of a list, normalised, as ascending 64-bit hashes: what every task maps into memory."""
    keys = set()
    for source in listed.paths:
        with open(source, encoding="utf-8", errors="replace") as file:
            keys.update(url_key(normalise_url(line.strip()))[:8] for line in file if line.strip())
    if not keys:
        raise UserError(f"{told(listed.paths[0])}: found no URL; give a text file with one a line")
    save(path, np.sort(np.frombuffer(b"".join(keys), ">u8").astype(np.uint64)))


def by_lists(recipe: Recipe, folder: Path) -> Callable[[Page], str]:
    """The test of a recipe's lists: why a page is on none, or "". folder: where addresses.npy lies."""
    if recipe.sites is not None:
        sites = _read_sites(recipe.sites.paths[0])
        whole = recipe.profile.same_url != "newest"  # older versions looked at the URL as it was
        return lambda page: _off_site(sites, page.url if whole else normalise_url(page.url))
    if recipe.addresses is not None:
        known_N = np.load(folder / "addresses.npy", mmap_mode="r")

        def unlisted(page: Page) -> str:
            key = np.frombuffer(url_key(normalise_url(page.url))[:8], ">u8").astype(np.uint64)[0]
            at = int(np.searchsorted(known_N, key))
            return "" if at < len(known_N) and known_N[at] == key else "URL that is not listed"

        return unlisted
    return lambda page: ""


def _off_site(sites: Mapping[str, Any], url: str) -> str:
    found = _suffixes()(url)
    allowed = sites.get(f"{found.domain}.{found.suffix}")
    if allowed is None:
        return "site that is not listed"
    return "part of a site that is not listed" if isinstance(allowed, list) and found.subdomain not in allowed else ""


@lru_cache(maxsize=1)
def _suffixes() -> Any:
    """What tells example.co.uk from blog.example.com: the public suffix list inside tldextract, never fetched."""
    try:
        import tldextract
    except ImportError:
        raise UserError("recipe realnews: needs the package tldextract: pip install 't5study[realnews]'") from None
    return tldextract.TLDExtract(cache_dir=None, suffix_list_urls=(), fallback_to_snapshot=True)


# --- sizes and mixtures -------------------------------------------------------------------------------------------

# Table 9: the first so many tokens of C4, and how often 2**35 tokens of pre-training go through them.
TRUNCATED = {2**29: 64, 2**27: 256, 2**25: 1024, 2**23: 4096}
VOCABULARY_MIX = (10, 1, 1, 1)  # English, German, French, Romanian (section 3.1.1)


def repeats(tokens: int, trained: int = 2**35) -> float:
    """How often `trained` tokens of pre-training go through a corpus of `tokens`.

    >>> [repeats(size) for size in TRUNCATED]
    [64.0, 256.0, 1024.0, 4096.0]
    """
    return trained / tokens


def mixed(sources: Sequence[Iterable[str]], parts: Sequence[int], characters: int = 1 << 26) -> Iterator[str]:
    """Texts of several sources, by characters in the given parts: 10 of the first to 1 of each other. Ends when the
    first source that runs out would break the parts, or after so many characters.

    >>> list(mixed([["aa"] * 9, ["b", "b"]], [4, 1]))
    ['aa', 'b', 'aa', 'aa', 'b', 'aa', 'aa']
    """
    assert len(sources) == len(parts)
    waiting = [iter(source) for source in sources]
    given = [0] * len(parts)
    while sum(given) < characters:
        behind = min(range(len(parts)), key=lambda i: (given[i] / parts[i], i))
        text = next(waiting[behind], None)
        if text is None:
            return
        given[behind] += len(text)
        yield text


def described(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain JSON, for a manifest."""
    fields = {name: getattr(recipe, name) for name in ("name", "clean", "dedup", "one_url", "capped")}
    lists = {name: listed.digest for name in ("sites", "addresses") if (listed := getattr(recipe, name)) is not None}
    return json.loads(json.dumps({**fields, "profile": vars(recipe.profile), **lists}))
