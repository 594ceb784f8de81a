"""A record is read whole, or its damage is named."""

import json
from pathlib import Path

import pytest

from pipeline.records import DamagedRecordError, read_record

RECORD = {
    "stage": "teacher",
    "item": "causal",
    "fingerprint": "7eac4e5",
    "profile": "default",
    "work": {"num_steps": 20},
    "inputs": {},
    "metrics": {},
    "timing": {"seconds": 1.5},
    "has_curve": True,
    "products": {},
}


@pytest.fixture
def record(tmp_path) -> Path:
    (tmp_path / "record.json").write_text(json.dumps(RECORD))
    (tmp_path / "curve.csv").write_text("step,student_loss,critic_loss\n10,0.5,\n20,0.25,1e-3\n")
    return tmp_path / "record.json"


def test_read_record_reads_entries_and_curve(record):
    read = read_record(record)
    assert (read.name, read.fingerprint, read.seconds) == ("teacher@causal", "7eac4e5", 1.5)
    assert read.curve == (
        {"step": 10.0, "student_loss": 0.5},
        {"step": 20.0, "student_loss": 0.25, "critic_loss": 1e-3},
    )


def test_read_record_reads_the_revision_that_made_it(record):
    assert read_record(record).revision is None
    revision = {"commit": "c0ffee", "dirty": True}
    record.write_text(json.dumps({**RECORD, "revision": revision}))
    assert read_record(record).revision == revision
    record.write_text(json.dumps({**RECORD, "revision": {"commit": "c0ffee"}}))
    with pytest.raises(DamagedRecordError, match="lacks 'dirty'"):
        read_record(record)


def test_read_record_names_a_curve_that_is_lost(record):
    record.with_name("curve.csv").unlink()
    with pytest.raises(DamagedRecordError, match=r"curve\.csv cannot be read"):
        read_record(record)


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("record.json", '{"stage": "codec"', "damaged"),
        ("record.json", '{"stage": "codec"}', "lacks 'item'"),
        ("curve.csv", "step,student_loss\n1,0.5\n2", "damaged"),
        ("curve.csv", "step,student_loss\n1,zero\n", "damaged"),
        ("curve.csv", "student_loss\n0.5\n", "no column step"),
    ],
)
def test_read_record_says_what_is_damaged(record, file, text, reason):
    path = record.with_name(file)
    path.write_text(text)
    with pytest.raises(DamagedRecordError, match=reason) as caught:
        read_record(record)
    assert str(path) in str(caught.value)


def test_a_unit_without_a_curve_is_whole(record):
    record.write_text(json.dumps({**RECORD, "has_curve": False}))
    record.with_name("curve.csv").unlink()
    assert read_record(record).curve == ()
