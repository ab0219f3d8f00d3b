"""Recipes: lists the user brings, wikis, mixtures, truncated sizes."""

from __future__ import annotations

import bz2
import hashlib
import json
import sys
from importlib import import_module
from pathlib import Path

import pytest
from shared_data import SHARED
from web_pages import TONGUES
from wet_pages import pages, write_shards

from t5study.__main__ import main
from t5study.commands.text import _in_parts
from t5study.corpus.build import read_documents
from t5study.corpus.page import Drops, Page
from t5study.corpus.read import read_file
from t5study.corpus.recipe_build import build_recipe
from t5study.corpus.recipes import TRUNCATED, VOCABULARY_MIX, by_lists, make_recipe, mixed, repeats
from t5study.corpus.samples import SHOWN, Samples, merged
from t5study.corpus.wikipedia import _plain
from t5study.ground.errors import UserError

SITES = {"example.com": True, "example.co.uk": ["news", "www"], "other.org": []}


def sites(tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "sites.json"
    path.write_text(json.dumps(SITES))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://example.com/a", ""),
        ("https://blog.example.com/", ""),
        ("https://news.example.co.uk/x", ""),
        ("https://shop.example.co.uk/x", "part of a site that is not listed"),
        ("http://other.org", "part of a site that is not listed"),
        ("http://co.uk/", "site that is not listed"),
        ("http://example.org/", "site that is not listed"),
        ("not a url", "site that is not listed"),
    ],
)
def test_sites_with_and_without_parts(tmp_path: Path, url: str, reason: str):
    pytest.importorskip("tldextract", reason="tldextract is not installed")
    path, digest = sites(tmp_path)
    recipe = make_recipe("realnews", sites=path, sites_digest=digest)
    assert by_lists(recipe, tmp_path)(Page("", url)) == reason


def test_a_list_of_sites_is_known_by_its_digest(tmp_path: Path):
    path, digest = sites(tmp_path)
    with pytest.raises(UserError, match=f"is not Grover's list.*--sites-digest {digest}"):
        make_recipe("realnews", sites=path)
    with pytest.raises(UserError, match="its sha256 is"):
        make_recipe("realnews", sites=path, sites_digest="00")
    for wrong in ("[]", '{"a": 3}', '{"a": [1]}', "{"):
        path.write_text(wrong)
        with pytest.raises(UserError, match=r"sites\.json: found"):
            make_recipe("realnews", sites=path, sites_digest="00")


def test_only_pages_whose_url_is_listed(tmp_path: Path):
    made = pages(60)
    pattern = write_shards(tmp_path / "in", made, 2)
    (tmp_path / "urls.txt").write_text("\n".join(f"http://www.example.org/{i}/?utm_source=x" for i in range(0, 60, 2)))
    recipe = make_recipe("webtext", "3.1.0", addresses=[tmp_path / "urls.txt"])
    test = None
    (tmp_path / "lists").mkdir()
    from t5study.corpus.recipes import write_addresses

    assert recipe.addresses is not None
    write_addresses(recipe.addresses, tmp_path / "lists" / "addresses.npy")
    test = by_lists(recipe, tmp_path / "lists")
    for page in made:
        number = int(page.url.rsplit("/", 1)[1])
        assert test(page) == ("" if number % 2 == 0 else "URL that is not listed")
    assert pattern.endswith("*.wet.gz")
    (tmp_path / "none.txt").write_text("\n\n")
    empty = make_recipe("webtext", addresses=[tmp_path / "none.txt"])
    assert empty.addresses is not None
    with pytest.raises(UserError, match="found no URL"):
        write_addresses(empty.addresses, tmp_path / "lists" / "none.npy")


def test_truncated_sizes_are_the_papers_and_mixtures_keep_their_parts():
    assert {size: repeats(size) for size in TRUNCATED} == TRUNCATED
    sources = [["english " * 9] * 400, ["deutsch " * 7] * 400, ["français "] * 900, ["română "] * 900]
    texts = list(mixed(sources, (10, 1, 1, 1), characters=20_000))
    shares = [sum(len(text) for text in texts if text.startswith(word)) for word in ("en", "de", "fr", "ro")]
    assert sum(shares) >= 20_000
    for share in shares[1:]:
        assert shares[0] / share == pytest.approx(10, rel=0.05)
    assert list(mixed([[], ["b"]], [1, 1])) == []


def test_the_same_few_are_shown_however_pages_come():
    made = pages(80)
    whole = Samples()
    for page in made:
        whole.add("reason", page)
    halves = [Samples(), Samples()]
    for i, page in enumerate(made):
        halves[i % 2].add("reason", page)
    few = [{name: [list(one) for one in held] for name, held in one.few.items()} for one in halves]
    one = merged([{name: [list(entry) for entry in held] for name, held in whole.few.items()}])
    assert merged(few) == one
    assert len(one["reason"]) == SHOWN


# --- wikis ----------------------------------------------------------------------------------------------------------

WIKITEXT = """{{Infobox|name=x}}
'''Harbours''' are [[place|places]] for ships.<ref>A note.</ref> They are [http://x.org old].
[[File:A.jpg|thumb|A picture of [[ships]]]]

== History ==
{| class="wikitable"
| cell
|}
The first one was ''small''. {{reflist}}
[[Category:Harbours]]"""


def dump(articles: list[tuple[str, int, str]]) -> bytes:
    body = "".join(
        f"<page><title>{title}</title><ns>{ns}</ns><revision><timestamp>2019</timestamp><text>{text}</text></revision></page>"
        for title, ns, text in articles
    )
    info = "<siteinfo><base>https://simple.wikipedia.org/wiki/Main_Page</base></siteinfo>"
    return f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{info}{body}</mediawiki>'.encode()


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def test_articles_of_a_dump(tmp_path: Path):
    pytest.importorskip("mwparserfromhell", reason="mwparserfromhell is not installed")
    articles = [
        ("A harbour", 0, escaped(WIKITEXT)),
        ("Talk:A harbour", 1, "Talk."),
        ("Port", 0, "#REDIRECT [[A harbour]]"),
        ("Nothing", 0, "{{stub}}"),
    ]
    path = tmp_path / "dump.xml.bz2"
    path.write_bytes(bz2.compress(dump(articles)))
    drops = Drops()
    (page,) = list(read_file(path, drops))
    assert page.text == "Harbours are places for ships. They are old.\n\nHistory\n\nThe first one was small."
    assert page.url == "https://simple.wikipedia.org/wiki/A_harbour"
    assert drops.counts == {"of another namespace": 1, "redirect": 1, "without text": 1}
    build_recipe(make_recipe("wikipedia"), [str(path)], tmp_path / "out")
    assert list(read_documents(tmp_path / "out")) == [page.text]


@pytest.mark.parametrize("cut", [200, 700, -40])
def test_a_damaged_dump_gives_what_stands_before(tmp_path: Path, cut: int):
    pytest.importorskip("mwparserfromhell", reason="mwparserfromhell is not installed")
    whole = dump([(f"A{i}", 0, f"Article number {i}.") for i in range(40)])
    for name, content in (("a.xml", whole[:cut]), ("b.xml.bz2", bz2.compress(whole)[:cut])):
        drops = Drops()
        (tmp_path / name).write_bytes(content)
        found = list(read_file(tmp_path / name, drops))
        assert [page.text for page in found] == [f"Article number {i}." for i in range(len(found))]
        assert any("damaged or cut" in reason for reason in drops.counts) or len(found) == 40


def test_a_dump_that_declares_entities_or_is_a_bomb(tmp_path: Path):
    pytest.importorskip("mwparserfromhell", reason="mwparserfromhell is not installed")
    laughs = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><mediawiki>&b;</mediawiki>'
    bomb = dump([("A", 0, "The first.")])[:-12] + b"<page><text>" + b"a" * ((1 << 26) + (1 << 22))
    for name, content, reason in (
        ("a.xml", laughs, "dump that declares entities"),
        ("b.xml.bz2", bz2.compress(bomb), "dump"),
    ):
        drops = Drops()
        (tmp_path / name).write_bytes(content)
        assert len(list(read_file(tmp_path / name, drops))) == (0 if name == "a.xml" else 1)
        assert any(one.startswith(reason) for one in drops.counts)


@pytest.mark.parametrize(
    ("line", "plain"),
    [
        ("a ''b'' '''c''' '''''d''''' e", "a b c d e"),
        ("in the ''Iliad'''s lines", "in the Iliad's lines"),
        ("l'''amour'' x", "l'amour x"),
        ("four ''''b'''", "four 'b"),
        ("never ''closed", "never closed"),
        ("don't", "don't"),
        ("TAI (''{{lang|fr|x}}'') is", "TAI () is"),
    ],
)
def test_marks_of_italics_and_bold_go_and_apostrophes_stay(line: str, plain: str):
    pytest.importorskip("mwparserfromhell")
    assert _plain(import_module("mwparserfromhell"), line) == plain


def test_an_italic_without_an_end_does_not_keep_what_follows_it_from_being_read():
    pytest.importorskip("mwparserfromhell")
    text = "The ''Iliad'''s hero.<ref>Homer</ref> {{cite|a}}Then '''war''' came."
    assert _plain(import_module("mwparserfromhell"), text) == "The Iliad's hero. Then war came."


@pytest.mark.slow
@pytest.mark.skipif(SHARED is None, reason="the shared texts are not on this machine")
def test_a_real_part_of_a_dump():
    assert SHARED is not None
    drops = Drops()
    found = list(read_file(SHARED / "text" / "enwiki_2016_pages.xml.bz2", drops))
    assert (len(found), drops.counts) == (106, {"redirect": 99, "of another namespace": 1})
    assert not any(mark in page.text for page in found for mark in ("{{", "<ref", "'''"))


# --- languages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "detecting",
    ["", "--detector resiliparse --sure 1000", "--detector langdetect --sure 0.9"],
    ids=["C4", "other", "same"],
)
def test_own_text_of_another_language(
    detecting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """What the multilingual vocabulary needs: German, French, Romanian pages out of the same files."""
    if "resiliparse" in detecting:
        pytest.importorskip("resiliparse", reason="resiliparse is not installed")
    monkeypatch.chdir(tmp_path)
    texts = {tongue: [TONGUES[tongue] + f" {i} {tongue}." for i in range(5)] for tongue in ("en", "de", "fr", "ro")}
    rows = [json.dumps({"text": text}) for some in texts.values() for text in some]
    Path("a.jsonl").write_text("\n".join(rows) + "\n")
    command = "corpus build --recipe own --profile 3.1.0 --skip clean dedup --input a.jsonl --out"
    assert main([*command.split(), "out", "--language", "de", *detecting.split()]) == 0, capsys.readouterr().err
    account = json.loads(Path("out/account.json").read_text())
    assert account["languages"] == {"de": 5}
    assert account["recipe"]["profile"]["language"] == "de"
    assert account["recipe"]["profile"]["detector"] == ("resiliparse" if "resi" in detecting else "langdetect")
    assert sorted(read_documents(Path("out"))) == sorted(texts["de"])
    capsys.readouterr()
    assert main(["corpus", "inspect", "out", "--plot", "out.svg"]) == 0
    shares = capsys.readouterr().out.partition("of those that were asked for it\n")[2].splitlines()[:4]
    assert sorted((one.split()[0], one.split()[1]) for one in shares) == [
        (one, "5") for one in ("de", "en", "fr", "ro")
    ]
    assert Path("out.svg").read_text().count("<!-- pages by language") == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--recipe c4 --language de", "--language: found it with the recipe c4; it is the recipe own's alone"),
        ("--recipe own --skip language --sure 0.5", "--sure: found it with --skip language"),
        ("--recipe own --detector resiliparse", "--sure: missing; resiliparse measures in its own way"),
        ("--recipe own --language deutsch", "--language: found 'deutsch'; give one of af, ar"),
        ("--recipe own --detector cld2 --sure 0.9", "cld2 is not installed; pip install pycld2"),
        ("--recipe own --sure nan", "--sure"),
        ("--language de", "--language: belongs to a recipe"),
    ],
)
def test_languages_that_cannot_be(
    words: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "pycld2", None)
    (tmp_path / "a.txt").write_text("Some text.")
    end = ["--input", str(tmp_path / "a.txt")] if "recipe" in words else []
    assert main(["corpus", "build", *words.split(), *end, "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("profile", ["paper", "3.1.0"])
def test_bad_words_of_another_language_are_brought(
    profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """In lines and in the finished text. Without a list no German page goes, not even for an English entry."""
    monkeypatch.chdir(tmp_path)
    kept = (
        TONGUES["de"]
        + " Das ist der erste Satz dazu. Und das hier ist noch ein zweiter Satz. Hier ist der dritte Satz."
    )
    gone, english = kept + " Das war der reine Mürks für alle.", kept + " Er sagte dazu zweimal bastard und ging heim."
    Path("a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in (kept, gone, english)))
    Path("de.txt").write_text("mürks\nquark mit soße\n")
    build = f"corpus build --recipe own --profile {profile} --skip dedup --language de --input a.jsonl --out".split()
    assert main([*build, "with", "--bad-words", "de.txt"]) == 0, capsys.readouterr().err
    assert main([*build, "without"]) == 0, capsys.readouterr().err
    counts, account = (json.loads(Path("with", name).read_text()) for name in ("corpus.json", "account.json"))
    assert sorted(read_documents(Path("with"))) == sorted([kept, english])
    assert counts["bad word"] == 1
    assert account["recipe"]["words"] == hashlib.sha256(Path("de.txt").read_bytes()).hexdigest()
    assert sorted(read_documents(Path("without"))) == sorted([kept, gone, english])
    account = json.loads(Path("without/account.json").read_text())
    assert account["recipe"]["profile"]["bad_words"] is None
    assert "words" not in account["recipe"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--recipe c4 --bad-words de.txt", "--bad-words: found it with the recipe c4; it is the recipe own's alone"),
        ("--recipe own --skip badwords --bad-words de.txt", "--bad-words: found it with --skip badwords, which rules"),
        ("--recipe own --skip language --bad-words de.txt", "--bad-words: found it with --skip language, which leaves"),
        ("--recipe own --bad-words none.txt", "none.txt: cannot be read (No such file or directory)"),
        ("--recipe own --bad-words empty.txt", "empty.txt: found no entry; give a file with an entry a line"),
        ("--recipe own --bad-words latin.txt", "latin.txt: is not UTF-8; give a file with an entry a line"),
        ("--bad-words de.txt", "--bad-words: belongs to a recipe"),
    ],
)
def test_lists_of_bad_words_that_cannot_be(
    words: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("Some text.")
    Path("de.txt").write_text("mürks\n", "utf-8")
    Path("empty.txt").write_text("\n \n")
    Path("latin.txt").write_bytes("mürks\n".encode("latin-1"))
    end = ["--input", "a.txt"] if "recipe" in words else []
    assert main(["corpus", "build", *words.split(), *end, "--out", "out"]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
    assert not Path("out").exists()


# --- from the command line ------------------------------------------------------------------------------------------


def test_lists_choose_pages_of_a_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """RealNews-like by sites, WebText-like by URLs: what is not listed is counted, the list's digest is on record."""
    pytest.importorskip("tldextract", reason="tldextract is not installed")
    monkeypatch.chdir(tmp_path)
    write_shards(Path("in"), pages(60), 2)
    listed, digest = sites(tmp_path)
    Path("urls.txt").write_text("".join(f"http://example.org/{i}\n" for i in range(0, 60, 2)))
    build = ["corpus", "build", "--profile", "2.2.0", "--input", "in/*.gz", "--recipe"]
    assert main([*build, "webtext", "--urls", "urls.txt", "--out", "web"]) == 0, capsys.readouterr().err
    counts, account = (json.loads(Path("web", name).read_text()) for name in ("corpus.json", "account.json"))
    odd = sum(int(page.url.rpartition("/")[2]) % 2 for page in pages(60))
    assert counts["URL that is not listed"] == odd > 20
    assert 10 < counts["documents"] <= 60 - odd
    assert account["recipe"]["addresses"] == hashlib.sha256(Path("urls.txt").read_bytes()).hexdigest()
    assert main([*build, "realnews", "--sites", str(listed), "--out", "news"]) == 2
    listed.write_text(json.dumps({"example.org": True}))
    digest = hashlib.sha256(listed.read_bytes()).hexdigest()
    assert main([*build, "realnews", "--sites", str(listed), "--sites-digest", digest, "--out", "news"]) == 0
    counts, account = (json.loads(Path("news", name).read_text()) for name in ("corpus.json", "account.json"))
    assert counts["documents"] > 20
    assert "site that is not listed" not in counts
    assert account["recipe"]["sites"] == digest


def test_a_vocabulary_of_four_languages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Section 3.1.1: 10 parts of English to 1 each of German, French and Romanian, by characters."""
    monkeypatch.chdir(tmp_path)
    for tongue in ("en", "de", "fr", "ro"):
        rows = [json.dumps({"text": f"{TONGUES[tongue]} {i}"}) for i in range(200)]
        Path(f"{tongue}.jsonl").write_text("\n".join(rows))
    parts = [f"{part}={tongue}.jsonl" for part, tongue in zip(VOCABULARY_MIX, ("en", "de", "fr", "ro"), strict=True)]
    given = {tongue: 0 for tongue in ("en", "de", "fr", "ro")}
    for text in _in_parts(parts):
        given[next(tongue for tongue in given if text.startswith(TONGUES[tongue]))] += len(text)
    assert [given["en"] / given[tongue] for tongue in ("de", "fr", "ro")] == pytest.approx([10, 10, 10], rel=0.1)
    assert main(["vocab", "train", "--parts", *parts, "--pieces", "200", "--out", "m.model"]) == 0
    assert Path("m.model").is_file()
