"""Every GLUE and SuperGLUE task in its own file layout, with invented sentences: what the readers are tested on.

`official(folder)` writes the distribution files, odd things of the real ones among them: no header (CoLA), a byte-order
mark (MRPC), control characters, quotes that are text, a broken line (QQP). `hub(folder)` writes the same rows as the
hub stores them: parquet, labels as integers, -1 where they are hidden.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

# task -> file -> rows; the first row is the header, but in CoLA's labelled files
GLUE_FILES: dict[str, dict[str, list[tuple[str, ...]]]] = {
    "CoLA": {
        "train.tsv": [("ab01", "1", "", 'The kettle sings "softly.'), ("ab01", "0", "*", "Kettle the \x08sings soft.")],
        "dev.tsv": [("cd02", "1", "", "Nobody saw the postman."), ("cd02", "0", "*", "Nobody the saw postman.")],
        "test.tsv": [("index", "sentence"), ("0", "The lamp was lit.")],
    },
    "SST-2": {
        "train.tsv": [("sentence", "label"), ("a warm and patient story ", "1"), ("as dull as ditchwater ", "0")],
        "dev.tsv": [("sentence", "label"), ("it drags , badly . ", "0"), ("a small wonder . ", "1")],
        "test.tsv": [("index", "sentence"), ("0", "neither here nor there . ")],
    },
    "MRPC": {
        "train.tsv": [
            ("\ufeffQuality", "#1 ID", "#2 ID", "#1 String", "#2 String"),
            ("1", "11", "12", 'The mayor said " no " on Monday .', "On Monday the mayor refused ."),
            ("0", "13", "14", "Rain fell in the north .", "The north stayed dry ."),
        ],
        "dev.tsv": [
            ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),
            ("1", "21", "22", "The bridge is shut .", '" The bridge has been closed .'),
            ("0", "23", "24", "Two ships left .", "Ten ships arrived ."),
        ],
        "test.tsv": [
            ("index", "#1 ID", "#2 ID", "#1 String", "#2 String"),
            ("0", "31", "32", "A bell rang .", "A bell was heard ."),
        ],
    },
    "STS-B": {
        "train.tsv": [
            (
                "index",
                "genre",
                "filename",
                "year",
                "old_index",
                "source1",
                "source2",
                "sentence1",
                "sentence2",
                "score",
            ),
            ("0", "g", "f", "2012", "1", "n", "n", "A man plays a horn.", "A man plays a \x12flute.", "2.500"),
            ("1", "g", "f", "2012", "2", "n", "n", "A dog runs.", "A dog is running.", "5.000"),
        ],
        "dev.tsv": [
            (
                "index",
                "genre",
                "filename",
                "year",
                "old_index",
                "source1",
                "source2",
                "sentence1",
                "sentence2",
                "score",
            ),
            ("0", "g", "f", "2012", "1", "n", "n", "A boy sings.", "A girl sleeps.", "0.500"),
            ("1", "g", "f", "2012", "2", "n", "n", "Snow falls.", "It is snowing.", "4.750"),
        ],
        "test.tsv": [
            ("index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2"),
            ("0", "g", "f", "2012", "1", "n", "n", "A cup.", "A mug."),
        ],
    },
    "QQP": {
        "train.tsv": [
            ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
            ("7", "1", "2", "How do I boil an egg?", "How are eggs boiled?", "1"),
            ("8", "3", "4", "What is a fjord?"),  # the broken line that the real file has too
            ("9", "5", "6", "Why is the sea salty?", "", "0"),
        ],
        "dev.tsv": [
            ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
            ("1", "1", "2", "Who wrote it?", "Who printed it?", "0"),
            ("2", "3", "4", "Where is Ulm?", "In which land is Ulm?", "1"),
        ],
        "test.tsv": [("id", "question1", "question2"), ("0", "Is tea hot?", "Is hot tea hot?")],
    },
    "MNLI": {
        "train.tsv": [
            ("index", "promptID", "pairID", "genre", "sentence1", "sentence2", "label1", "gold_label"),
            (
                "0",
                "1",
                "1e",
                "fiction",
                "The ferry was late.",
                "The ferry came after its time.",
                "neutral",
                "entailment",
            ),
            ("1", "2", "2c", "fiction", "She never smokes.", "She smokes daily.", "contradiction", "contradiction"),
        ],
        "dev_matched.tsv": [
            ("index", "promptID", "pairID", "genre", "sentence1", "sentence2", "label1", "label2", "gold_label"),
            ("0", "1", "1n", "travel", "The inn has a garden.", "The inn is old.", "neutral", "neutral", "neutral"),
            (
                "1",
                "2",
                "2e",
                "travel",
                "All doors are shut.",
                "No door is open.",
                "neutral",
                "entailment",
                "entailment",
            ),
        ],
        "dev_mismatched.tsv": [
            ("index", "promptID", "pairID", "genre", "sentence1", "sentence2", "label1", "label2", "gold_label"),
            ("0", "1", "1c", "letters", "We met in May.", "We never met.", "x", "y", "contradiction"),
            ("1", "2", "2n", "letters", "We met in May.", "It rained in May.", "x", "y", "neutral"),
        ],
        "test_matched.tsv": [
            ("index", "promptID", "pairID", "genre", "sentence1", "sentence2"),
            ("0", "1", "1", "travel", "The path is steep.", "The path is flat."),
        ],
        "test_mismatched.tsv": [
            ("index", "promptID", "pairID", "genre", "sentence1", "sentence2"),
            ("0", "1", "1", "letters", "Dear Sir.", "Dear Madam."),
        ],
    },
    "QNLI": {
        "train.tsv": [
            ("index", "question", "sentence", "label"),
            ("0", "Where was the clock made?", "The clock was made in Ulm.", "entailment"),
            ("1", "Who wound it?", "It stood on the stairs.", "not_entailment"),
        ],
        "dev.tsv": [
            ("index", "question", "sentence", "label"),
            ("0", "How tall is the mast?", "The mast is pine.", "not_entailment"),
            ("1", "Of what is the mast?", "The mast is pine.", "entailment"),
        ],
        "test.tsv": [("index", "question", "sentence"), ("0", "When?", "At noon.")],
    },
    "RTE": {
        "train.tsv": [
            ("index", "sentence1", "sentence2", "label"),
            ("0", "The mill burned down in 1880.", "The mill was destroyed.", "entailment"),
            ("1", "The mill stands.", "The mill was sold.", "not_entailment"),
        ],
        "dev.tsv": [
            ("index", "sentence1", "sentence2", "label"),
            ("0", "He owns two boats.", "He owns a house.", "not_entailment"),
            ("1", "He owns two boats.", "He owns a boat.", "entailment"),
        ],
        "test.tsv": [("index", "sentence1", "sentence2"), ("0", "The well is dry.", "There is no water in the well.")],
    },
    "WNLI": {
        "dev.tsv": [
            ("index", "sentence1", "sentence2", "label"),
            ("0", "The trunk did not fit the car. It was too wide.", "The trunk was too wide.", "1"),
            ("1", "Mia thanked Eva for the scarf she had knitted.", "Mia had knitted.", "0"),
        ],
        "test.tsv": [
            ("index", "sentence1", "sentence2"),
            ("0", "The hen chased the cat until it hid.", "The hen chased the cat until the cat hid."),
        ],
    },
    "diagnostic": {
        "diagnostic-full.tsv": [
            ("Lexical Semantics", "Logic", "Domain", "Premise", "Hypothesis", "Label"),
            ("", "Negation", "News", "The shop is not open.", "The shop is open.", "contradiction"),
            ("", "", "News", "He ran home.", "He went home.", "entailment"),
        ],
        "diagnostic.tsv": [
            ("index", "sentence1", "sentence2"),
            ("0", "The shop is not open.", "The shop is open."),
            ("1", "He ran home.", "He went home."),
        ],
    },
}

_KITE = "The kite rose. <br>It was <b>red</b>."
_TRIAL = 'Ann Lee met Bo at the quay.\n@highlight\nThe "Sea Rose" sank!\n@highlight\nBo was saved'
_PONY = 'Tom fed the pony , and the pony trod on him. Ida laughed. "Serves him," she said. '
_PEBBLE = "When the boys came home , Ida locked the coin in a box . She might want to use it , but not yet ."


def _place(text: str, part: str) -> dict[str, int]:
    return {"start": text.index(part), "end": text.index(part) + len(part) - 1}


def _wsc(text: str, noun: tuple[str, int], pronoun: tuple[str, int]) -> dict[str, Any]:
    spans = {"span1_text": noun[0], "span1_index": noun[1], "span2_text": pronoun[0], "span2_index": pronoun[1]}
    return {"text": text, "target": spans}


def _multirc(idx: int, questions: list[tuple[int, str, list[tuple[int, str, int | None]]]]) -> dict[str, Any]:
    told = [
        {
            "question": question,
            "idx": number,
            "answers": [
                {"text": text, "idx": i} | ({} if label is None else {"label": label}) for i, text, label in answers
            ],
        }
        for number, question, answers in questions
    ]
    return {"idx": idx, "version": 1.1, "passage": {"text": _KITE, "questions": told}}


def _record(idx: int, queries: list[dict[str, Any]]) -> dict[str, Any]:
    entities = [_place(_TRIAL, part) for part in ("Bo", "Ann Lee", "Sea Rose")] + [_place(_TRIAL, "Bo was")]
    entities[3]["end"] -= len(" was")  # the second place of Bo
    return {"source": "Daily mail", "passage": {"text": _TRIAL, "entities": entities}, "qas": queries, "idx": idx}


_BO = [{"text": "Bo"} | _place(_TRIAL, "Bo"), {"text": "Ann Lee"} | _place(_TRIAL, "Ann Lee"), {"text": "Bo"}]
_RTE = [
    {"premise": "Ida sold the mill.", "hypothesis": "The mill was sold.", "label": "entailment", "idx": 0},
    {"premise": "Ida sold the mill.", "hypothesis": "Ida was rich.", "label": "not_entailment", "idx": 1},
]

SUPERGLUE_FILES: dict[str, dict[str, list[dict[str, Any]]]] = {
    "BoolQ": {
        "train.jsonl": [
            {"question": "is salt a mineral", "passage": "Salt -- Salt is a mineral.", "idx": 0, "label": True},
            {"question": "is salt sweet", "passage": "Salt -- Salt is a mineral.", "idx": 1, "label": False},
        ],
        "val.jsonl": [
            {"question": "do owls swim", "passage": "Owl -- Owls fly by night.", "idx": 0, "label": False},
            {"question": "do owls fly", "passage": "Owl -- Owls fly by night.", "idx": 1, "label": True},
        ],
        "test.jsonl": [{"question": "do owls read", "passage": "Owl -- Owls fly by night.", "idx": 0}],
    },
    "CB": {
        "train.jsonl": [
            {"premise": "She thinks it may rain.", "hypothesis": "It will rain.", "label": "neutral", "idx": 0},
            {"premise": "She knows it rained.", "hypothesis": "It rained.", "label": "entailment", "idx": 1},
        ],
        "val.jsonl": [
            {"premise": "Nobody said it was far.", "hypothesis": "It was far.", "label": "contradiction", "idx": 0},
            {"premise": "He saw it was far.", "hypothesis": "It was far.", "label": "entailment", "idx": 1},
            {"premise": "Was it far?", "hypothesis": "It was far.", "label": "neutral", "idx": 2},
        ],
        "test.jsonl": [{"premise": "Perhaps it was.", "hypothesis": "It was.", "idx": 0}],
    },
    "COPA": {
        "train.jsonl": [
            {
                "premise": "The candle went out.",
                "choice1": "A door opened.",
                "choice2": "It was noon.",
                "question": "cause",
                "label": 0,
                "idx": 0,
            },
        ],
        "val.jsonl": [
            {
                "premise": "It rained.",
                "choice1": "The path dried.",
                "choice2": "The path got wet.",
                "question": "effect",
                "label": 1,
                "idx": 0,
            },
            {
                "premise": "He slept.",
                "choice1": "He was tired.",
                "choice2": "He was awake.",
                "question": "cause",
                "label": 0,
                "idx": 1,
            },
        ],
        "test.jsonl": [
            {"premise": "It froze.", "choice1": "Ice came.", "choice2": "Bees came.", "question": "effect", "idx": 0}
        ],
    },
    "MultiRC": {
        "train.jsonl": [_multirc(3, [(0, "What rose?", [(0, "The kite", 1), (1, "", 0)])])],
        "val.jsonl": [
            _multirc(0, [(0, "Which colour?", [(0, "Red", 1), (1, "Blue", 0)]), (1, "What fell?", [(2, "It", 0)])])
        ],
        "test.jsonl": [_multirc(0, [(0, "Who flew it?", [(0, "Nobody", None)])])],
    },
    "ReCoRD": {
        "train.jsonl": [_record(5, [{"query": "@placeholder met someone.", "idx": 9, "answers": _BO}])],
        "val.jsonl": [
            _record(
                0,
                [
                    {"query": "The @placeholder is a ship.", "idx": 0, "answers": [{"text": "Sea Rose"}]},
                    {"query": "@placeholder was at the quay.", "idx": 1, "answers": _BO},
                ],
            )
        ],
        "test.jsonl": [_record(0, [{"query": "@placeholder lived.", "idx": 0}])],
    },
    "RTE": {
        "train.jsonl": _RTE,
        "val.jsonl": [{**row, "premise": "Last year Ida sold the mill."} for row in _RTE],
        "test.jsonl": [{"premise": "Ida sold the mill.", "hypothesis": "It was hers.", "idx": 0}],
    },
    "WiC": {
        "train.jsonl": [
            {
                "word": "bank",
                "sentence1": "A river bank.",
                "sentence2": "She robbed a bank.",
                "idx": 0,
                "label": False,
                "start1": 8,
                "start2": 13,
                "end1": 12,
                "end2": 17,
                "version": 1.1,
            },
        ],
        "val.jsonl": [
            {"word": "run", "sentence1": "Run home.", "sentence2": "He ran home.", "idx": 0, "label": True},
            {"word": "run", "sentence1": "Run a shop.", "sentence2": "He ran home.", "idx": 1, "label": False},
        ],
        "test.jsonl": [{"word": "set", "sentence1": "Set it down.", "sentence2": "A set of cups.", "idx": 0}],
    },
    "WSC": {
        "train.jsonl": [
            {
                **_wsc("I filled the jug from the pail until it was full.", ("The jug", 2), ("it", 8)),
                "idx": 0,
                "label": True,
            },
            {
                **_wsc("I filled the jug from the pail until it was full.", ("The pail", 5), ("it", 8)),
                "idx": 1,
                "label": False,
            },
        ],
        "val.jsonl": [
            {**_wsc(_PONY, ("Tom", 0), ("him", 14)), "idx": 0, "label": True},
            {**_wsc(_PEBBLE, ("the boys", 1), ("it", 18)), "idx": 1, "label": False},
        ],
        "test.jsonl": [{**_wsc("The hen saw the fox and she fled .", ("The hen", 0), ("she", 6)), "idx": 0}],
    },
    "AX-b": {
        "AX-b.jsonl": [
            {
                "sentence1": "No dog barked.",
                "sentence2": "A dog barked.",
                "idx": 0,
                "label": "not_entailment",
                "logic": "Negation",
            },
            {"sentence1": "Two dogs barked.", "sentence2": "A dog barked.", "idx": 1, "label": "entailment"},
        ],
    },
    "AX-g": {
        "AX-g.jsonl": [
            {
                "premise": "The nurse called the cook because he was late.",
                "hypothesis": "The cook was late.",
                "label": "entailment",
                "idx": 0,
            },
            {
                "premise": "The nurse called the cook because he was late.",
                "hypothesis": "The nurse was late.",
                "label": "not_entailment",
                "idx": 1,
            },
        ],
    },
}

DPR_FILES = {
    "train.c.txt": "The bees stung the bear until they fled.\nthey\nThe bees,the bear\nThe bees\n\n"
    "Cats chase mice because they, unlike dogs, are bored, and they sleep.\nthey\nCats,mice\nCats\n\n",
    "test.c.txt": "Ivo asked Per if he can swim.\nhe\nIvo,Per\nPer\n\n",
}


def official(folder: Path) -> Path:
    """Writes all files as the benchmarks distribute them; the folder again."""
    for task, files in GLUE_FILES.items():
        for name, rows in files.items():
            path = folder / "glue" / task / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes("".join("\t".join(row) + "\n" for row in rows).encode())
    for task, objects in SUPERGLUE_FILES.items():
        for name, lines in objects.items():
            path = folder / "superglue" / task / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (folder / "superglue" / "DPR").mkdir()
    for name, text in DPR_FILES.items():
        (folder / "superglue" / "DPR" / name).write_text(text, encoding="utf-8")
    return folder


# --- the hub's layout -------------------------------------------------------------------------------------------

_NLI = ("entailment", "neutral", "contradiction")
_ENTAILMENT = ("entailment", "not_entailment")
# config -> GLUE's folder, the hub's columns -> GLUE's, the label's column, its names (() for a number)
_HUB_GLUE: dict[str, tuple[str, dict[str, str], str, tuple[str, ...]]] = {
    "sst2": ("SST-2", {"sentence": "sentence"}, "label", ("0", "1")),
    "mrpc": ("MRPC", {"sentence1": "#1 String", "sentence2": "#2 String"}, "Quality", ("0", "1")),
    "stsb": ("STS-B", {"sentence1": "sentence1", "sentence2": "sentence2"}, "score", ()),
    "mnli": ("MNLI", {"premise": "sentence1", "hypothesis": "sentence2"}, "gold_label", _NLI),
    "qnli": ("QNLI", {"question": "question", "sentence": "sentence"}, "label", _ENTAILMENT),
    "rte": ("RTE", {"sentence1": "sentence1", "sentence2": "sentence2"}, "label", _ENTAILMENT),
    "wnli": ("WNLI", {"sentence1": "sentence1", "sentence2": "sentence2"}, "label", ("0", "1")),
}


def hub(folder: Path) -> Path:
    """Writes the same rows as the hub stores them; the folder again."""
    for config, (task, columns, label, names) in _HUB_GLUE.items():
        for name, (header, *rows) in GLUE_FILES[task].items():
            table = [dict(zip((cell.removeprefix("\ufeff") for cell in header), row, strict=True)) for row in rows]
            told: list[dict[str, Any]] = []
            for idx, row in enumerate(table):
                hidden: float = -1.0 if not names else -1
                given = (float(row[label]) if not names else names.index(row[label])) if label in row else hidden
                told.append({new: row[old] for new, old in columns.items()} | {"label": given, "idx": idx})
            split = name.removesuffix(".tsv").replace("dev", "validation")
            _parquet(folder / "glue" / config / f"{split}-00000-of-00001.parquet", told)
    for name in ("train", "val", "test"):
        split = "validation" if name == "val" else name
        for config in ("boolq", "cb", "copa", "rte", "wic"):
            task = {"boolq": "BoolQ", "wic": "WiC"}.get(config, config.upper())
            rows = [_flat(config, row) for row in SUPERGLUE_FILES[task][f"{name}.jsonl"]]
            _parquet(folder / "superglue" / config / f"{split}-00000-of-00001.parquet", rows)
        # as the hub's own conversion stores them: a folder a split
        _parquet(folder / "superglue" / "multirc" / split / "0000.parquet", _flat_multirc(f"{name}.jsonl"))
        _parquet(folder / "superglue" / "record" / split / "0000.parquet", _flat_record(f"{name}.jsonl"))
        spans = [
            {"text": row["text"], **row["target"], "idx": row["idx"], "label": int(row.get("label", -1))}
            for row in SUPERGLUE_FILES["WSC"][f"{name}.jsonl"]
        ]
        _parquet(folder / "superglue" / "wsc.fixed" / f"{split}-00000-of-00001.parquet", spans)
    for config, task in (("axb", "AX-b"), ("axg", "AX-g")):
        rows = [_flat("rte", row) for row in SUPERGLUE_FILES[task][f"{task}.jsonl"]]
        _parquet(folder / "superglue" / config / "test-00000-of-00001.parquet", rows)
    for name, text in DPR_FILES.items():
        blocks = [block.split("\n") for block in text.strip().split("\n\n")]
        told = [
            {"sentence": a, "pronoun": b, "candidates": c.split(","), "label": c.split(",").index(d)}
            for a, b, c, d in blocks
        ]
        path = folder / "definite_pronoun_resolution" / "plain_text" / name.replace(".c.txt", "-00000-of-00001.parquet")
        _parquet(path, told)
    return folder


def _flat(config: str, row: dict[str, Any]) -> dict[str, Any]:
    names = {"cb": ("entailment", "contradiction", "neutral"), "rte": _ENTAILMENT}.get(config)
    label = row.get("label", -1)
    return {**row, "label": names.index(label) if names and label != -1 else int(label), "logic": None}


def _flat_multirc(file: str) -> list[dict[str, Any]]:
    return [
        {
            "paragraph": line["passage"]["text"],
            "question": question["question"],
            "answer": answer["text"],
            "idx": {"paragraph": line["idx"], "question": question["idx"], "answer": answer["idx"]},
            "label": answer.get("label", -1),
        }
        for line in SUPERGLUE_FILES["MultiRC"][file]
        for question in line["passage"]["questions"]
        for answer in question["answers"]
    ]


def _flat_record(file: str) -> list[dict[str, Any]]:
    return [
        {
            "passage": line["passage"]["text"],
            "query": query["query"],
            "entities": [_TRIAL[place["start"] : place["end"] + 1] for place in line["passage"]["entities"]],
            "answers": [answer["text"] for answer in query.get("answers", [])],
            "idx": {"passage": line["idx"], "query": query["idx"]},
        }
        for line in SUPERGLUE_FILES["ReCoRD"][file]
        for query in line["qas"]
    ]


def _parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
