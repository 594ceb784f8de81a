"""Plain values become dataclasses, or one line says why not."""

import math
from dataclasses import dataclass
from typing import Protocol

import pytest

from pipeline.schema import ConfigError, Schema


class Shape(Protocol): ...


@dataclass(frozen=True)
class Square:
    side: float = 1.0


@dataclass(frozen=True)
class Drawing:
    size: tuple[float, float]
    shape: Shape
    more: dict[str, Shape] | None = None
    squares: tuple[Square, ...] = ()


SCHEMA = Schema({Shape: {"square": Square}})


def test_plain_values_become_what_the_fields_say():
    raw = {"size": [1.0, 2.0], "shape": {"name": "square", "side": 3.0}, "more": {"square": {}}}
    built = SCHEMA.build(Drawing, raw | {"squares": [{"side": 4.0}, {}]}, "drawing")
    assert built == Drawing((1.0, 2.0), Square(3.0), {"square": Square(1.0)}, (Square(4.0), Square(1.0)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"size": [1.0, math.inf]}, r"^drawing.size must be finite, got \[1.0, inf\]$"),
        ({"shape": {"name": "square", "side": math.nan}}, r"^drawing.shape.side must be finite, got nan$"),
        ({"shape": {"name": "square", "side": "x"}}, r"^drawing.shape.side: .*number, got 'x'$"),
        ({"shape": {"name": ["square"]}}, r"^drawing.shape.name must be one of square, got \['square'\]$"),
        ({"shape": {}}, r"^drawing.shape.name must be one of square, got None$"),
        ({"more": {"circle": {}}}, r"^drawing.more.circle.name must be one of square, got 'circle'$"),
        (
            {"more": {"square": {"name": "square"}}},
            r"^drawing.more.square.name is not a parameter; known here: side",
        ),
        ({"squares": {"side": 4.0}}, r"^drawing.squares must be a list, got {'side': 4.0}$"),
        ({"squares": [{}, {"side": "x"}]}, r"^drawing.squares\[1\].side: .*number, got 'x'$"),
        ({"more": {1: {}}}, r"^drawing.more must be a mapping whose keys are words, got 1$"),
        ({"more": {"square": None}}, r"^drawing.more.square must be a mapping of parameters, got None$"),
        ({"colour": 1}, r"^drawing.colour is not a parameter; known here: size, shape, more, squares$"),
    ],
)
def test_what_does_not_fit_is_named(changes, says):
    raw = {"size": [1.0, 2.0], "shape": {"name": "square"}, **changes}
    with pytest.raises(ConfigError, match=says):
        SCHEMA.build(Drawing, raw, "drawing")


def test_what_must_be_given_is_named():
    with pytest.raises(ConfigError, match=r"^drawing.size must be given$"):
        SCHEMA.build(Drawing, {"shape": {"name": "square"}}, "drawing")
