import pytest

from pipeline.rules import above, at_least, one_of, within


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("open_low", [False, True])
@pytest.mark.parametrize("open_high", [False, True])
def test_an_end_is_inside_unless_it_is_open(value, open_low, open_high):
    if (open_low and value == 0) or (open_high and value == 1):
        with pytest.raises(ValueError, match="share must be in"):
            within(0, 1, open_low=open_low, open_high=open_high, share=value)
    else:
        within(0, 1, open_low=open_low, open_high=open_high, share=value)


def test_the_least_is_allowed_and_a_bound_is_not():
    at_least(2, width=2)
    with pytest.raises(ValueError, match=r"^rate must be above 0, got 0\.0$"):
        above(0, rate=0.0)


def test_the_first_wrong_value_is_named_with_its_rule():
    with pytest.raises(ValueError, match=r"^depth must be at least 1, got 0$"):
        at_least(1, width=3, depth=0, heads=-1)
    with pytest.raises(ValueError, match=r"^b must be in \(0, 1\], got 1\.5$"):
        within(0, 1, open_low=True, a=1, b=1.5)
    with pytest.raises(ValueError, match=r"^kind must be one of red, blue, got 'green'$"):
        one_of({"red": 1, "blue": 2}, kind="green")
