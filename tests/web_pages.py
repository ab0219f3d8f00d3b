# ruff: noqa: E501  tables of words
"""Web pages of our own making, as a crawl has them: menus, prose, notices, code, repeats, in twenty-one languages.

Every sentence is strung together from the words below, so no text of others is in here. What trips rules and splitters
up is planted: abbreviations, initials, ordinals, ellipses, quotes of both kinds, citation marks, odd white space, words
without an end, entries of the list of bad words. Equal seeds give equal pages.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from t5study.corpus.badwords import english
from t5study.corpus.page import Page

TONGUES = {
    "en": "the of and to in a is that it was for on are with as they be at one have this from by hot word but what some we can out other were all there when up use your how said each she which their time will way about many then them write would like these her long make thing see him two has look more day could go come did number sound no most people my over know water than call first who may down side been now find",
    "de": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus er hat dass sie nach wird bei einer um am sind noch wie einem über einen so zum war haben nur oder aber vor zur bis mehr durch man sein wurde wenn schon jetzt immer Haus Stadt Jahr Menschen Wasser Straße größer",
    "fr": "le la les de des et un une dans que qui il elle est pas pour sur avec ce cette son ses plus par au aux nous vous mais ou où très bien être avoir fait comme tout tous leur deux même aussi encore après année ville maison eau été français déjà",
    "es": "el la los las de que y en un una ser se no haber por con su para como estar tener le lo todo pero más hacer o poder decir este ir otro ese si me ya ver porque dar cuando él muy sin vez mucho saber qué sobre mi alguno mismo año ciudad agua también día después niño",
    "it": "il lo la gli le di che e un una in non per con sono si da come anche più ma al questo nel della dei alla suo ha era essere fare molto dove quando tutto anni città casa acqua perché così già può stato giorno tempo vita prima",
    "pt": "o a os as de que e do da em um uma para com não por mais se como mas foi ao ele das tem à seu sua ou ser quando muito há nos já está eu também só pelo pela até isso ela entre era depois sem mesmo aos ter seus quem nas esse eles você cidade água ano",
    "nl": "de het een van en in is dat op te zijn met voor niet die aan er om ook als maar dan bij nog uit hebben naar heeft door over ze wordt hij werd kan meer al geen worden zo of deze veel tot jaar stad water huis mensen goed nieuwe wij onze",
    "sv": "och i att det som en på är av för med den till inte har de ett om han men var jag sig från vi så kan man när år under också efter eller nu sin där vid mot ska skulle kommer ut får finns vara hade alla andra mycket än här då staden vatten hus",
    "da": "og i at det er en til af på for med de ikke der den som har et om han men var jeg sig fra vi så kan man når år under også efter eller nu sin hvor ved mod skal ville kommer ud får findes være havde alle andre meget end her da byen vand hus",
    "pl": "i w na z do się nie że jest to o jak ale po co za od tak dla przez był jego już tylko może ich być czy które jednak sobie bardzo jeszcze więcej także wszystko rok miasto woda dom ludzie dzień życie można gdzie kiedy teraz zawsze również",
    "cs": "a v se na je že s z do o to k jako za po jeho ale by už pro jsem tak jsou od při které nebo až také jen byl být může když více podle které let roku město voda dům lidé den život kde teď vždy však ještě není",
    "ro": "și în de la cu pe nu o un este că din a se pentru mai care ce sau ca al ale au fost fi sunt dar prin după acest această când foarte bine an oraș apă casă oameni zi viață unde acum între fără asupra până toate câteva",
    "hu": "a az és hogy nem is egy van meg ez de már csak volt ki még mint azt ha vagy nagyon lesz el kell lehet után így ezt minden több pedig akkor sem mert amely ezek olyan évben város víz ház ember nap élet hol most mindig között",
    "fi": "ja on ei se että oli hän en mutta ovat kun niin tai myös kuin sen joka ole mitä vain jos olla ne minä sitä hänen jo nyt voi kaikki vielä sitten mukaan ennen jälkeen vuosi kaupunki vesi talo ihmiset päivä elämä missä aina välillä",
    "tr": "bir ve bu için ile da de çok daha gibi olarak olan ama en o ne kadar sonra var ki her ya göre değil ise mi kendi şey iki ben sen biz onlar zaman yıl şehir su ev insanlar gün hayat nerede şimdi her arasında büyük küçük güzel yeni",
    "ru": "и в не на я быть он с что а по это она этот к но они мы весь который из у то за свой что весь год от так о для ты же все тот мочь вы человек такой его сказать один время город вода дом день жизнь где сейчас всегда между",
    "el": "και το να του η της με που την από για είναι στο ο οι στην τα δεν θα τον των σε μια ότι αυτό ένα αλλά όπως μας πιο πολύ έχει κατά μετά χρόνια πόλη νερό σπίτι άνθρωποι ημέρα ζωή πού τώρα πάντα μεταξύ",
    "ar": "في من على إلى أن هذا التي كان عن مع هو ما لا ذلك بعد كل قد بين أو حيث عند كما لم هذه الذي منذ سنة مدينة ماء بيت الناس يوم حياة أين الآن دائما كبير صغير جديد العالم الوقت",
    "hi": "के में है की से का और को पर यह एक हैं नहीं भी कि वह ने हो था कर इस जो तो ही या अपने लिए साथ बाद जब तक कुछ सब बहुत साल शहर पानी घर लोग दिन जीवन कहाँ अब हमेशा बीच",
    "ja": "これは それは あります しました 東京 日本語 新しい 時間 人々 水 家 毎日 生活 今 いつも 大きい 小さい です ます そして しかし について という ことが できる 思います 会社 学校",
    "vi": "và của là có không được cho một trong với các người này đã khi những từ đến cũng như để nhưng về sẽ năm thành phố nước nhà ngày cuộc sống ở đâu bây giờ luôn giữa lớn nhỏ mới rất nhiều thế giới thời gian",
}  # fmt: skip
_CLOSES = [
    ".",
    ".",
    ".",
    ".",
    ".",
    "!",
    "?",
    ".",
    '."',
    '"',
    ".)",
    "...",
    "…",
    ".”",
    ":",
    "",
    ",",
    ";",
    "!!",
    "?!",
    ". . .",
]
_INSIDE = ["Dr. Smith", "e.g. this", "U.S. law", "J. R. Brown", "No. 5", "3.14", "at 5 p.m. sharp", "Inc. said", "St. Mary's",
           "on 12. May", "1,000 of them", "(see p. 7)", "etc. and so on", "wait ... what", "--", "[1]", "[12]", "[edit]", "Mr. and Mrs. Hill",
           "[citation needed]", "a.m. The", "vs. him", "“quoted.” He", '"Stop!" she', "it.The", "end.[3] Then", "v1.2.3", "I. The", "J. S. Bach"]  # fmt: skip
_MENUS = ["Home", "About us", "Contact", "Products | Services | Blog", "Log in", "» Next page", "Share on social media",
          "Read more...", "Copyright 2019 All rights reserved", "Click here", "Search for:", "© 2019", "", "  ", "Page 1 of 12", "Reply ↓"]  # fmt: skip
_NOTICES = ["Please enable JavaScript to view the comments on this page.", "By using this site you agree to our Terms of Use and more.",
            "Read our privacy policy before you go on with it.", "This website uses cookies to give you the best experience.",
            "See the Cookie Policy for all of the details there.", "We use cookies on our pages to make them better.",
            "Your browser does not support javascript at this time.", "The use of cookies can be turned off by you.",
            "Lorem ipsum dolor sit amet, consectetur adipiscing elit.", "lorem ipsum", "var x = { a: 1 };", "if (x) { return the first of them. }",
            "This javascript { line } goes before the bracket counts.", "A closing } bracket is left where it stands.",
            "A cooKie is not one when its letter is a sign; we use cooKies."]  # fmt: skip
_SPACES = ["\n", "\n", "\n", "\n", "\n", "\n\n", "\r\n", "\u2028", "\x0b", "\x85", "\n \t"]
_HOSTS = ["https://www.example.com/", "http://example.org/", "https://sub.example.net/a/", "http://www.site-{}.example/", "https://site-{}.example/?id="]  # fmt: skip
_TAILS = ["", "/", "?utm_source=x", "?ref=y", "?feed=rss", "#top", "?q=1&r=http://www.example.com/"]


def sentence(chance: random.Random, words: Sequence[str], odd: float = 0.2) -> str:
    """Three to twenty words that close in one way or another."""
    told = chance.choices(words, k=chance.randint(3, 20))
    if chance.random() < odd:
        told.insert(chance.randint(0, len(told)), chance.choice(_INSIDE))
    if chance.random() < odd / 4:
        told.insert(
            chance.randint(0, len(told)),
            chance.choice(["\u00a0", "x" * chance.choice([900, 1001, 1500]), "İ", "\u200b", "ΑΣ"]),
        )
    first = told[0][:1].upper() + told[0][1:] if chance.random() < 0.9 else told[0]
    return " ".join([first, *told[1:]]) + (chance.choice(_CLOSES) if chance.random() < odd * 3 else ".")


def line(chance: random.Random, words: Sequence[str], odd: float) -> str:
    told = " ".join(sentence(chance, words, odd) for _ in range(chance.choice([1, 1, 2, 3, 5])))
    return told + chance.choice(["", "", "", "", "[3]", " [4]", " "]) if chance.random() < odd else told


def pages(count: int, seed: int = 0) -> list[Page]:
    """Pages with address and time. About one in twenty comes twice, and lines return within and between pages."""
    chance = random.Random(seed)
    tongues = {name: words.split() for name, words in TONGUES.items()}
    shared = [line(chance, tongues["en"], 0.2) for _ in range(200)]
    made: list[Page] = []
    while len(made) < count:
        tongue = "en" if chance.random() < 0.6 else chance.choice(list(tongues))
        other = tongues[chance.choice(list(tongues))] if chance.random() < 0.1 else tongues[tongue]
        odd = chance.choice([0.05, 0.2, 0.5])
        parts = chance.choices(_MENUS, k=chance.randint(0, 8))
        for _ in range(chance.choice([0, 1, 2, 3, 4, 8, 15, 30])):
            kind = chance.random()
            parts.append(
                chance.choice(_MENUS) if kind < 0.15
                else chance.choice(shared) if kind < 0.2
                else chance.choice(parts or [""]) if kind < 0.23
                else chance.choice(_NOTICES) if kind < 0.26
                else line(chance, other, odd) if kind < 0.35
                else line(chance, tongues[tongue], odd)
            )  # fmt: skip
        if chance.random() < 0.08:
            parts.insert(chance.randint(0, len(parts)), _with_bad_word(chance, tongues["en"]))
        text = parts[0] if parts else ""
        for part in parts[1:]:
            text += chance.choice(_SPACES) + part
        if chance.random() < 0.002:
            text += "\n" + " ".join(chance.choices(tongues["en"], k=45_000)) + "."
        number = len(made)
        url = chance.choice(_HOSTS).format(number % 97) + str(number) + chance.choice(_TAILS)
        time = f"2019-04-{chance.randint(1, 28):02}T{chance.randint(0, 23):02}:00:{number % 60:02}Z"
        made.append(Page(text, url, time))
        if chance.random() < 0.05:
            again = chance.choice(made)
            made.append(
                Page(again.text if chance.random() < 0.5 else text, chance.choice([again.url, again.url + "/"]), time)
            )
    return made[:count]


def _with_bad_word(chance: random.Random, words: Sequence[str]) -> str:
    """A line with an entry of the list in it: alone, inside a word, at the beginning, before a digit or a letter like é."""
    entry = chance.choice(english().entries)
    told = sentence(chance, words, 0.0).split(" ")
    planted = chance.choice(
        [
            entry,
            entry.upper(),
            f"x{entry}",
            f"{entry}s",
            f"({entry})",
            f"{entry}1",
            f"é{entry}",
            f"_{entry}",
            f"{entry}-",
        ]
    )
    told.insert(chance.choice([0, len(told) // 2, len(told)]), planted)
    return " ".join(told) + chance.choice(["", "."])
