import csv
from dataclasses import replace

import pytest

from pipeline.evaluation.corruption_gate import MIN_RISING_SHARE
from pipeline.evaluation.extractors import InDomainFeatures
from pipeline.evaluation.features import TrainFeatures
from pipeline.models.digit_reader import load_digit_reader
from pipeline.unit import digest_of

QUICK = TrainFeatures(encoder_steps=60, encoder_width=8, reader_steps=25, batch_size=24, num_gate_clips=256)


@pytest.fixture(scope="module")
def trained(finish, tmp_path_factory, clips_dir):
    directory = tmp_path_factory.mktemp("unit")
    return directory, *finish(QUICK.run(directory, {"clips": clips_dir}))


def test_networks_and_their_table_are_written(trained, store):
    directory, reports, metrics = trained
    assert reports[-1].step == reports[-1].num_steps == 85
    features = InDomainFeatures(directory / "out")
    assert metrics["encoder_digest"] == features.digest
    assert metrics["feature_dim"] == features.dim == 64
    assert load_digit_reader(directory / "out").spec.num_channels == 1
    assert metrics["rising_families"] >= MIN_RISING_SHARE * metrics["num_families"] == pytest.approx(0.8 * 12)
    assert metrics["floor"] > 0
    with (directory / "show" / "corruptions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 * 6
    for row in rows:
        if float(row["level"]) == 0:
            assert float(row["frechet_distance"]) == pytest.approx(metrics["floor"], rel=1e-5)
    assert (directory / "show" / "corruptions.png").stat().st_size > 10_000


def test_a_second_run_gives_the_same_bytes(finish, trained, tmp_path, clips_dir):
    directory, _, metrics = trained
    assert finish(QUICK.run(tmp_path, {"clips": clips_dir}))[1] == metrics
    for part in ("out", "show"):
        assert digest_of(tmp_path / part) == digest_of(directory / part)


def test_a_blind_encoder_fails_the_stage_and_leaves_the_table(finish, tmp_path, clips_dir):
    blind = replace(QUICK, encoder_steps=1, reader_steps=1, num_gate_clips=32)
    with pytest.raises(ValueError, match="must rise with the corruption in at least 80%"):
        finish(blind.run(tmp_path, {"clips": clips_dir}))
    assert (tmp_path / "show" / "corruptions.csv").exists()


def test_impossible_parameters_are_refused(finish, tmp_path, clips_dir):
    with pytest.raises(ValueError, match="split must be one of train, metric, got 'test'"):
        TrainFeatures(split="test")
    with pytest.raises(ValueError, match="encoder_steps must be at least 1, got 0"):
        TrainFeatures(encoder_steps=0)
    with pytest.raises(ValueError, match="metric has 16, num_frames=17"):
        finish(TrainFeatures(num_frames=17).run(tmp_path, {"clips": clips_dir}))
