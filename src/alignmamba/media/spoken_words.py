"""Words as they are spoken: numbers, signs and abbreviations in English, and sounds of unknown words."""

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Final, Literal

Known = Callable[[str], bool]
"""True if a pronunciation dictionary has a word of lower-case letters."""

Years = Literal["pairs", "thousands"]
"""Reading of the years from 2010 on: twenty fourteen, or two thousand fourteen."""

_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"
_PIECE = re.compile(
    r"(?P<time>\d{1,2}:[0-5]\d)(?!\d)"
    rf"|(?P<money>[$€£])(?P<amount>{_NUMBER})(?P<size>k|m|bn|b)?(?![a-z\d])"
    r"|(?P<ordinal>\d+)(?:st|nd|rd|th)(?![a-z])"
    r"|(?P<decade>\d*\d0)'?s(?![a-z])"
    rf"|(?P<number>{_NUMBER})"
    r"|(?P<initials>(?:[a-z]\.){2,}(?:[a-z](?![a-z']))?)"
    r"|(?P<word>[a-z']*[a-z][a-z']*)"
    r"|(?P<sign>[&@%+=#°]|(?<![^(])[-−](?=[.\d]))"
)
_MONEY: Final = {"$": ("dollar", "cent"), "€": ("euro", "cent"), "£": ("pound", "penny")}
_SIZES: Final = {"k": "thousand", "m": "million", "b": "billion", "bn": "billion"}
_SIGNS: Final = {
    "&": "and",
    "@": "at",
    "%": "percent",
    "+": "plus",
    "=": "equals",
    "#": "number",
    "°": "degrees",
    "-": "minus",
    "−": "minus",
}
_SHORT: Final = {
    "mr": "mister",
    "mrs": "missus",
    "dr": "doctor",
    "prof": "professor",
    "jr": "junior",
    "sr": "senior",
    "vs": "versus",
    "etc": "et cetera",
    "approx": "approximately",
    "kg": "kilograms",
    "km": "kilometers",
    "cm": "centimeters",
    "ft": "feet",
    "lb": "pound",
    "lbs": "pounds",
    "mph": "miles per hour",
    "kmh": "kilometers per hour",
    "am": "a m",
    "pm": "p m",
}
_ONLY_AFTER_NUMBERS: Final = frozenset({"am", "ft", "cm", "km", "kg"})
"""Abbreviations that are words or initials elsewhere."""
_MOST_DIGITS = 15
"""A longer number is read digit by digit."""


def spoken(token: str, known: Known, *, years: Years = "pairs") -> tuple[str, ...]:
    """Spoken words of one that is shown, in lower-case ASCII letters and apostrophes.

    Args:
        token: Without spaces, as it is written, punctuation within.
        known: Dictionary that decides if letters are a word; others without a vowel are spelled out.
        years: Reading of the years from 2010 on.

    Returns:
        One word or several; none where nothing in it can be said in English.
    """
    return tuple(word for piece in _pieces(token, known, years) for word in piece.split())


def _pieces(token: str, known: Known, years: Years) -> Iterator[str]:
    plain = unicodedata.normalize("NFKD", re.sub("[‘’ʼ`´]", "'", token)).lower()
    text = "".join(each for each in plain if not unicodedata.combining(each))
    after_number = False
    for found in _PIECE.finditer(text):
        if found["time"]:
            yield _time(found["time"])
        elif found["money"]:
            yield _amount(found["amount"], found["size"], *_MONEY[found["money"]])
        elif found["ordinal"]:
            yield _number(found["ordinal"], "ordinal")
        elif found["decade"]:
            yield re.sub("y$", "ies", re.sub("([^y])$", r"\1s", _number(found["decade"], "year")))
        elif found["number"]:
            in_full = years == "thousands" and re.fullmatch(r"20[1-9]\d", found["number"])
            yield _number(found["number"], "cardinal" if in_full else "year")
        elif found["initials"]:
            yield " ".join(found["initials"].replace(".", ""))
        elif found["sign"]:
            yield _SIGNS[found["sign"]]
        else:
            yield _letters(found["word"], known, after_number=after_number)
        after_number = found["word"] is None


def _letters(word: str, known: Known, *, after_number: bool) -> str:
    """A word of letters: as it is, in full, or spelled out."""
    bare = word.strip("'")
    if bare in _SHORT and (after_number or bare not in _ONLY_AFTER_NUMBERS):
        return _SHORT[bare]
    if known(word):
        return word
    if known(bare) or re.search("[aeiouy]", bare):
        return bare
    is_noise = re.search(r"(.)\1|^[hm]+$|^sh|^ps", bare)  # such as "shh"
    return bare if is_noise or len(bare) > 5 else " ".join(bare.replace("'", ""))


def _time(text: str) -> str:
    hour, minute = text.split(":")
    minutes = "o'clock" if minute == "00" else _number(minute.lstrip("0"))
    return f"{_number(str(int(hour)))} {'oh ' if '00' < minute < '10' else ''}{minutes}"


def _amount(amount: str, size: str | None, unit: str, small: str) -> str:
    whole, _, part = amount.partition(".")
    if size or (part and len(part) != 2):
        return f"{_number(amount)} {_SIZES[size] if size else ''} {unit}s"
    said = f"{_number(whole or '0')} {unit}{'' if whole == '1' else 's'}"
    if part and int(part):
        coins = "pence" if small == "penny" else f"{small}{'' if part == '01' else 's'}"
        said += f" and {_number(str(int(part)))} {coins}"
    return said


def _number(digits: str, kind: str = "cardinal") -> str:
    """A number in words; ``year`` reads four digits between 1100 and 2099 in pairs."""
    from num2words import num2words

    plain = digits.replace(",", "")
    if plain.startswith("."):
        plain = f"0{plain}"
    if len(plain) > _MOST_DIGITS or re.match(r"0\d", plain):
        return " ".join(_number(each) for each in plain if each != ".")
    if kind == "year" and not re.fullmatch(r"(1[1-9]|20)\d\d", digits):
        kind = "cardinal"
    said = num2words(plain if "." in plain else int(plain), to=kind, lang="en")
    return " ".join(word for word in re.sub("[-,]", " ", said).split() if word != "and")


# Letters to sounds

_SOUNDS: Final = (
    ("^kn|^gn", "N"), ("^wr", "R"), ("^ps", "S"), ("^x", "Z"), ("^y", "Y"), ("mb$", "M"),
    ("[ts]ion", "SH AH N"), ("[ct]ial", "SH AH L"), ("[ct]ious", "SH AH S"), ("ture", "CH ER"),
    ("ough|augh", "AO"), ("eigh", "EY"), ("igh", "AY"), ("tch", "CH"), ("sch", "SH"), ("dge", "JH"),
    ("ch", "CH"), ("sh", "SH"), ("ph", "F"), ("th", "TH"), ("wh", "W"), ("ck|cc|kk", "K"), ("qu", "K W"),
    ("gh", "G"), ("ng(?![eiaouy])", "NG"), ("nk", "NG K"), ("c(?=[eiy])", "S"), ("g(?=[ey])", "JH"),
    ("a(?=[^aeiouwxy]e$|[^aeiouwxy]es$)", "EY"), ("i(?=[^aeiouwxy]e$|[^aeiouwxy]es$)", "AY"),
    ("o(?=[^aeiouwxy]e$|[^aeiouwxy]es$)", "OW"), ("u(?=[^aeiouwxy]e$|[^aeiouwxy]es$)", "UW"),
    ("ee|ea|ie|ey", "IY"), ("ai|ay|ei", "EY"), ("oa|ow|oe", "OW"), ("oo|ew|ue|ui", "UW"), ("ou", "AW"),
    ("oi|oy", "OY"), ("au|aw", "AO"), ("ar", "AA R"), ("er|ir|ur", "ER"), ("or", "AO R"),
    ("(?<=[^aeiou])le$", "AH L"), ("(?<=[^aeiou])y$", "IY"), ("(?<=[aeiouy]..)e$|(?<=[aeiouy].)e$", ""),
    ("(?<=[sxz])es$|(?<=ch)es$|(?<=sh)es$", "AH Z"), ("(?<=[^td])ed$", "D"), ("(?<=[bdgvmnlrwaeiou])s$", "Z"),
    ("o$", "OW"), ("a$", "AH"), ("i$", "IY"), ("a", "AE"), ("e", "EH"), ("i|y", "IH"), ("o", "AA"),
    ("u", "AH"), ("bb?", "B"), ("c", "K"), ("dd?", "D"), ("ff?", "F"), ("gg?", "G"), ("h", "HH"), ("j", "JH"),
    ("k", "K"), ("ll?", "L"), ("mm?", "M"), ("nn?", "N"), ("pp?", "P"), ("q", "K"), ("rr?", "R"),
    ("ss?", "S"), ("tt?", "T"), ("vv?", "V"), ("w", "W"), ("x", "K S"), ("zz?", "Z"),
)  # fmt: skip
"""Letters and the sounds that they stand for, the first that fits; ``^`` and ``$`` are the ends of a word."""
_RULES: Final = tuple((re.compile(letters), sounds) for letters, sounds in _SOUNDS)


def sounds_of(word: str) -> str:
    """Phones of a word by rules of English spelling, as the CMU dictionary names them; at least one.

    Rough: it places words that no dictionary has between their neighbours.

    Args:
        word: Lower-case letters; apostrophes are silent.
    """
    letters, place, sounds = word.replace("'", ""), 0, []
    while place < len(letters):
        matches = ((rule.match(letters, place), said) for rule, said in _RULES)
        found, said = next((found, said) for found, said in matches if found)
        sounds.append(said)
        place = found.end()
    return " ".join(" ".join(sounds).split()) or "AH"
