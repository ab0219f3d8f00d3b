"""Reading docstrings from source: every form they stand in, on small files whose records are known."""

from __future__ import annotations

import textwrap
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from t5study import pydocs
from t5study.pydocs import Documented, Parameter


@pytest.fixture
def read(tmp_path: Path):
    def reader(source: str, module: str = "toy.mod") -> dict[str, Documented]:
        path = tmp_path / "mod.py"
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        found = pydocs._of_file("toy", module, path)
        assert len({one.name for one in found}) == len(found)
        return {one.name: one for one in found}

    return reader


def test_modules_classes_functions_and_methods(read):
    found = read('''
        """About the module.

        More of it."""
        import never_installed_anywhere

        raise SystemExit("a file that is read is not run")

        if never_installed_anywhere:
            def under_if():
                """Under an if."""

        class Toy(Base):
            """A toy."""

            def __init__(self, size=3, *, name="x"):
                pass

            @property
            def size(self):
                """How large."""

            async def play(self, *others, long: int = -1, **more) -> None:
                """Play with
                others.

                For a while."""

        def undocumented():
            def inner():
                """Not read."""
    ''')
    assert list(found) == ["", "under_if", "Toy", "Toy.size", "Toy.play"]
    assert found[""] == Documented("toy", "toy.mod", "", "module", "", "About the module.", "More of it.", ())
    assert found["Toy"].signature == "(size=3, *, name='x')"
    assert (found["Toy"].kind, found["Toy.size"].kind) == ("class", "function")
    play = found["Toy.play"]
    assert (play.summary, play.body) == ("Play with others.", "For a while.")
    assert play.signature == "(self, *others, long=-1, **more)"


def test_numpydoc_parameters(read):
    found = read('''
        def f(a, axis=None, *, out=..., **kwargs):
            """Do it.

            Parameters
            ----------
            a, b : array_like
                Numbers
                to use.
            axis : int, optional
                Axis to go along.

                A second paragraph.
            size : float, default=2.5
            out : {'x', 'y'}, default: 'y'
                Where.

            Other Parameters
            ----------------
            **kwargs : dict
                The rest.

            Returns
            -------
            c : not a parameter
            """
    ''')
    assert found["f"].signature == "(a, axis=None, *, out=..., **kwargs)"
    assert found["f"].parameters == (
        Parameter("a", "array_like", "", "Numbers\nto use."),
        Parameter("b", "array_like", "", "Numbers\nto use."),
        Parameter("axis", "int, optional", "None", "Axis to go along.\n\nA second paragraph."),
        Parameter("size", "float, default=2.5", "2.5", ""),
        Parameter("out", "{'x', 'y'}, default: 'y'", "...", "Where."),
        Parameter("**kwargs", "dict", "", "The rest."),
    )


def test_google_parameters(read):
    found = read('''
        def f(x, dim=0):
            """Do it.

            Args:
                x (Tensor): the input
                    tensor.
                dim (int or tuple(int), optional): where. Default: ``0``
                plain: without a type

            Returns:
                y: not a parameter
            """
    ''')
    assert found["f"].parameters == (
        Parameter("x", "Tensor", "", "the input\ntensor."),
        Parameter("dim", "int or tuple(int), optional", "0", "where. Default: ``0``"),
        Parameter("plain", "", "", "without a type"),
    )


def test_a_section_right_under_the_summary_is_no_part_of_it(read):
    found = read('''
        def f(x):
            """Do it.
            Parameters
            ----------
            x : int
                A number.
            """
    ''')
    assert found["f"].summary == "Do it."
    assert found["f"].parameters == (Parameter("x", "int", "", "A number."),)


def test_docstrings_of_objects_written_in_c(read):
    found = read('''
        """Adds docstrings."""
        words = {"note": "Take care.", "more": "And more."}
        add_docstr(torch.abs, r"""
        abs(input, *, out=None) -> Tensor

        Computes \\text{size}_{i}.
        """ + r"""
        {note} {more} {unknown}
        """.format(**words))
        add_docstr_all("abs", """abs() -> Tensor

        See torch.abs""")
        add_newdoc('numpy', 'ndarray', """A block.""")
        add_newdoc('numpy', 'ndarray', ('sum', """Add up."""))
        add_newdoc('numpy', 'ndarray', [('min', """Least."""), ('max', """Most.""")])
        add_newdoc("agm", """
            agm(a, b, out=None)

            Mean of two kinds.""")
        det = _add_docstr(_linalg.linalg_det, r"""
        linalg.det(A) -> Tensor

        Determinant.""")
        add_newdoc_for_scalar_type('byte', '(value=0, /)', """Signed.""")
        add_newdoc('numpy', 'computed', some_function())
        add_newdoc(computed, """No name.""")
    ''')
    assert set(found) == {
        *("", "abs", "Tensor.abs", "ndarray", "ndarray.sum", "ndarray.min", "ndarray.max", "agm", "det", "byte"),
    }
    assert found["abs"].signature == "(input, *, out=None)"
    assert found["abs"].summary.startswith("Computes \\text{size}_{i}.")
    assert "Take care. And more." in found["abs"].summary + found["abs"].body
    assert (found["agm"].signature, found["agm"].summary) == ("(a, b, out=None)", "Mean of two kinds.")
    assert (found["ndarray.sum"].summary, found["ndarray.max"].summary) == ("Add up.", "Most.")
    assert (found["byte"].summary, found["det"].kind) == ("Signed.", "function")


TORCH = """
common = merge_dicts(parse_kwargs('''
    out (Tensor): where
        to put it.
    input (Tensor): the input.
'''), {"note": "Take care."})
add_docstr(torch.neg, '''neg(input)

Negative.

Args:
    {input}
    {out}

{note}
'''.format(**common))
"""


def test_words_of_torchs_templates(read):
    found = read(TORCH)
    assert found["neg"].parameters == (
        Parameter("input", "Tensor", "", "the input."),
        Parameter("out", "Tensor", "", "where\nto put it."),
    )
    assert found["neg"].body.endswith("Take care.")


@pytest.mark.parametrize(
    "source",
    [
        b'def f(:\n    """x"""',
        b'"""\xff\xfe"""',
        b'"""nul \x00"""',
        b"",
        b"x = 1",
        b'# -*- coding: no-such -*-\n"""x"""',
        b'"""' + b"(" * 10,
    ],
)
def test_a_file_that_cannot_be_parsed_has_no_records(tmp_path: Path, source: bytes):
    path = tmp_path / "bad.py"
    path.write_bytes(source)
    assert pydocs._of_file("toy", "toy.bad", path) == []


def test_a_lone_surrogate_cannot_get_out(read):
    found = read('def f():\n    """Escaped \\ud800 half."""\n')
    assert found["f"].summary.encode() == b"Escaped ? half."


def test_which_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("a.py", "sub/__init__.py", "sub/b.py", "tests/c.py", "test_d.py", "__pycache__/e.py", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    monkeypatch.setattr(pydocs, "_roots", lambda: {"toy": tmp_path})
    assert [module for _, module, _ in pydocs._files(".py")] == ["toy.a", "toy.sub", "toy.sub.b"]


def test_private_and_public_names_of_a_module_lie_on_one_side():
    modules = [f"signal.windows{i}" for i in range(900)]
    sides = [pydocs.split(module) for module in modules]
    assert 60 < sides.count("validation") < 140
    assert set(sides) == {"train", "validation"}
    assert [pydocs.split(f"_signal._windows{i}") for i in range(900)] == sides


def test_every_package_that_is_read_comes_with_the_core():
    """Extras must not change the corpus: what `pip install t5study` alone does not bring is not on the list."""
    brought: set[str] = set()
    waiting = ["t5study"]
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name not in brought:
            brought.add(name)
            needed = [Requirement(one) for one in metadata.requires(name) or []]
            waiting += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    assert set(pydocs.DISTRIBUTIONS.values()) - {""} <= brought
    assert "transformers" not in brought
    assert dict(pydocs.versions()).keys() == pydocs.DISTRIBUTIONS.keys()


def test_topics_are_pages_of_prose():
    found = pydocs.topics()
    names = {one.module for one in found}
    assert {"pydoc_data.topics.assert", "pydoc_data.topics.lambda"} <= names
    assert sum(len(one.body) for one in found) > 300_000
    assert {one.kind for one in found} == {"topic"}
