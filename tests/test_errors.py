"""How mistakes are told."""

from typing import Annotated

import pytest
from pydantic import Field, ValidationError, field_validator

from alignmamba.contracts import Config
from alignmamba.errors import first_fault, shown


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
        ({"inner": {"size": [1]}, "w" * 100: 1}, "all.inner.size: Input should be a valid integer, found a list (and 1 more)"),
        ({"inner": {}, "w" * 100: "v" * 100}, f"all.{'w' * 40}: Extra inputs are not permitted, found '{'v' * 79}"),
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
