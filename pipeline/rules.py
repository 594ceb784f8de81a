"""What a number or a choice that a person sets must keep to; what is refused is named, with its rule and value."""

from collections.abc import Collection

Number = int | float


def at_least(least: Number, /, **values: Number) -> None:
    """Raises ValueError for a value below `least`."""
    for name, value in values.items():
        if not value >= least:  # nan is refused too
            raise ValueError(f"{name} must be at least {least}, got {value}")


def above(bound: Number, /, **values: Number) -> None:
    """Raises ValueError for a value that is not above `bound`."""
    for name, value in values.items():
        if not value > bound:
            raise ValueError(f"{name} must be above {bound}, got {value}")


def within(
    low: Number, high: Number, /, *, open_low: bool = False, open_high: bool = False, **values: Number
) -> None:
    """Raises ValueError for a value outside [low, high]; an open end is itself outside."""
    for name, value in values.items():
        is_end = (open_low and value == low) or (open_high and value == high)
        if is_end or not low <= value <= high:
            interval = f"{'(' if open_low else '['}{low}, {high}{')' if open_high else ']'}"
            raise ValueError(f"{name} must be in {interval}, got {value}")


def one_of(choices: Collection[str], /, **values: str) -> None:
    """Raises ValueError for a value that is none of `choices`, and lists them."""
    for name, value in values.items():
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
