"""The documentation inside the installed Python packages, read from their source files: real text with real labels.

Every machine that runs t5study holds about 25 MB of it, so nothing is shipped and nothing is fetched. Files are parsed
with `ast` and never imported. Read are the docstrings of modules, classes and functions, and what stands in source for
objects written in C (`add_newdoc`, `add_docstr`); topic pages come on their own. Only packages on a fixed list are
read, all of which `pip install t5study` brings along, so extras change nothing: equal versions give equal records.

docstrings.py takes a docstring apart; tasks/pydocs.py asks about it, corpus/pydocs.py is pre-trained on it.
"""

from __future__ import annotations

import ast
import gc
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import xxhash

from t5study.docstrings import Documented, Found, Parameter, document, whole
from t5study.ground.errors import UserError
from t5study.ground.machine import cores, die_with_parent

READING = 1  # raise it when the same source files give other records

# The import name of each package -> the name it is distributed under. The order is that of the records.
DISTRIBUTIONS = {
    "python": "",
    **{name: name for name in ("numpy", "scipy", "torch", "matplotlib", "numba", "pyarrow", "sympy", "mpmath")},
    **{name: name for name in ("networkx", "nltk", "narwhals", "joblib", "fsspec", "rich", "pygments", "pyparsing")},
    **{name: name for name in ("packaging", "click", "tqdm", "lxml", "psutil", "sacrebleu", "llvmlite")},
    **{"sklearn": "scikit-learn", "PIL": "pillow", "fontTools": "fonttools", "jinja2": "jinja2"},
    **{"absl": "absl-py", "dateutil": "python-dateutil", "mpl_toolkits": "matplotlib"},
}
_SKIPPED = {"test", "tests", "testing", "idle_test", "site-packages", "dist-packages", "__pycache__", "_vendor"}
# Machinery whose few comments cost more to parse than all the rest of the package.
_SKIPPED |= {"_inductor", "_dynamo", "turtledemo", "lib2to3", "benchmarks"}


@lru_cache(maxsize=1 << 16)
def split(module: str) -> str:
    """One module in nine is for validation, by a hash of its name: other packages have no say in it.

    Underscores that mark a module as private do not count, so that `signal._windows` lies where `signal.windows` does.
    """
    public = ".".join(part.strip("_") for part in module.split("."))
    return "validation" if xxhash.xxh3_64_intdigest(public.encode()) % 9 == 0 else "train"


def versions() -> tuple[tuple[str, str], ...]:
    """Names and versions of the packages that are read here: what decides the records, found in milliseconds."""
    python = ".".join(map(str, sys.version_info[:3]))
    return tuple((name, metadata.version(DISTRIBUTIONS[name]) if name != "python" else python) for name in _roots())


# --- files ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _roots() -> dict[str, Path]:
    """Folders of the packages on the list that are installed with their source."""
    found = {"python": Path(sysconfig.get_paths()["stdlib"])}
    for name in list(DISTRIBUTIONS)[1:]:
        try:
            spec = importlib.util.find_spec(name)
            metadata.version(DISTRIBUTIONS[name])
        except (ImportError, ValueError):
            continue
        if spec and spec.submodule_search_locations:
            found[name] = Path(next(iter(spec.submodule_search_locations)))
    return found


def _files(suffix: str) -> list[tuple[str, str, Path]]:
    """(package, module, path) of every file that is read, in a fixed order."""
    found = []
    for package, root in _roots().items():
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(one for one in folders if one not in _SKIPPED and not one.startswith("config-"))
            for name in sorted(names):
                if name.endswith(suffix) and not name.startswith(("test_", "conftest")):
                    path = Path(folder, name)
                    parts = path.relative_to(root).with_suffix("").parts
                    parts = parts[:-1] if parts[-1] == "__init__" else parts
                    module = ".".join(parts if package == "python" else (package, *parts))
                    found.append((package, module or package, path))
    return found


@lru_cache(maxsize=1)
def records() -> tuple[Documented, ...]:
    """Every documented object of this machine's packages, in a fixed order. About 20 s of one core, on two if there
    are two, once a process."""
    files = _files(".py")
    if cores() == 1:
        by_file = [_of_file(*one) for one in files]
    else:
        # A child reads every second file. A plain process and JSON: no fork under threads, no import of __main__.
        code = "from t5study import pydocs; pydocs._serve()"
        path = os.pathsep.join([str(Path(__file__).resolve().parents[1]), *filter(None, sys.path)])
        with subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
        ) as child:
            assert child.stdout is not None
            own = [_of_file(*one) for one in files[0::2]]
            answer = child.stdout.read()
        if child.returncode != 0:
            raise UserError(f"pydocs: the second reader ended with code {child.returncode}; run again")
        other = [[_thawed(*one) for one in found] for found in json.loads(answer)]
        by_file = [found for both in zip(own, [*other, []][: len(own)], strict=True) for found in both]
    return tuple(record for found in by_file for record in found)


def _serve() -> None:
    """What the child does: writes the records of every second file."""
    die_with_parent()
    found = [[astuple(record) for record in _of_file(*one)] for one in _files(".py")[1::2]]
    sys.stdout.write(json.dumps(found))


def _thawed(*fields: Any) -> Documented:
    return Documented(*fields[:-1], parameters=tuple(Parameter(*one) for one in fields[-1]))


@lru_cache(maxsize=1)
def topics() -> tuple[Documented, ...]:
    """Pages of prose: the language reference behind `help("topic")`, and documents that lie between a package's
    modules. They have no object, so no task asks about them."""
    found = []
    for package, module, path in _files("topics.py"):
        if module == "pydoc_data.topics":
            for node in ast.parse(path.read_bytes()).body:
                if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
                    for name, text in ast.literal_eval(node.value).items():
                        found.append(_page(package, f"{module}.{name}", name, text))
    for package, module, path in _files(".rst"):
        found.append(_page(package, module, path.stem, path.read_text(encoding="utf-8", errors="replace")))
    return tuple(found)


def _page(package: str, module: str, name: str, text: str) -> Documented:
    return Documented(package, module, name, "topic", "", "", whole(inspect.cleandoc(text)), ())


# --- one file ---------------------------------------------------------------------------------------------------


def _of_file(package: str, module: str, path: Path) -> list[Documented]:
    """Records of one source file, a name once. What cannot be parsed has none (the library holds such examples)."""
    source = path.read_bytes()
    if b'"""' not in source and b"'''" not in source:
        return []
    collected = gc.isenabled()
    gc.disable()  # a tree is a million small objects without a cycle: collecting doubles the time
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
        seen: dict[str, Documented] = {}
        for found in [*_walk(tree.body, ""), *_in_calls(tree.body)]:
            if found.name not in seen and (record := document(package, module, found)):
                seen[found.name] = record
        doc = ast.get_docstring(tree)
        own = document(package, module, Found("", "module", "", {}, doc)) if doc else None
        return [*([own] if own else []), *seen.values()]
    except (SyntaxError, ValueError, RecursionError):
        return []
    finally:
        if collected:
            gc.enable()


def _walk(body: Sequence[ast.stmt], outer: str) -> Iterator[Found]:
    """Classes and functions with a docstring, also under `if` and `try`, but not inside functions."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            inits = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
            signature, defaults = _signature(inits[0].args, skip=1) if inits else ("", {})
            if doc := ast.get_docstring(node):
                yield Found(outer + node.name, "class", signature, defaults, doc)
            yield from _walk(node.body, f"{outer}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if doc := ast.get_docstring(node):
                yield Found(outer + node.name, "function", *_signature(node.args), doc)
        elif isinstance(node, ast.If | ast.Try | ast.With):
            for part in ("body", "orelse", "finalbody"):
                yield from _walk(getattr(node, part, []), outer)


def _signature(args: ast.arguments, skip: int = 0) -> tuple[str, dict[str, str]]:
    """Names and defaults as source text, annotations left out: they are in the parameters' entries."""
    positional = [*args.posonlyargs, *args.args]
    texts = [""] * (len(positional) - len(args.defaults)) + [_source(one) for one in args.defaults]
    texts += ["" if one is None else _source(one) for one in args.kw_defaults]
    defaults = {arg.arg: text for arg, text in zip([*positional, *args.kwonlyargs], texts, strict=True) if text}

    def told(some: Iterable[ast.arg]) -> list[str]:
        return [f"{one.arg}={defaults[one.arg]}" if one.arg in defaults else one.arg for one in some]

    names = told(positional)
    if args.posonlyargs:
        names.insert(len(args.posonlyargs), "/")
    if args.vararg or args.kwonlyargs:
        names.append(f"*{args.vararg.arg if args.vararg else ''}")
    names += told(args.kwonlyargs)
    if args.kwarg:
        names.append(f"**{args.kwarg.arg}")
    return f"({', '.join(names[skip:])})", defaults


def _source(node: ast.expr) -> str:
    """`ast.unparse`, with the common cases done by hand: it is the slowest part of reading."""
    if isinstance(node, ast.Constant):
        return "..." if node.value is ... else repr(node.value)
    return node.id if isinstance(node, ast.Name) else ast.unparse(node)


# --- docstrings of objects written in C: arguments of add_newdoc(...) and add_docstr(...) ---------------------------

_ADDS = re.compile(r"_?add_?(?:new)?doc(?:str)?(?:_all|_for_scalar_type)?")


def _in_calls(body: Sequence[ast.stmt]) -> Iterator[Found]:
    known: dict[str, ast.expr] = {}
    for node in body:
        value = node.value if isinstance(node, ast.Assign | ast.Expr) else None
        name = ""
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            known[name] = node.value
        called = value.func if isinstance(value, ast.Call) else None
        if not isinstance(value, ast.Call) or not isinstance(called, ast.Name) or not _ADDS.fullmatch(called.id):
            continue
        if len(value.args) < 2:
            continue
        *before, last = value.args
        words = [one.attr if isinstance(one, ast.Attribute) else _folded(one, known) for one in before]
        words = [one for one in words if isinstance(one, str) and not one.startswith("(")]
        name = name or (words[-1] if words else "")
        if called.id.endswith("_all"):
            name = f"Tensor.{name}"  # torch's: the same text for every class of tensors
        folded = _folded(last, known)
        for of, text in _members(folded):
            if name and text:
                yield Found(f"{name}.{of}" if of else name, "function", "", {}, inspect.cleandoc(text))


def _members(folded: Any) -> Iterator[tuple[str, str]]:
    """numpy's third argument: a text, ("member", text), or a list of the latter."""
    if isinstance(folded, str):
        yield "", folded
    elif isinstance(folded, tuple) and len(folded) == 2 and all(isinstance(one, str) for one in folded):
        yield folded
    elif isinstance(folded, list):
        for one in folded:
            yield from _members(one)


def _folded(node: ast.expr | None, known: dict[str, ast.expr]) -> Any:
    """The value of an expression of texts: sums, `.format(**words)`, and torch's dictionaries of such words, where
    an entry is named by its first word. None if it is anything else."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Name(id=name):
            return _folded(known.get(name), known)
        case ast.Tuple(elts=parts):
            return tuple(_folded(one, known) for one in parts)
        case ast.List(elts=parts):
            return [_folded(one, known) for one in parts]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            parts = [_folded(left, known), _folded(right, known)]
            return "".join(parts) if all(isinstance(one, str) for one in parts) else None
        case ast.Dict(keys=names, values=values):
            pairs = [(None if key is None else _folded(key, known), _folded(value, known))
                     for key, value in zip(names, values, strict=True)]  # fmt: skip
            return {key: value for key, value in pairs if isinstance(key, str) and isinstance(value, str)}
        case ast.Call(func=ast.Name(id="parse_kwargs"), args=[of]):
            entries = [one.strip() for one in re.split(r"\n {4}(?=\S)", _folded(of, known) or "")]
            return {one.split(" ")[0]: one for one in entries if one}
        case ast.Call(func=ast.Name(id="merge_dicts"), args=parts):
            return {name: text for one in parts for name, text in (_folded(one, known) or {}).items()}
        case ast.Call(func=ast.Attribute(value=of, attr="format"), keywords=keywords):
            words: dict[str, Any] = {}
            for keyword in keywords:
                found = _folded(keyword.value, known)
                words |= {keyword.arg: found} if keyword.arg else found if isinstance(found, dict) else {}
            text = _folded(of, known)
            return text and re.sub(r"\{(\w+)\}", lambda match: str(words.get(match[1]) or ""), text)
    return None
