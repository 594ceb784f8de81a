"""What is evaluated elsewhere is sampled alike, and a plain cell stays the unit that it is."""

import copy

import pytest
import torch

from pipeline.diffusion.autoregress import Sampler
from pipeline.evaluation.evaluate import Evaluate
from pipeline.evaluation.sampling import sample
from pipeline.models.backbone import BackboneSpec
from pipeline.models.codec import new_codec, save_codec
from pipeline.models.denoiser import Denoiser, DenoiserSpec, save_denoiser
from pipeline.placed import PlacedEvaluate, placed, remote
from pipeline.training.placed import Placed
from pipeline.unit import digest_of
from tests.cells import make_cell
from tests.every_cell import CHUNK_LEN, lively
from tests.other_device import DEVICE, other_device

QUICK = Evaluate(
    sampler=Sampler(num_steps=2, window=7),
    num_clips=48,
    batch_size=20,
    num_bootstraps=8,
    num_timed=1,
    num_neighbours=3,
)
SAMPLER = Sampler(num_steps=3, chunk_len=CHUNK_LEN, window=2)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, clips_dir, untrained_dir):
    """Without a codec, and a student that is not trained."""
    root = tmp_path_factory.mktemp("placed")
    save_codec(new_codec(None, (1, 16, 16)), root / "codec")
    latents = digest_of(root / "codec" / "codec.json")
    backbone = BackboneSpec(channels=1, frame_size=16, patch=8, width=16, depth=1, num_heads=2)
    torch.manual_seed(0)
    student = Denoiser(DenoiserSpec(backbone))
    for parameter in student.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    save_denoiser(student, root / "student", latents=latents)
    return {"clips": clips_dir, "features": untrained_dir, "codec": root / "codec", "student": root / "student"}


def without_times(metrics):
    return {**metrics, "sampling": metrics["sampling"]["calls_per_frame"]}


@pytest.mark.slow
def test_an_evaluation_elsewhere_measures_what_the_plain_one_does(finish, inputs, tmp_path):
    """All of it with the student and the codec where `place` puts them; bfloat16 moves the numbers, a little."""
    _, plain = finish(QUICK.run(tmp_path / "plain", inputs))
    _, same = finish(PlacedEvaluate(QUICK, "cpu").run(tmp_path / "same", inputs))
    _, half = finish(PlacedEvaluate(QUICK, "cpu", "bfloat16").run(tmp_path / "half", inputs))
    assert without_times(same) == without_times(plain)
    assert half["fvd"]["value"] != plain["fvd"]["value"]
    assert half["fvd"]["value"] == pytest.approx(plain["fvd"]["value"], rel=0.05)


def sampled(student):
    return sample(student, 4, 6, sampler=SAMPLER, rng=torch.Generator().manual_seed(0))


def test_what_is_not_placed_is_the_plain_unit():
    for work in (make_cell(), Evaluate()):
        assert placed(work) is work
    assert placed(Evaluate(), num_workers=2) == Evaluate()


@pytest.mark.parametrize("change", [{"device": "cuda"}, {"precision": "bfloat16"}, {"compile": True}])
def test_what_is_placed_is_another_unit(change):
    assert placed(make_cell(), **change) == Placed(make_cell(), **{"device": "cpu", **change})
    assert placed(Evaluate(), **change) == PlacedEvaluate(Evaluate(), **{"device": "cpu", **change})


@pytest.mark.parametrize("attention", ["causal", "full"])
def test_clips_sampled_elsewhere_are_those_sampled_here(attention):
    student = lively(attention, 0)
    expected, cost = sampled(student)
    with other_device():
        found, same_cost = sampled(remote(copy.deepcopy(student), str(DEVICE), "float32"))
    assert torch.allclose(found, expected, atol=1e-5)
    assert same_cost.calls_per_frame == cost.calls_per_frame


def test_clips_sampled_in_bfloat16_are_near_and_answers_are_float32():
    student = lively("causal", 0)
    expected, _ = sampled(student)
    found, _ = sampled(remote(copy.deepcopy(student), "cpu", "bfloat16"))
    assert found.dtype == torch.float32
    assert 0 < (found - expected).abs().max() < 0.1


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is said without one")
def test_a_device_that_is_not_here_is_refused_before_the_work(tmp_path):
    with pytest.raises(ValueError, match="device must be one that is here, cpu, got cuda"):
        PlacedEvaluate(Evaluate()).run(tmp_path, {})
