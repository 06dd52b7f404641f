"""Words as they are spoken, and sounds of words outside the dictionary."""

import pytest

from alignmamba.media.spoken_words import sounds_of, spoken

pytest.importorskip("num2words", reason="numbers in words need the extra media")
WORDS = {"i", "don't", "'em", "dvd", "hello", "cafe", "well", "known", "the", "am", "goin'", "of", "mm"}


@pytest.mark.parametrize(
    ("token", "said"),
    {
        "Hello,": "hello",
        "“DON’T”": "don't",
        "‘em": "'em",
        "'Hello'": "hello",
        "goin'": "goin'",
        "well-known": "well known",
        "Café": "cafe",
        "—": "",
        "日本": "",
        "'": "",
        # abbreviations
        "Dr.": "doctor",
        "MRS": "missus",
        "etc.": "et cetera",
        "U.S.A.": "u s a",
        "R&B": "r and b",
        "DVD": "dvd",
        "XQZ": "x q z",
        "shh": "shh",
        "am": "am",
        "10am": "ten a m",
        "5kg": "five kilograms",
        "mp3": "m p three",
        # numbers
        "0": "zero",
        "42": "forty two",
        "2014": "twenty fourteen",
        "1905": "nineteen oh five",
        "2,014": "two thousand fourteen",
        "1,234,567.": "one million two hundred thirty four thousand five hundred sixty seven",
        "3.14": "three point one four",
        ".5": "zero point five",
        "-5": "minus five",
        "5-6": "five six",
        "007": "zero zero seven",
        "1234567890123456": "one two three four five six seven eight nine zero one two three four five six",
        "21st": "twenty first",
        "1990s": "nineteen nineties",
        "80's": "eighties",
        "5%": "five percent",
        # money and times
        "$1": "one dollar",
        "$1.01": "one dollar and one cent",
        "$3.50,": "three dollars and fifty cents",
        "£0.02": "zero pounds and two pence",
        "$5k": "five thousand dollars",
        "£2.5m": "two point five million pounds",
        "3:05": "three oh five",
        "12:30pm": "twelve thirty p m",
        "3:00": "three o'clock",
        "#1": "number one",
        "10°": "ten degrees",
    }.items(),
)
def test_a_token_is_spelled_as_it_is_said(token: str, said: str) -> None:
    assert spoken(token, WORDS.__contains__) == tuple(said.split())


@pytest.mark.parametrize(
    ("token", "said"),
    {
        "2026": "two thousand twenty six",
        "2010.": "two thousand ten",
        "2005": "two thousand five",
        "1926": "nineteen twenty six",
        "2026s": "two thousand twenty six s",
    }.items(),
)
def test_years_have_a_second_reading(token: str, said: str) -> None:
    assert spoken(token, WORDS.__contains__, years="thousands") == tuple(said.split())


@pytest.mark.parametrize(
    ("word", "sounds"),
    {
        "knight": "N AY T",
        "bake": "B EY K",
        "boxes": "B AA K S AH Z",
        "photon": "F AA T AA N",
        "zorblax": "Z AO R B L AE K S",
        "quickly": "K W IH K L IY",
        "nation": "N AE SH AH N",
        "cent": "S EH N T",
        "gnome": "N OW M",
        "qwrtz": "K W R T Z",
        "'": "AH",
        "e": "EH",
    }.items(),
)
def test_letters_have_sounds(word: str, sounds: str) -> None:
    assert sounds_of(word) == sounds


def test_every_word_of_letters_has_sounds_that_the_model_knows() -> None:
    pocketsphinx = pytest.importorskip("pocketsphinx", reason="phones of its model")
    decoder = pocketsphinx.Decoder(lm=None, loglevel="FATAL")
    letters = "abcdefghijklmnopqrstuvwxyz"
    for word in (first + second + third for first in letters for second in letters for third in "aeiouysxz"):
        decoder.add_word(f"x'{word}'x", sounds_of(word), False)
        assert decoder.lookup_word(f"x'{word}'x") == sounds_of(word)
