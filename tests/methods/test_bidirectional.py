"""Bidirectional: one level a clip."""

import torch

from pipeline.diffusion.autoregress import Sampler
from pipeline.diffusion.noise_levels import Shared
from pipeline.diffusion.schedule import FlowMatching, add_noise
from pipeline.methods.bidirectional import Bidirectional
from pipeline.methods.diffusion_forcing import DiffusionForcing
from pipeline.models.backbone import BackboneSpec
from pipeline.models.denoiser import Denoiser, DenoiserSpec


def lively():
    torch.manual_seed(0)
    spec = BackboneSpec(channels=1, frame_size=4, patch=4, width=16, depth=2, num_heads=2, attention="full")
    denoiser = Denoiser(DenoiserSpec(spec))
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return denoiser


def roll(method, clips):
    return method.rollout(lively(), clips, schedule=FlowMatching(), rng=torch.Generator().manual_seed(2))


def test_it_is_diffusion_forcing_at_levels_in_lockstep(rng):
    clips = torch.randn(8, 4, 1, 4, 4, generator=rng)
    made, other = (roll(method, clips) for method in (Bidirectional(), DiffusionForcing(noise_levels=Shared())))
    assert made.target is clips
    assert all(torch.equal(getattr(made, n), getattr(other, n)) for n in ("x0_hat", "x_t", "t", "counts"))
    assert torch.equal(made.t, made.t[:, :1].expand(-1, 4))


def test_all_frames_of_a_students_clip_are_at_one_level_of_its_sampler(rng):
    clips = torch.randn(64, 4, 1, 4, 4, generator=rng)
    made = roll(Bidirectional(Sampler(num_steps=4)), clips)
    assert set(made.t.unique().tolist()) == {0.25, 0.5, 0.75, 1.0}
    assert torch.equal(made.t, made.t[:, :1].expand(-1, 4))
    noise = (made.x_t - add_noise(FlowMatching(), clips, torch.zeros_like(clips), made.t)) / made.t[
        ..., *[None] * 3
    ]
    assert abs(noise.std() - 1) < 0.03


def test_every_frame_is_judged_with_all_others(rng):
    clips = torch.randn(2, 4, 1, 4, 4, generator=rng)
    made = roll(Bidirectional(), clips)
    x_t = made.x_t.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(made.judge(lively(), x_t, made.t)[:, 0].sum(), x_t)
    assert (slope.abs().amax(dim=(0, 2, 3, 4)) > 1e-6).all()
