"""The command line as argparse sees it: every command, its flags, help a newcomer can begin from.

Each command names the function that runs it as "module.function" below t5study/commands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from t5study.commands import flags, study_flags, train_flags, tree_corpus, tree_data, tree_evaluate, tree_train
from t5study.commands.flags import Parser, Real, Version, Whole, folder, size, time
from t5study.commands.leaves import group as _group
from t5study.commands.leaves import leaf as _leaf

TITLE = "t5study: from text, tasks and a compute budget to the T5 recipe that wins."

BEGIN = """\
begin here:
  t5study show span_corruption          what pre-training hides, on one sentence
  t5study study plan                    what the whole search would cost on this machine
  t5study study rounds                  run it on the documentation inside Python, about a quarter of an hour
  t5study study rounds --text 'my/*.jsonl.zst' --task my_task.jsonl     the same on your own text and task

one model by hand:
  corpus build -> vocab train -> corpus tokens -> train pretrain -> train finetune -> evaluate, answer
  (`t5study COMMAND --help` has an example of each)
"""


def build_parser() -> Parser:
    """The whole command line. Every leaf sets `run`, the address of a function below t5study/commands."""
    parser = Parser(prog="t5study", description=TITLE, epilog=BEGIN)
    parser.add_argument("--version", action=Version, nargs=0, help="show the version and leave")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    tree_corpus.add(commands)

    train = _group(commands, "train", "pre-train or fine-tune one model")
    pretrain = _leaf(
        train,
        "pretrain",
        "train.pretrain",
        "Pre-train a model from fresh weights. Interrupted (Ctrl-C, kill, power), the same command goes on; the model "
        "comes to lie in OUT/model, a folder that transformers reads too.",
        "--tokens my-tokens --vocab my.model --size tiny --steps 1000 --out my-run",
    )
    pretrain.add_argument("--tokens", type=folder, help="folder that `corpus tokens` wrote")
    pretrain.add_argument("--vocab", type=folder, help="the .model the tokens were made with, or: bytes")
    pretrain.add_argument(
        "--objective", default="span_corruption(rate=0.15, mean_span=3)", help="`t5study show` lists them"
    )
    pretrain.add_argument(
        "--size", default="tiny", help="pico, tiny, mini (laptops), small, base ... (`t5study model describe`)"
    )
    flags.architecture(pretrain)
    train_flags.training(
        pretrain, steps=1000, rate="0.01 for adafactor, 0.001 for adamw; then 1/sqrt(step) after step 10,000"
    )
    finetune = _leaf(
        train,
        "finetune",
        "finetune.finetune",
        "Fine-tune a model on one task, on several at once, or on a benchmark of the paper. Interrupted, the same "
        "command goes on; the model comes to lie in OUT/model, the best of every task in OUT/best.",
        "--checkpoint my-run/model --task my_task.jsonl --metric accuracy --out my-tuned\n"
        "  t5study train finetune --checkpoint my-run/model --task glue --data DIR --evaluate-every 100 --out my-glue",
    )
    flags.checkpoint(finetune)
    flags.tasks(finetune, benchmarks=True)
    train_flags.training(finetune, steps=500, rate="0.001 for adafactor, 0.0001 for adamw", source_length=None)
    train_flags.finetuning(finetune)
    tree_train.add(commands, train)

    _model(commands)

    tree_data.add(commands)
    tree_evaluate.add(commands)
    _answer(commands)
    _exchange(commands)

    show = _leaf(
        commands,
        "show",
        "text.show",
        "What an objective hides and asks for, as text, before any training. Without an objective: lists them all.",
        "'span_corruption(rate=0.5, mean_span=5)' --text 'your own sentence of some length'",
    )
    show.add_argument("objective", nargs="?", help="a name, with or without settings; without one, lists them")
    show.add_argument("--text", help="your own sentence or text")
    show.add_argument("--vocab", type=folder, help="a .model, or: bytes; without it words are the tokens")
    show.add_argument("--seed", type=Whole(0, 2**62), default=8, help="another seed hides other tokens")
    show.add_argument("--rows", type=Whole(1, 100), default=3, help="examples to show")

    study = _group(commands, "study", "the search itself: plan, run, judge, report")
    for name, text, example in [
        ("plan", "Say what a study would run, what of it is done, and what the rest costs on this machine.", ""),
        ("run", "Run the paper's tables row by row, then write the report.", "--tables 4,5 "),
        ("rounds", "Run the paper's search: each round's winner goes on to the next. Then write the report.", ""),
    ]:
        leaf = _leaf(
            study,
            name,
            f"study.{name}",
            text + " Interrupted, the same command goes on where it stopped.",
            f"{example}--scale laptop\n  t5study study {name} {example}--text 'my/*.txt' --task my_task.jsonl",
        )
        leaf.add_argument(
            "--scale", help="how big: smoke (seconds), laptop (minutes; the default), evening (hours), workstation ..."
        )
        leaf.add_argument("--out", type=folder, help="folder of the study (default: study-SCALE)")
        flags.text(leaf)
        flags.corpora(leaf)
        flags.tasks(leaf)
        flags.benchmarks(leaf)
        study_flags.workers(leaf)
        if name != "plan":
            study_flags.engine(leaf)
        study_flags.precision(leaf)
        if name == "rounds":
            study_flags.until_decided(leaf)
            leaf.add_argument("--tables", help="rounds through your own tables, one after another: FILE.py:NAME")
        else:
            leaf.add_argument(
                "--tables",
                default="search",
                help="2,10 for example; or search (1,4,5,6,7), all (to 13), final (14,15), later, FILE.py:NAME",
            )
        if name == "plan":
            leaf.add_argument("--peak", type=Real(0, 1e6, open=True), help="of another machine: TFLOP/s of a device")
            leaf.add_argument("--utilisation", type=Real(0, 1, open=True), help="the part that is used (default: 0.4)")
            leaf.add_argument("--devices", type=Whole(1, 2**20), help="how many, each with a run (default: 1)")
            leaf.add_argument("--memory", type=Real(0, 1e6, open=True), help="GB of a device, for --budget")
            leaf.add_argument(
                "--budget", type=time, help="30min, 8h, 2d: the scale and the rows that fit, and what is left out"
            )
            leaf.add_argument("--price-per-hour", type=Real(0, 1e9), help="of the whole machine: what it comes to")
    status = _leaf(
        study,
        "status",
        "study.status",
        "Say what of a study is done, running, failed or missing, who is at it since when, and how long the rest "
        "takes. Reads its folder and changes nothing in it, while it runs or after.",
        "study-laptop\n  t5study study status study-laptop --json",
    )
    status.add_argument("folder", type=folder, nargs="?", default=Path("study-laptop"), help="--out of a study")
    status.add_argument("--json", action="store_true", help="all of it as JSON")
    report = _leaf(
        study,
        "report",
        "study.report",
        "Write a study's report.html, report.md and CSV tables again from its scores.",
        "--out study-laptop",
    )
    report.add_argument("--out", type=folder, default=Path("study-laptop"), help="folder of the study")
    return parser


def _model(commands: Any) -> None:
    model = _group(commands, "model", "what a size takes, before anything is made")
    leaf = _leaf(
        model,
        "describe",
        "model.describe",
        "Parameters, FLOPs and memory of a size, by arithmetic, part by part: to answer with it and to fine-tune it.",
        "11b\n  t5study model describe base --architecture prefix_lm --adapter 128",
    )
    leaf.add_argument("name", help="pico, small, base, large, 3b, 11b, v1.1-xl, mt5-base, byt5-small, base-6 ...")
    flags.architecture(leaf)
    leaf.add_argument("--adapter", type=Whole(0, 2**20), default=0, help="inner size of adapters, 0 for none")
    leaf.add_argument("--source-length", type=Whole(1, 2**20), default=512, help="source tokens of a pair")
    leaf.add_argument("--target-length", type=Whole(1, 2**20), default=114, help="target tokens of a pair")
    leaf.add_argument("--json", action="store_true", help="write all of it as JSON")


def _answer(commands: Any) -> None:
    answer = _leaf(
        commands,
        "answer",
        "answer.answer",
        "Answer prompts with a trained model, one line each. Without a prompt or a file, the lines of standard input "
        "are answered. <extra_id_0> in a prompt is the sentinel: a pre-trained model fills it.",
        "my-tuned/model 'is it large? a whale'",
    )
    answer.mixed = True
    answer.add_argument("checkpoint", type=folder, help="folder of a model")
    answer.add_argument("prompt", nargs="*", help="texts to answer; put -- before one that begins with a dash")
    answer.add_argument(
        "--file", type=folder, action="append", help='prompts, one a line; .jsonl: {"input": ...} a line; - is stdin'
    )
    answer.add_argument("--json", action="store_true", help="write JSON lines with input, answer and score")
    flags.vocab(answer)
    answer.add_argument("--max-length", type=Whole(1, 8192), default=64, help="tokens of the longest answer")
    answer.add_argument("--beams", type=Whole(1, 512), default=1, help="search with this many (T5: 4); 1 is greedy")
    answer.add_argument("--alpha", type=Real(0, 100), help="weight of the length of beams (default: 0.6)")
    answer.add_argument("--temperature", type=Real(1e-3, 1e3), help="sample, from logits over this")
    answer.add_argument("--top-k", type=Whole(0), help="sample from this many likeliest tokens, 0 for all")
    answer.add_argument("--top-p", type=Real(0, 1, open=True), help="sample from the fewest tokens this probable")
    answer.add_argument("--seed", type=Whole(0, 2**62), help="sample other answers with another one")
    answer.add_argument(
        "--ensemble", type=folder, action="append", default=[], metavar="MODEL", help="a further model to answer with"
    )
    answer.add_argument(
        "--average", choices=["logits", "probabilities"], default="logits", help="what the models of --ensemble average"
    )
    answer.add_argument("--precision", choices=["float32", "int8"], default="float32", help="int8: smaller, on a CPU")
    answer.add_argument("--backend", choices=["torch", "ctranslate2"], default="torch", help="who computes")
    answer.add_argument("--batch-rows", type=Whole(1, 65_536), default=64, help="prompts a batch")
    answer.add_argument("--device", choices=["cpu", "cuda"], help="default: a GPU if torch sees one")
    answer.add_argument("--threads", type=Whole(1, 1024), help="threads (default: 1)")


def _exchange(commands: Any) -> None:
    bring = _leaf(
        commands,
        "import",
        "exchange.bring",
        "Bring a published model in: a Hugging Face folder (T5, T5 1.1, mT5, ByT5, Flan-T5; safetensors) or a T5X "
        "checkpoint. What comes out is a folder like those that `train` writes.",
        "checkpoint_1000000 my-t5 --vocab spiece.model",
    )
    bring.add_argument("where", type=folder, help="folder of Hugging Face, or a T5X checkpoint")
    out = _leaf(
        commands,
        "export",
        "exchange.export",
        "Write a model for others: a Hugging Face folder (which every model's folder is already; --max-shard-size cuts "
        "it), or one that CTranslate2 reads.",
        "my-tuned/model my-model.ct2 --format ctranslate2",
    )
    out.add_argument("checkpoint", type=folder, help="folder of a model")
    for leaf in (bring, out):
        leaf.add_argument("out", type=folder, help="folder to write; must not exist")
        flags.vocab(leaf)
        leaf.add_argument(
            "--max-shard-size", type=size, default="5GB", help="most bytes of a file of weights: 500MB, 5GB"
        )
    out.add_argument("--format", choices=["huggingface", "ctranslate2"], default="huggingface", help="who reads it")
