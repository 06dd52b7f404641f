"""Wording of mistakes."""

import pickle
from collections.abc import Callable
from typing import Annotated

import pytest
from pydantic import Field, ValidationError, field_validator

from alignmamba.contracts import Config
from alignmamba.errors import AlignMambaError, ConfigError, first_fault, shown


class Inner(Config):
    """A part."""

    size: Annotated[int, Field(ge=1)] = 1
    names: tuple[str, ...] = ()


class Outer(Config):
    """A whole."""

    inner: Inner
    word: str = ""

    @field_validator("word")
    @classmethod
    def _known(cls, word: str) -> str:
        if word == "no":
            raise ValueError("word: expected\nanother")
        return word


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"inner": {"size": 0}}, "all.inner.size: Input should be greater than or equal to 1, found 0"),
        ({}, "all.inner: expected, found nothing"),
        ({"inner": {}, "word": "no"}, "all.word: word: expected another"),
        (
            {"inner": {"size": [1]}, "w" * 100: 1},
            "all.inner.size: Input should be a valid integer, found a list (and 1 more)",
        ),
        (
            {"inner": {}, "w" * 100: "v" * 100},
            f"all.{'w' * 40}: unknown key",
        ),
    ],
)
def test_the_first_mistake_in_one_line(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(given)
    assert first_fault(caught.value, "all") == said


def test_values_are_shown_short() -> None:
    deep: list[object] = []
    for _ in range(20_000):
        deep = [deep]
    assert [shown(value) for value in (deep, {"a": deep}, "a", 3, None, 1 << 50_000)] == [
        *("a list", "a mapping", "'a'", "3", "None", "a number of more than 256 bits"),
    ]
    assert len(shown("a" * 1000)) == 80


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Outer(inner={"size": 0}), "inner.size: found 0 (int), expected greater than or equal to 1"),
        (lambda: Outer(inner=Inner(), wrd="a"), "wrd: unknown key, perhaps you meant 'word'"),
        (lambda: Outer(inner=Inner(), size=2), "size: unknown key, perhaps you meant 'inner.size'"),
        (lambda: Outer(), "inner: missing"),
        (lambda: Outer(inner=Inner(), word="no"), "word: word: expected another"),
        (lambda: Outer(inner={"size": "x"}, word=3),
         "inner.size: found 'x' (str), expected a valid integer, unable to parse string as an integer; "
         "word: found 3 (int), expected a valid string"),
        (lambda: Outer(Inner()), "Outer: takes its fields by name, for example Outer(inner=...)"),
    ],
)  # fmt: skip
def test_a_constructor_names_every_mistake_in_one_line(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value) == said
    assert isinstance(caught.value, AlignMambaError)
    assert isinstance(caught.value, ValueError)


def test_only_the_constructor_speaks_for_itself() -> None:
    """Inside another model, from JSON and from a pickle the fields are checked and placed as pydantic does
    it.
    """
    whole = Outer(inner=Inner(size=3, names=("a",)))
    assert Outer.model_validate_json(whole.model_dump_json(), strict=True) == whole
    assert pickle.loads(pickle.dumps(whole)) == whole
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({"inner": {"size": 0}})
    assert caught.value.errors()[0]["loc"] == ("inner", "size")
