"""The command line: help at once, every mistake one line and exit code 2, nothing half-written."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from t5study.__main__ import main, parse
from t5study.commands.flags import place
from t5study.commands.tree import build_parser
from t5study.ground.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def _run(*words: str | bytes, **kwargs) -> subprocess.CompletedProcess[str]:
    settings = {"capture_output": True, "text": True, "cwd": ROOT, "env": ENVIRONMENT, "timeout": 120}
    return subprocess.run([sys.executable, "-m", "t5study", *words], **{**settings, **kwargs})


def _children_s() -> float:
    """Processor seconds of the processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _told(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a mistake is told in."""
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert err.startswith("t5study: error: ")
    assert err.count("\n") == 1
    assert out == ""
    return err


# --- help ---------------------------------------------------------------------------------------------------------


def test_help_imports_nothing_heavy_and_answers_at_once():
    code = "import sys; sys.argv = ['t5study', '--help']\n"
    code += "from t5study.__main__ import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += "heavy = ('torch', 'numpy', 'scipy', 'rich', 'numba', 'pyarrow', 'xxhash', 'sentencepiece')\n"
    code += "print(sorted(m for m in heavy if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
    for command in ("corpus", "vocab", "train", "model", "evaluate", "answer", "show", "study"):
        assert command in done.stdout
    times = []
    for _ in range(3):  # processor time, and the quickest of three: other work on the machine is not its fault
        began = _children_s()
        assert _run("--help").returncode == 0
        times.append(_children_s() - began)
    assert min(times) < 0.5


def _leaves(parser, words: tuple[str, ...] = ()):
    from t5study.__main__ import _choices

    choices = _choices(parser)
    if not choices:
        yield words, parser
    for name, child in choices.items():
        yield from _leaves(child, (*words, name))


def test_every_command_has_help_an_example_that_parses_and_a_function():
    import importlib
    import shlex

    leaves = dict(_leaves(build_parser()))
    assert len(leaves) == 27
    for words, leaf in leaves.items():
        assert leaf.description
        assert all(action.help for action in leaf._actions), words
        lines = [line.strip() for line in leaf.epilog.splitlines()[1:]]
        assert lines, words
        for line in lines:
            program, *example = shlex.split(line)
            assert program == "t5study"
            args = parse(example)
            assert tuple(example[: len(words)]) == words
            module, _, function = args.run.partition(".")
            assert callable(getattr(importlib.import_module(f"t5study.commands.{module}"), function))


def test_version(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("t5study ")


# --- mistakes on the command line ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "required: COMMAND"),
        (["train"], "required: COMMAND"),
        (["trian"], "unknown command 'trian'; did you mean train?"),
        (["study", "round"], "unknown command 'round'; did you mean rounds?"),
        (["frobnicate"], "unknown command 'frobnicate'; known are corpus, vocab,"),
        (["train", "pretrain", "--lrr", "1"], "unknown argument '--lrr'; known are"),
        (["train", "pretrain", "--Steps", "1"], "did you mean --steps?"),
        (["study", "plan", "--scal", "laptop"], "did you mean --scale?"),
        (["corpus", "build", "--oot", "x"], "did you mean --out?"),
        (["train", "pretrain", "--rate", "nan"], "--rate: found nan"),
        (["train", "pretrain", "--rate", "inf"], "--rate: found inf"),
        (["train", "pretrain", "--rate", "-1"], "--rate: found -1"),
        (["train", "pretrain", "--rate", "0"], "--rate: found 0, give a number above 0"),
        (["train", "pretrain", "--rate", "fast"], "--rate: found 'fast', give a number"),
        (["train", "pretrain", "--steps", "5.5"], "--steps: found '5.5', give a whole number"),
        (["train", "pretrain", "--steps", "0"], "--steps: found 0"),
        (["train", "pretrain", "--steps"], "--steps: expected one argument"),
        (["train", "pretrain", "--seed", "-1"], "--seed: found -1"),
        (["train", "pretrain", "--seed", str(2**64)], "--seed: found"),
        (["train", "pretrain", "--device", "tpu"], "invalid choice: 'tpu'"),
        (["vocab", "train", "--pieces", "0", "--out", "x"], "--pieces: found 0"),
        (["study", "rounds", "--out", "a\nb"], "cannot be a path"),
        (["study", "rounds", "--out", ""], "cannot be a path"),
        (["study", "rounds", "--most-seeds", "3"], "without --until-decided"),
        (["study", "rounds", "--budget", "8h"], "without --until-decided"),
        (["study", "plan", "--budget", "0"], "--budget: found '0', give a time such as 30min, 8h or 2d"),
        (["study", "plan", "--budget", "8 weeks"], "--budget: found '8 weeks', give a time"),
        (["study", "plan", "--memory", "80"], "--memory: found without --peak"),
        (["study", "rounds", "--out", "x" * 4096], "cannot be a path"),
        (["study", "rounds", "--out", "$T5STUDY_UNSET/x"], "whose variable T5STUDY_UNSET is not set"),
        (["study", "rounds", "--out", "$HOME/${T5STUDY_UNSET}/x"], "whose variable T5STUDY_UNSET is not set"),
        (["study", "rounds", "--out", "~nobody-of-that-name/x"], "no such user's home"),
        (["corpus", "build", "--out", "x", "--text", "$T5STUDY_UNSET/*.txt"], "T5STUDY_UNSET is not set"),
        (["train", "pretrain", "--tokens", "x", "--out", "y"], "--vocab is missing; give it, or put it into --config"),
        (["evaluate", "--checkpoint", "x"], "--task is missing; give it"),
        (["show", "span_corruptoin"], "did you mean span_corruption?"),
        (["show", "span_corruption(rate=2)"], "rate: found 2"),
        (["show", "span_corruption", "--text", "word"], "--text: found 1 token"),
        (["show", "span_corruption", "--text", ""], "--text: found 0 tokens"),
        (["vocab", "inspect", "no/such.model"], "no/such.model: no such file"),
        (["corpus", "inspect", "no/such"], "no/such"),
        (["answer", "no/such", "a prompt"], "no/such: no such folder"),
        (["answer", "m", "--max-length", "0"], "--max-length: found 0, give a number from 1"),
        (["answer", "m", "--max-length", "-1"], "--max-length: found -1"),
        (["answer", "m", "--max-length", "1000000000"], "--max-length: found 1000000000"),
        (["answer", "m", "--beams", "1000000"], "--beams: found 1000000, give a number from 1 to 512"),
        (["answer", "m", "--temperature", "-1"], "--temperature: found -1"),
        (["answer", "m", "--temperature", "nan"], "--temperature: found nan"),
        (["answer", "m", "--top-p", "0"], "--top-p: found 0, give a number above 0"),
        (["answer", "m", "--top-k", "-3"], "--top-k: found -3"),
        (["answer", "m", "--max-lenght", "3"], "did you mean --max-length?"),
        (["answer", "m", "--precision", "int4"], "invalid choice: 'int4'"),
        (["answer", "m", "x", "--beams", "4", "--seed", "1"], "method: found beams with seed"),
        (["answer", "m", "--file", "no/such.txt"], "no/such.txt: no such file"),
        (["answer", "no/such", "--ensemble", "other", "x"], "no/such: no such folder"),
        (["import", "no/such", "out"], "no/such: no such file or folder"),
        (["import", "pyproject.toml", "out"], "pyproject.toml: found weights in a format"),
        (["export", "no/such", "out"], "no/such: no such folder"),
        (["export", "m", "out", "--max-shard-size", "5 bananas"], "--max-shard-size: found '5 bananas'"),
        (["export", "m", "out", "--max-shard-size", "0"], "--max-shard-size: found '0'"),
        (["export", "m", "out", "--format", "onnx"], "invalid choice: 'onnx'"),
        (["export", "m", "docs"], "docs: exists already"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(words: list[str], says: str, capsys: pytest.CaptureFixture[str]):
    assert says in _told(words, capsys)


def test_contradictions(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    import torch

    from t5study.ground.machine import cpu_has_bf16

    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    asked = ["train", "pretrain", "--tokens", "x", "--vocab", "y", "--out", str(tmp_path / "out")]
    assert "--rows 32 with --micro-batch 5" in _told([*asked, "--micro-batch", "5"], capsys)
    assert "--tensor 2 with 1 rank; start as many by torchrun" in _told([*asked, "--tensor", "2"], capsys)
    assert "--shard 2 with 1 rank; start as many by torchrun" in _told([*asked, "--shard", "2"], capsys)
    assert "--shard with 1 rank; start several by torchrun" in _told([*asked, "--shard"], capsys)
    assert "found --tensor with --shard; leave one of them out" in _told([*asked, "--tensor", "2", "--shard"], capsys)
    if torch.cuda.is_available():
        done = _run(*asked, "--device", "cuda", env={**ENVIRONMENT, "CUDA_VISIBLE_DEVICES": ""})
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "asked for cuda, but torch sees no GPU" in done.stderr
    else:
        assert "asked for cuda, but torch sees no GPU" in _told([*asked, "--device", "cuda"], capsys)
    if not cpu_has_bf16():
        assert "asked for bf16" in _told([*asked, "--device", "cpu", "--precision", "bf16"], capsys)
    assert not (tmp_path / "out").exists()


# --- configuration files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lrr = 1", "field lrr: unknown; known are"),
        ("Rate = 1", "field Rate: unknown; did you mean rate?"),
        ("sorce_length = 1", "did you mean source-length?"),
        ("config = 'other.toml'", "field config: unknown"),
        ("rate = 'x'", "field rate: found the text 'x'; give a number"),
        ("rate = '1e-3'", "field rate: found the text '1e-3'; give a number, without quotes"),
        ("rate = nan", "field rate: found nan"),
        ("rate = -inf", "field rate: found -inf"),
        ("rate = -1", "field rate: found -1"),
        ("steps = 5.5", "field steps: found '5.5', give a whole number"),
        ("steps = [5]", "field steps: found [5]; give a single number"),
        ("steps = true", "field steps: found True"),
        ("steps = 2026-11-24", "field steps: found '2026-11-24'"),
        ("out = 5", "field out: found 5; give a text, in quotes"),
        ("out = '$T5STUDY_UNSET'", "field out: found '$T5STUDY_UNSET', whose variable"),
        ('out = "a\\nb"', "cannot be a path"),
        ("optimizer = 'adam'", "field optimizer: found 'adam'; did you mean adamw?"),
        ("[train]\nsteps = 1", "field train: unknown"),
        ("source_length = 64\nsource-length = 32", "found twice"),
        ("steps = 1\nsteps = 2", "invalid TOML"),
        ("steps = ", "invalid TOML"),
        ("\x00\x01", "invalid TOML"),
        ("steps = " + "[" * 50_000, "invalid TOML"),
        ("", "is missing"),
    ],
)
def test_config_mistakes_name_file_and_field(tmp_path: Path, text: str, says: str, capsys: pytest.CaptureFixture[str]):
    config = tmp_path / "run.toml"
    config.write_text(text)
    err = _told(["train", "pretrain", "--config", str(config)], capsys)
    assert says in err
    assert text == "" or "run.toml: " in err


def test_configs_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = tmp_path / "run.toml"
    asked = ["train", "pretrain", "--config", str(config)]
    assert "run.toml: no such file" in _told(asked, capsys)
    config.write_bytes(b"steps = 1\n" * (1 << 20))
    assert "found 10,485,760 bytes" in _told(asked, capsys)
    config.write_bytes(bytes(range(256)))
    assert "not UTF-8" in _told(asked, capsys)
    assert "found a folder" in _told(["train", "pretrain", "--config", str(tmp_path)], capsys)
    assert "no such file" in _told(["train", "pretrain", "--config", "/dev/zero"], capsys)


def test_the_command_line_wins_over_the_config(tmp_path: Path):
    config = tmp_path / "run.toml"
    config.write_text("steps = 7\nsource_length = 64\nrate = 1e-3\nout = '~/x'\n")
    args = parse(["train", "pretrain", "--config", str(config), "--steps", "9"])
    assert (args.steps, args.source_length, args.rate, args.out) == (9, 64, 0.001, Path.home() / "x")
    config.write_text("task = ['a.jsonl', 'b.jsonl']\ncheckpoint = 'm'\n")
    asked = ["train", "finetune", "--config", str(config)]
    assert parse(asked).task == ["a.jsonl", "b.jsonl"]
    assert parse([*asked, "--task", "c.jsonl", "--task", "d.jsonl"]).task == ["c.jsonl", "d.jsonl"]


# --- paths, locales, streams --------------------------------------------------------------------------------------


def test_paths_are_expanded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("PLACE", "/somewhere")
    assert parse(["study", "report", "--out", "~/a b"]).out == Path("/home/someone/a b")
    assert parse(["study", "report", "--out", "$PLACE/x"]).out == Path("/somewhere/x")
    assert parse(["corpus", "build", "--out", "o", "--text", "~/*.txt", "${PLACE}/y"]).text == [
        "/home/someone/*.txt", "/somewhere/y",
    ]  # fmt: skip
    assert place("costs 5$") == "costs 5$"


@pytest.mark.parametrize("name", [b"with space", b"caf\xc3\xa9", b"not-utf8-\xff\xfe"])
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_names_of_files_in_any_locale(tmp_path: Path, name: bytes, locale: str):
    """Where a file is missing its name can be told, whatever it is; no terminal is needed."""
    environment = {**ENVIRONMENT, "LC_ALL": locale, "LANG": locale}
    environment.pop("TERM", None)
    done = _run("vocab", "inspect", os.fsencode(tmp_path) + b"/" + name, env=environment, text=False)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b": no such file" in done.stderr


def test_output_that_the_locale_cannot_spell():
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}
    done = _run("show", "prefix_lm", "--text", "naïve café ☕", env=environment)
    assert done.returncode == 0, done.stderr
    assert "caf\\xe9" in done.stdout


@pytest.mark.parametrize("close", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(close: str):
    for words, code in [("--version", 0), ("vocab inspect no/such.model", 2)]:
        command = f"{sys.executable} -m t5study {words} {close}"
        assert (
            subprocess.run(["bash", "-c", command], cwd=ROOT, env=ENVIRONMENT, capture_output=True).returncode == code
        )


def test_a_reader_that_leaves_early_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-m", "t5study", "train", "pretrain", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=ENVIRONMENT,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait() == 0
    assert process.stderr.read() == ""


BROKEN = """
import os, sys
from t5study.__main__ import main
from t5study.commands import text

def show(args):
    if sys.argv[1] == "elsewhere":
        reader, writer = os.pipe()
        os.close(reader)
        os.write(writer, b"x")
    sys.stdin.readline()  # until the reader has left
    for _ in range(100_000):
        print("a line", file=getattr(sys, sys.argv[1]))

text.show = show
sys.exit(main(["show"]))
"""


@pytest.mark.parametrize(("pipe", "code"), [("stdout", 0), ("stderr", 0), ("elsewhere", 75)])
def test_a_broken_pipe_is_a_readers_or_is_told(pipe: str, code: int):
    """Of a worker that died, or of a connection, it must not look like `| head`."""
    streams = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    command = [sys.executable, "-c", BROKEN, pipe]
    process = subprocess.Popen(command, text=True, cwd=ROOT, env=ENVIRONMENT, **streams)
    if pipe != "elsewhere":
        getattr(process, pipe).close()
        setattr(process, pipe, None)
    out, err = process.communicate("\n")
    assert process.returncode == code
    assert not out
    told = "t5study: error: found a process or a connection gone (broken pipe); run the same command again to go on\n"
    assert err == (told if pipe == "elsewhere" else "" if pipe == "stdout" else None)


def test_a_full_disk_is_told():
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w") as full:
        done = _run("show", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 74
    assert "No space left on device; make room" in done.stderr


def test_nothing_can_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.txt").write_text("Some words of text.\n")
    (tmp_path / "file").write_text("")
    err = _told(["corpus", "build", "--text", str(tmp_path / "a.txt"), "--out", str(tmp_path / "file" / "x")], capsys)
    assert "file: File exists; check the path" in err


def test_interrupted_and_stopped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    from t5study.commands import text
    from t5study.ground.errors import Stopped

    for error, code in [
        (KeyboardInterrupt(), 130),
        (Stopped(signal.SIGINT), 130),
        (Stopped(signal.SIGTERM), 75),
    ]:
        monkeypatch.setattr(text, "show", lambda args, error=error: (_ for _ in ()).throw(error))
        assert main(["show"]) == code
        err = capsys.readouterr().err
        assert "run the same command again to go on" in err
        assert err.count("\n") == 1


# --- outputs ------------------------------------------------------------------------------------------------------


def test_an_existing_output_is_refused_and_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.txt").write_text("Some words of text.\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    text = ["--text", str(tmp_path / "a.txt"), "--out", str(tmp_path / "out")]
    assert "exists already" in _told(["corpus", "build", *text], capsys)
    assert "exists already" in _told(["vocab", "train", "--pieces", "10", *text], capsys)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine"]


def _done(words: list[str | Path], capsys: pytest.CaptureFixture[str]) -> str:
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert code == 0, (words, err)
    return out


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with own text and an own task, a vocabulary and tokens of it."""
    folder = tmp_path_factory.mktemp("a folder") / "with spaces"
    folder.mkdir()
    lines = [
        json.dumps({"text": f"The {a} fox number {i} jumps over the {b} dog."})
        for i in range(200)
        for a, b in [("quick", "lazy"), ("brown", "old")]
    ]
    (folder / "some text.jsonl").write_text("\n".join(lines) + "\n")
    rows = [json.dumps({"input": f"fox {i}", "target": "even" if i % 2 == 0 else "odd"}) for i in range(60)]
    (folder / "task.jsonl").write_text("\n".join(rows) + "\n")
    text = ["--text", str(folder / "some text.jsonl")]
    for words in (
        ["vocab", "train", *text, "--pieces", "60", "--out", str(folder / "v.model")],
        ["corpus", "build", *text, "--out", str(folder / "corpus")],
        [
            "corpus",
            "tokens",
            "--corpus",
            f"{folder}/corpus",
            "--vocab",
            f"{folder}/v.model",
            "--out",
            f"{folder}/tokens",
        ],
    ):
        assert main(words) == 0
    return folder


def _pretrain(made: Path, out: Path, *more: str) -> list[str | Path]:
    asked = ["train", "pretrain", "--tokens", made / "tokens", "--vocab", made / "v.model", "--size", "pico"]
    return [*asked, "--steps", "3", "--rows", "4", "--source-length", "32", "--out", out, *more]


def test_from_text_to_an_answer(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Every command in a row, on real (tiny) input."""
    vocab, task = made / "v.model", ["--task", made / "task.jsonl", "--metric", "accuracy"]
    assert "60 pieces + 100 sentinels = 160 ids" in _done(["vocab", "inspect", vocab, "The fox <extra_id_0>"], capsys)
    assert "documents: 400" in _done(["corpus", "inspect", made / "tokens"], capsys)
    assert "first document: 'The" in _done(["corpus", "inspect", made / "corpus"], capsys)
    assert "<extra_id_0>" in _done(
        ["show", "mass_style", "--vocab", vocab, "--text", "The quick fox jumps over."], capsys
    )

    assert "3 steps, loss" in _done(_pretrain(made, tmp_path / "run"), capsys)
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "| objective | span_corruption(rate=0.15, mean_span=3) |" in card
    tune = ["train", "finetune", "--checkpoint", tmp_path / "run" / "model", *task, "--steps", "4", "--rows", "4"]
    tune += ["--source-length", "32", "--target-length", "8", "--evaluate-every", "2", "--out", tmp_path / "tuned"]
    assert "4 steps, loss" in _done(tune, capsys)
    rows = [json.loads(line) for line in (tmp_path / "tuned" / "evaluations.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    assert rows[0]["task"]["metrics"].keys() == {"accuracy"}

    judge = ["evaluate", "--checkpoint", tmp_path / "tuned" / "model", *task, "--out", tmp_path / "scores"]
    said = _done(judge, capsys)
    assert "nats a target token" in said
    assert _done(judge, capsys) == said, "done before, and told again"
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert scores["tasks"]["task"]["nats_per_token"] == pytest.approx(rows[-1]["task"]["nats_per_token"], rel=1e-5)
    assert (tmp_path / "scores" / "task.parquet").is_file()
    another = [str(word) for word in (*judge, "--method", "rank")]
    assert "holds an evaluation of another method" in _told(another, capsys)
    another = [str(word) for word in (*judge[:-1], tmp_path / "run")]
    assert "exists already and holds no evaluation" in _told(another, capsys)
    prompts = ["answer", tmp_path / "tuned" / "model", "fox 3", "fox 4"]
    answers = _done(prompts, capsys)
    assert answers.count("\n") == 2
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"fox 3\r\nfox 4\n"), encoding="utf-8"))
    assert _done(prompts[:2], capsys) == answers
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"fox 3\n\xff\xfe\n"), encoding="utf-8"))
    assert "prompt 2: found bytes that are not UTF-8" in _told([str(word) for word in prompts[:2]], capsys)

    foreign = tmp_path / "foreign"  # as transformers saves one: no vocabulary, no manifest
    shutil.copytree(tmp_path / "tuned" / "model", foreign, ignore=shutil.ignore_patterns("spiece*", "manifest*"))
    judge = ["evaluate", "--checkpoint", foreign, *task]
    assert "has no spiece.model" in _told([str(word) for word in judge], capsys)
    assert "nats a target token" in _done([*judge, "--vocab", vocab], capsys)

    model = {path: path.read_bytes() for path in (tmp_path / "run" / "model").iterdir()}
    assert "finished before" in _done(_pretrain(made, tmp_path / "run", "--save-every", "7"), capsys)
    assert {path: path.read_bytes() for path in (tmp_path / "run" / "model").iterdir()} == model
    again = [str(word) for word in _pretrain(made, tmp_path / "run", "--rate", "0.02")]
    assert "holds another run" in _told(again, capsys)
    assert {path: path.read_bytes() for path in (tmp_path / "run" / "model").iterdir()} == model


def test_a_prefix_lm_is_tuned_by_adapters_and_answers(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    _done(_pretrain(made, tmp_path / "run", "--architecture", "prefix_lm"), capsys)
    tune = ["train", "finetune", "--checkpoint", tmp_path / "run" / "model", "--task", made / "task.jsonl"]
    tune += ["--metric", "accuracy", "--steps", "3", "--rows", "4", "--source-length", "32", "--target-length", "8"]
    assert "3 steps, loss" in _done([*tune, "--tuning", "adapters(8)", "--out", tmp_path / "tuned"], capsys)
    assert "| tuning | adapters, d=8: " in (tmp_path / "tuned" / "model" / "README.md").read_text()
    assert _done(["answer", tmp_path / "tuned" / "model", "fox 3", "fox 4"], capsys).count("\n") == 2
    wrong = [str(word) for word in (*tune, "--tuning", "adapter", "--out", tmp_path / "wrong")]
    assert "tuning: found 'adapter'; give all, adapters(32)" in _told(wrong, capsys)


def test_a_run_keeps_away_from_other_files(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("keep")
    words = [str(word) for word in _pretrain(made, tmp_path / "home")]
    assert "found 'thesis.tex' in it, which is no part of a run" in _told(words, capsys)
    words = [str(word) for word in _pretrain(made, tmp_path / "home" / "thesis.tex")]
    assert "found a file; give --out a folder" in _told(words, capsys)
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["thesis.tex"]


def test_tokens_of_another_vocabulary(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    text = ["--text", made / "some text.jsonl"]
    _done(["vocab", "train", *text, "--pieces", "50", "--out", tmp_path / "other.model"], capsys)
    words = ["train", "pretrain", "--tokens", made / "tokens", "--vocab", tmp_path / "other.model"]
    err = _told([str(word) for word in [*words, "--out", tmp_path / "out"]], capsys)
    assert "was made with another vocabulary" in err
    assert not (tmp_path / "out").exists()


def test_a_run_stopped_and_killed_ends_in_the_same_model(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Real processes, stopped by real signals once they have made a step; the same command ends in the same bytes."""
    steps = ["--steps", "60", "--save-every", "4"]
    words = [str(word) for word in _pretrain(made, tmp_path / "cut", *steps)]
    journal = tmp_path / "cut" / "journal.jsonl"
    for rows, signum, code in [(3, signal.SIGINT, 130), (30, signal.SIGKILL, -9)]:
        process = subprocess.Popen(
            [sys.executable, "-m", "t5study", *words],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=ENVIRONMENT,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not (journal.exists() and journal.read_bytes().count(b"\n") >= rows):
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signum)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        assert not (tmp_path / "cut" / "model").exists()
    _done(words, capsys)
    _done(_pretrain(made, tmp_path / "whole", *steps), capsys)
    for name in ("model/model.safetensors", "model/README.md", "journal.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_parser_raises_for_those_who_call_it():
    with pytest.raises(UserError, match="did you mean --steps"):
        parse(["train", "pretrain", "--step", "3"])
