"""The picture of what a run weighs says what its records say."""

import json

import pytest
import torch

from pipeline.diffusion.schedule import Cosine, FlowMatching
from pipeline.diffusion.weighting import FusedSnr, PredictionL2, Sigmoid
from pipeline.records import DamagedRecordError
from pipeline.reporting.read import read_study, rebuild
from pipeline.reporting.weighting import LOG_SNR, described, explained, objectives
from pipeline.unit import as_plain


def edit_work(reports, stage, item, **sections):
    path = reports / stage / item / "record.json"
    record = json.loads(path.read_text())
    for section, values in sections.items():
        record["work"][section].update(values)
    path.write_text(json.dumps(record))


def test_checkpoints_that_weigh_alike_share_a_curve_and_gan_has_none(reports):
    names = [[owner.name for owner in owners] for owners in objectives(read_study(reports)).values()]
    assert names == [["teacher@causal", "teacher@bidirectional"], ["distill@dmd", "rollout@dmd"]]


def test_weight_is_that_of_the_record_up_to_a_constant(reports):
    teacher, fake = objectives(read_study(reports))
    w = teacher.weight()
    # of the flow velocity on its own straight path: exp(-log_snr / 2) whatever the shift, arXiv:2303.00848, table 1
    flat = FlowMatching(1.0)
    expected = torch.exp(-LOG_SNR / 2) * teacher.schedule.density(LOG_SNR) / flat.density(LOG_SNR)
    middle = LOG_SNR.abs().argmin()
    torch.testing.assert_close(w, expected / expected[middle])
    seen = ~fake.weight().isnan()
    torch.testing.assert_close(fake.weight()[seen], w[seen])


def test_fake_score_is_asked_between_its_levels_alone(reports):
    _, fake = objectives(read_study(reports))
    schedule = FlowMatching(2.0)
    low, high = schedule.log_snr(torch.tensor([0.98, 0.02])).tolist()
    outside = (low > LOG_SNR) | (high < LOG_SNR)
    assert fake.weight()[outside].isnan().all()
    assert fake.density()[outside].abs().max() == 0
    ratio = fake.density()[~outside] / schedule.density(LOG_SNR)[~outside]
    torch.testing.assert_close(ratio, torch.full_like(ratio, 1 / 0.96))
    assert (fake.density().sum() * (LOG_SNR[1] - LOG_SNR[0])).item() == pytest.approx(1, abs=5e-3)


def test_schedule_and_weighting_of_a_record_are_what_was_written(reports):
    weighting = FusedSnr(limit=4.0, on=Cosine(log_shift=0.5))
    edit_work(reports, "teacher", "causal", loss={"weighting": as_plain(weighting)})
    study = read_study(reports)
    causal, bidirectional, _ = objectives(study)
    assert (causal.weighting, bidirectional.weighting) == (weighting, PredictionL2())
    assert causal.schedule == FlowMatching(2.0)
    assert described(weighting) == "fused_snr (limit 4.0, decay 0.98, prediction v, on cosine (log_shift 0.5))"


def test_a_weight_that_rises_is_said_to(reports):
    edit_work(reports, "teacher", "causal", loss={"weighting": as_plain(FusedSnr())})
    edit_work(reports, "teacher", "bidirectional", loss={"weighting": as_plain(Sigmoid())})
    text = explained(read_study(reports))
    assert text.count("is not monotone: it rises somewhere") == 1
    assert text.index("teacher@causal") < text.index("is not monotone") < text.index("teacher@bidirectional")


def test_a_schedule_that_adapts_is_cut_to_its_bins_and_has_no_density_to_draw(reports):
    edit_work(reports, "teacher", "causal", training={"adaptive": {"low": -6.0, "high": 5.0}})
    study = read_study(reports)
    adaptive = next(iter(objectives(study)))
    assert (adaptive.low, adaptive.high, adaptive.is_adaptive) == (-6.0, 5.0, True)
    assert ", cut off at -6.0 and 5.0; its p was learnt, and is not drawn" in explained(study)


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        ({"type": "pipeline.diffusion.schedule.Unheard"}, "no schedule or weighting: .*Unheard"),
        ({"type": "pipeline.diffusion.schedule.FlowMatching", "slope": 1}, "work.denoiser.schedule: .*slope"),
        ({"type": "pipeline.diffusion.schedule.FlowMatching", "shift": 0.0}, "shift must be above 0, got 0"),
    ],
)
def test_a_schedule_that_the_library_has_not_is_refused(reports, schedule, says):
    edit_work(reports, "teacher", "causal", denoiser={"schedule": schedule})
    record = read_study(reports).checkpoints[0].trained
    with pytest.raises(DamagedRecordError, match=rf"teacher/causal/record\.json is damaged: .*{says}"):
        rebuild(record, "work.denoiser.schedule")
