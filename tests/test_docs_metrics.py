"""docs/metrics.md against the tables: every column has an entry, with its title and its better end."""

import csv
import re

import pytest

from pipeline.config import load_params
from pipeline.reporting.columns import COLUMNS
from pipeline.reporting.sweep_rows import MEASURES
from pipeline.unit import PROJECT

LIMITS = " ".join((PROJECT / "docs" / "known-limits.md").read_text().split())
PAGE = (PROJECT / "docs" / "metrics.md").read_text()
ENTRY = re.compile(r"^- \*\*(?P<title>[^*]+)\*\* \((?P<keys>[^)]*)\): (?P<said>.*?)(?=^- \*\*|^#|^$)", re.M | re.S)
ENTRIES = {
    key: (match["title"], " ".join(match["said"].split()))
    for match in ENTRY.finditer(PAGE)
    for key in re.findall(r"`(\w+)`", match["keys"])
}
BETTER = {1: "Higher is better", -1: "Lower is better", 0: "Neither end is better"}
IDENTITY = ("method", "loss", "phase", "seed", "split", "status", "reason")  # of a trial, as its fingerprints are


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_of_the_comparison_has_its_entry(name):
    title, said = ENTRIES[name]
    assert title == COLUMNS[name].title
    assert [words for words in BETTER.values() if words in said] == [BETTER[COLUMNS[name].better]]


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_of_the_sweep_has_the_same_entry(name):
    assert ENTRIES[name][0] == MEASURES[name].title


def test_every_number_of_a_trial_is_explained():
    with (PROJECT / "reports" / "grid" / "trials.csv").open(newline="") as file:
        columns = next(csv.reader(file))
    numbers = [name for name in columns if name not in IDENTITY and not name.endswith("_fingerprint")]
    assert "excess" in numbers
    assert [name for name in numbers if f"`{name}`" not in PAGE] == []


def test_the_numbers_of_clips_are_those_of_the_parameters():
    params = load_params(PROJECT / "params.yaml")
    assert params.grid.num_clips == params.sweep.num_clips
    assert f"{params.evaluate.num_clips:,} for the checkpoints of the chain" in " ".join(PAGE.split())
    assert f"{params.grid.num_clips:,} for `every-cell` and the sweep" in " ".join(PAGE.split())


def test_the_limits_name_how_many_pairs_are_confounded_and_separated():
    with (PROJECT / "reports" / "grid" / "pairs.csv").open(newline="") as file:
        pairs = [row for row in csv.DictReader(file) if row["phase"] == "tuned"]
    confounded = sum(bool(row["confounds"]) for row in pairs)
    assert f"{confounded} of {len(pairs)} pairs are confounded" in LIMITS
    assert "Three seeds separate fewer than half of the pairs" in LIMITS
    assert 2 * sum(row["verdict"] != "not separated" for row in pairs) < len(pairs)
