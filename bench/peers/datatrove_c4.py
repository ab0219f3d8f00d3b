"""datatrove's C4 pipeline as a process of its own: bench/corpus.py talks to it, since its needs and ours differ.

    PYTHON bench/peers/datatrove_c4.py BAD_WORDS      (a Python that has datatrove[io,processing], spacy, langdetect)

Its blocks, one after another in one process, as its local executor chains them: WarcReader; C4QualityFilter, with C4's
3 sentences and 5 words instead of its default of 5 and 3; English; C4BadWordsFilter. Two of them would download, which
a measurement must not: the list of bad words is BAD_WORDS, laid where it looks for a copy that it fetched before, and
in place of LanguageFilter, whose model is fetched, stands a LambdaFilter that asks langdetect, as C4 does. It has no
second count of sentences and compares no lines.

In: a line "FILE" (the whole chain) or "FILE without language" a run. Out: a line of JSON: the process's seconds, the
addresses that are kept. The first line out names the versions.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from importlib import import_module, metadata
from pathlib import Path
from typing import Any


def langdetect_is_sure(document: Any) -> bool:
    """C4's rule: English with 0.99 at least. Seed 0, as C4 has it."""
    detect = import_module("langdetect")
    detect.DetectorFactory.seed = 0
    try:
        found = detect.detect_langs(document.text)
    except detect.lang_detect_exception.LangDetectException:
        return False
    return bool(found) and found[0].lang == "en" and found[0].prob >= 0.99


def blocks(path: Path, language: bool) -> list[Any]:
    filters = import_module("datatrove.pipeline.filters")
    reader = import_module("datatrove.pipeline.readers").WarcReader(str(path.parent), glob_pattern=path.name)
    quality = filters.C4QualityFilter(min_num_sentences=3, min_words_per_line=5)
    english = [filters.LambdaFilter(langdetect_is_sure)] if language else []
    return [reader, quality, *english, filters.C4BadWordsFilter()]


def lay_bad_words(words: Path) -> None:
    """Where C4BadWordsFilter keeps the English list when it has been fetched."""
    module = import_module("datatrove.pipeline.filters.c4_filters")
    folder = import_module("huggingface_hub").cached_assets_path("datatrove", "filters", "c4_badwords")
    copy = Path(folder) / import_module("datatrove.io").strip_protocol(module._EN_BADWORDS_URL).replace("/", "_")
    copy.write_bytes(words.read_bytes())
    Path(f"{copy}.completed").touch()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_ASSETS_CACHE"] = folder
        os.environ["HF_HUB_OFFLINE"] = "1"
        lay_bad_words(Path(sys.argv[1]))
        names = ("datatrove", "spacy", "langdetect", "warcio")
        print(", ".join(f"{name} {metadata.version(name)}" for name in names), flush=True)
        for line in sys.stdin:
            path, _, without = line.rstrip("\n").partition(" without ")
            documents, chain = None, blocks(Path(path), language=not without)
            start = time.process_time()
            for block in chain:
                documents = block(documents)
            kept = [document.metadata["url"] for document in documents or ()]
            print(json.dumps({"seconds": time.process_time() - start, "kept": kept}), flush=True)


if __name__ == "__main__":
    main()
