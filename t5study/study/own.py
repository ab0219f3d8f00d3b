"""Own studies: a Python file with a baseline and tables of one's own, addressed as my_study.py:TABLES.

    own = load("my_study.py:TABLES")           own.tables, own.baseline

The file is imported as a module of its own name, its folder behind all others on the path, so worker processes know
what it defines (an objective, say) under the same name. Fingerprints know such classes by name and fields, not by their
code: a folder that was asked with one is refused when the code of the class has changed.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import keyword
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import xxhash

from t5study.ground.errors import UserError
from t5study.ground.fingerprint import fingerprint
from t5study.ground.store import digest_file, read_json
from t5study.study.asked import Asked
from t5study.study.baseline import BASELINE
from t5study.study.experiment import Experiment
from t5study.study.table import Table
from t5study.study.tables.declared import EVERY, GROUPS

TABLES = "TABLES"  # what is taken of a file where no name is given
_NUMBER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_OBJECTIVE = ("label", "concatenates", "lengths", "pairs")  # what an objective has


@dataclass(frozen=True)
class Own:
    """Tables out of a file. address: as it was typed. digest: of the file. classes: digests of the code of the classes
    that it defines, by name."""

    address: str
    tables: tuple[Table, ...]
    baseline: Experiment
    digest: str
    classes: tuple[tuple[str, str], ...] = ()

    @property
    def told(self) -> dict[str, Any]:
        """For study.json."""
        numbers = [table.number for table in self.tables]
        return {"address": self.address, "digest": self.digest, "tables": numbers, "classes": dict(self.classes)}


def is_own(text: str) -> bool:
    """Whether a part of --tables addresses a file.

    >>> is_own("studies/mine.py:TABLES"), is_own("mine.py"), is_own("later")
    (True, True, False)
    """
    return ".py:" in text or text.endswith(".py")


def typed(asked: Asked, out: Path, tables: str = "") -> Asked:
    """What was asked, with the file that --tables names, or that the study in `out` was asked with before. UserError
    for two files."""
    found = [part.strip() for part in tables.split(",") if is_own(part.strip())]
    if len(found) > 1:
        raise UserError(f"--tables: found two files, {found[0]} and {found[1]}; give one")
    if found or asked.own:
        return replace(asked, own=found[0] if found else asked.own)
    path = Path(out) / "study.json"
    before = read_json(path) if path.is_file() else {}
    told = before.get("own") if isinstance(before, dict) else None
    if not isinstance(told, dict) or not isinstance(address := told.get("address"), str):
        return asked
    path, name = _parts(address)
    if not path.is_file():
        raise UserError(
            f"{path}: no such file, and {out} was asked with it; run from the folder of before, or give --tables "
            f"FILE.py:{name}"
        )
    return replace(asked, own=address)


def for_rounds(tables: str | None) -> str | None:
    """--tables of the rounds: a file, or nothing for the paper's. UserError for anything else."""
    if tables and not (is_own(tables) and "," not in tables):
        raise UserError(
            f"--tables: found {tables!r}; the rounds go through 4, 5, 6 and 7, or a file's tables: give FILE.py:NAME"
        )
    return tables or None


def load(address: str) -> Own:
    """Imports a file and takes its tables. UserError, in one line, for every mistake in it."""
    path, name = _parts(address)
    if not path.is_file():
        raise UserError(f"{path}: no such file; give --tables FILE.py:NAME")
    digest = digest_file(path)
    module = _module(path.resolve(), digest, path)
    if not hasattr(module, name):
        near = difflib.get_close_matches(name, _named(module), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"give one of {', '.join(_named(module)) or 'its tables'}"
        raise UserError(f"{path}: found no {name} in it; {hint}")
    tables = _tables(address, getattr(module, name))
    baseline = _baseline(path, module, tables)
    _check(path, tables)
    return Own(address, tables, baseline, digest, tuple(_classes(path).items()))


def refuse_changed(own: Own, before: Mapping[str, Any], out: Path) -> None:
    """UserError if a class of the file has other code than when the folder was asked with it."""
    now = dict(own.classes)
    for name, digest in before.get("classes", {}).items():
        if name in now and now[name] != digest:
            raise UserError(
                f"{_parts(own.address)[0]}: class {name} has other code than when {out} was asked with it; give it "
                "another name, or choose another --out"
            )


# --- the file -----------------------------------------------------------------------------------------------------


def _parts(address: str) -> tuple[Path, str]:
    """
    >>> _parts("studies/mine.py:ALL"), _parts("mine.py")
    ((PosixPath('studies/mine.py'), 'ALL'), (PosixPath('mine.py'), 'TABLES'))
    """
    path, colon, name = address.rpartition(":")
    return (Path(path), name or TABLES) if colon and path.endswith(".py") else (Path(address), TABLES)


_imported: dict[Path, tuple[str, ModuleType]] = {}


def _module(path: Path, digest: str, typed: Path) -> ModuleType:
    """The file as a module under its own name; imported once, as long as it does not change."""
    name = path.stem
    if path in _imported and _imported[path][0] == digest and sys.modules.get(name) is _imported[path][1]:
        return _imported[path][1]
    if not name.isidentifier() or keyword.iskeyword(name):
        raise UserError(f"{typed}: found a name that Python cannot import; rename it, to my_study.py for example")
    there = sys.modules.get(name)
    taken = there is not None or importlib.util.find_spec(name) is not None
    if taken and path not in (_file(there), _file_of(name, there)):
        raise UserError(f"{typed}: found the name of another module, {name}; rename it, to my_study.py for example")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name)
        raise UserError(f"{typed}: {_where(error, path)}") from None
    _imported[path] = (digest, module)
    if importlib.util.find_spec("cloudpickle"):  # what a scheduler's jobs are sent by: they know no path of ours
        import cloudpickle

        cloudpickle.register_pickle_by_value(module)
    return module


def _file(module: ModuleType | None) -> Path | None:
    there = getattr(module, "__file__", None)
    return Path(there).resolve() if there else None


def _file_of(name: str, module: ModuleType | None) -> Path | None:
    """Where a module of that name would come from."""
    spec = None if module else importlib.util.find_spec(name)
    return Path(spec.origin).resolve() if spec and spec.origin else None


def _where(error: BaseException, path: Path) -> str:
    """What went wrong in a file, and in which of its lines, in one line."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"line {error.lineno}: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return f"line {lines[-1] if lines else 1}: {kind}{' '.join(str(error).split())}"


def _classes(path: Path) -> dict[str, str]:
    """Digests of the code of a file's classes, without comments and layout, by name."""
    tree = ast.parse(path.read_bytes())
    classes = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    return {node.name: xxhash.xxh3_128_hexdigest(ast.dump(node).encode()) for node in classes}


# --- what is in it --------------------------------------------------------------------------------------------------


def _named(module: ModuleType) -> list[str]:
    """Names of a module's tables, and of its tuples of them."""

    def is_tables(value: object) -> bool:
        several = value if isinstance(value, tuple | list) else [value]
        return bool(several) and all(isinstance(one, Table) for one in several)

    return [name for name, value in vars(module).items() if is_tables(value)]


def _tables(address: str, value: object) -> tuple[Table, ...]:
    told: Iterable[object] = value if isinstance(value, tuple | list) else (value,)
    tables = []
    for k, one in enumerate(told, 1):
        if not isinstance(one, Table):
            place = f"item {k}: " if isinstance(value, tuple | list) else ""
            raise UserError(f"{address}: {place}found a {type(one).__name__}; give a Table, or a tuple of them")
        tables.append(one)
    if not tables:
        raise UserError(f"{address}: found no table in it; give at least one")
    return tuple(tables)


def _baseline(path: Path, module: ModuleType, tables: tuple[Table, ...]) -> Experiment:
    """The one baseline that all tables share."""
    told = getattr(module, "BASELINE", tables[0].baseline)
    if not isinstance(told, Experiment):
        raise UserError(f"{path}: BASELINE: found a {type(told).__name__}; give an Experiment")
    for table in tables:
        if table.baseline != told:
            raise UserError(f"{path}: table {table.number}: found another baseline; give it baseline=BASELINE")
    if told != BASELINE and not any(table.starred(row) for table in tables for row in table.rows):
        raise UserError(f'{path}: found no row that is the baseline; add Row("Baseline", BASELINE) to a table')
    return told


def _check(path: Path, tables: tuple[Table, ...]) -> None:
    taken = {table.number for table in EVERY} | set(GROUPS)
    for table in tables:
        number = table.number
        if not isinstance(number, str) or not _NUMBER.fullmatch(number):
            raise UserError(f"{path}: a table's number: found {number!r}; give letters and digits, as a text")
        if number in taken:
            raise UserError(f"{path}: table {number}: found its number on another table too; give it another")
        taken.add(number)
        if not table.rows:
            raise UserError(f"{path}: table {number}: found no rows; give at least one")
        for row in table.rows:
            _check_row(f"{path}: table {number}: row {row.label!r}", row.experiment)


def _check_row(where: str, experiment: Experiment) -> None:
    objective = experiment.objective
    if lacks := [name for name in _OBJECTIVE if not hasattr(objective, name)]:
        raise UserError(f"{where}: objective: found a {type(objective).__name__} without {', '.join(lacks)}")
    try:
        fingerprint(experiment)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {error}; give numbers, texts and frozen dataclasses of them") from None
