"""Methods: what a rollout holds."""

import dataclasses

import pytest
import torch

from pipeline.diffusion.autoregress import Sampler
from pipeline.diffusion.noise_levels import NOISE_LEVELS, Independent, PathUniform, Shared, TeacherForcing
from pipeline.diffusion.schedule import FlowMatching, add_noise
from pipeline.methods.diffusion_forcing import DiffusionForcing
from pipeline.methods.self_forcing import SelfForcing
from pipeline.models.backbone import BackboneSpec
from pipeline.models.denoiser import Denoiser, DenoiserSpec


@pytest.fixture
def student():
    torch.manual_seed(0)
    spec = BackboneSpec(channels=1, frame_size=4, patch=4, width=16, depth=2, num_heads=2)
    denoiser = Denoiser(DenoiserSpec(spec))
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return denoiser


def test_diffusion_forcing_denoises_its_own_noisy_frames(student, rng):
    clips = torch.randn(64, 4, 1, 4, 4, generator=rng)
    method = DiffusionForcing(noise_levels=Independent(clean_probability=0.5))
    made = method.rollout(student, clips, schedule=FlowMatching(), rng=rng)
    assert made.target is clips
    assert torch.equal(made.x0_hat, student(made.x_t, made.t))
    clean = made.t == 0
    assert torch.equal(made.x_t[clean], clips[clean])
    assert torch.equal(made.counts, (~clean).float())
    implied = (made.x_t - add_noise(FlowMatching(), clips, torch.zeros_like(clips), made.t))[~clean]
    noise = implied / made.t[~clean][:, None, None, None]
    assert abs(noise.std() - 1) < 0.05


@pytest.mark.parametrize("name", NOISE_LEVELS)
def test_diffusion_forcing_takes_levels_and_counts_from_its_law(student, name):
    law = PathUniform(6) if name == "path_uniform" else NOISE_LEVELS[name]()
    clips = torch.randn(32, 4, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    method = DiffusionForcing(chunk_len=2, noise_levels=law)
    made = method.rollout(student, clips, schedule=FlowMatching(), rng=torch.Generator().manual_seed(2))
    t, counts = law.draw(32, 4, chunk_len=2, rng=torch.Generator().manual_seed(2))
    assert torch.equal(made.t, t)
    assert torch.equal(made.counts, counts)


class Squared(FlowMatching):
    """Trains at low noise more than at high."""

    def draw(self, u):
        return u.square()


def test_diffusion_forcing_lets_the_schedule_choose_on_the_continuum_alone(student):
    clips = torch.randn(8, 4, 1, 4, 4, generator=torch.Generator().manual_seed(1))

    def levels(law, schedule):
        rng = torch.Generator().manual_seed(2)
        return DiffusionForcing(noise_levels=law).rollout(student, clips, schedule=schedule, rng=rng).t

    for law in (Independent(clean_probability=0.5), TeacherForcing()):
        assert torch.equal(levels(law, Squared()), levels(law, FlowMatching()).square())
    assert torch.equal(
        levels(Independent(num_levels=4), Squared()), levels(Independent(num_levels=4), FlowMatching())
    )


def test_diffusion_forcing_of_a_student_shows_only_the_levels_that_it_samples_with(student, rng):
    clips = torch.randn(64, 4, 1, 4, 4, generator=rng)
    law, sampler = Independent(clean_probability=0.5), Sampler(num_steps=4)
    made = DiffusionForcing(noise_levels=law, sampler=sampler).rollout(
        student, clips, schedule=FlowMatching(), rng=rng
    )
    assert set(made.t.unique().tolist()) == {0.0, *torch.tensor(sampler.levels(FlowMatching())).tolist()}
    assert torch.equal(made.counts, (made.t > 0).float())


@pytest.mark.parametrize("exit_step", ["per_clip", "per_chunk"])
def test_self_forcing_leaves_at_one_step_a_clip_or_one_a_chunk(student, exit_step, rng):
    clips = torch.randn(64, 4, 1, 4, 4, generator=rng)
    made = SelfForcing(Sampler(), exit_step).rollout(student, clips, schedule=FlowMatching(), rng=rng)
    assert made.target is None
    assert (made.counts == 1).all()
    levels_a_clip = [len(row.unique()) for row in made.t]
    assert max(levels_a_clip) == 1 if exit_step == "per_clip" else max(levels_a_clip) > 1
    assert set(made.t.unique().tolist()) == {0.25, 0.5, 0.75, 1.0}


def test_self_forcing_denoises_again_in_the_same_context(student, rng):
    clips = torch.randn(8, 4, 1, 4, 4, generator=rng)
    made = SelfForcing().rollout(student, clips, schedule=FlowMatching(), rng=rng)
    assert torch.allclose(made.denoise(made.x_t, made.t), made.x0_hat, atol=1e-6)


def test_self_forcing_asks_a_causal_network_beside_the_frames_that_the_student_made(student, rng):
    clips = torch.randn(8, 4, 1, 4, 4, generator=rng)
    made = SelfForcing().rollout(student, clips, schedule=FlowMatching(), rng=rng)
    assert torch.allclose(made.in_context(student, made.x_t, made.t), made.x0_hat, atol=1e-5)
    other = torch.randn(clips.shape, generator=rng)
    assert torch.equal(made.in_context(student, other, made.t), student.beside(other, made.t, made.x0_hat))
    (slope,) = torch.autograd.grad(made.in_context(student, other, made.t).sum(), made.x0_hat, allow_unused=True)
    assert slope is None


def test_self_forcing_asks_a_network_of_full_attention_about_the_whole_noised_clip(student, rng):
    clips = torch.randn(8, 4, 1, 4, 4, generator=rng)
    made = SelfForcing().rollout(student, clips, schedule=FlowMatching(), rng=rng)
    spec = dataclasses.replace(student.spec, backbone=dataclasses.replace(student.spec.backbone, attention="full"))
    whole = Denoiser(spec)
    whole.load_state_dict(student.state_dict())
    assert torch.equal(made.in_context(whole, made.x_t, made.t), whole(made.x_t, made.t))


def test_self_forcing_takes_nothing_but_the_shape_of_the_clips(student):
    clips = torch.randn(2, 4, 4, 1, 4, 4)
    rolls = [
        SelfForcing().rollout(student, c, schedule=FlowMatching(), rng=torch.Generator().manual_seed(5))
        for c in clips
    ]
    assert torch.equal(rolls[0].x0_hat, rolls[1].x0_hat)


def test_self_forcing_gradient_reaches_every_block_and_no_context(student, rng):
    clips = torch.randn(8, 4, 1, 4, 4, generator=rng)
    made = SelfForcing().rollout(student, clips, schedule=FlowMatching(), rng=rng)
    made.x0_hat[:, 0].sum().backward(retain_graph=True)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in student.backbone.blocks[1].parameters())
    before = {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}
    # frame 3 uses frames 0..2 as context: its gradient must be that of its own call alone
    student.zero_grad()
    made.x0_hat[:, 3].sum().backward()
    own = {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}
    assert before.keys() == own.keys()
    caches_hold_no_graph = made.denoise(made.x_t.detach(), made.t)[:, 3].sum()
    student.zero_grad()
    caches_hold_no_graph.backward()
    for name, parameter in student.named_parameters():
        assert torch.allclose(parameter.grad, own[name], atol=1e-5), name


def test_methods_refuse_impossible_parameters():
    with pytest.raises(ValueError, match="exit_step must be one of per_clip, per_chunk, got 'last'"):
        SelfForcing(exit_step="last")
    with pytest.raises(ValueError, match="chunk_len must be at least 1, got 0"):
        DiffusionForcing(chunk_len=0)


@pytest.mark.parametrize("law", [Shared(), Independent(num_levels=4)])
def test_a_law_that_a_sampler_would_overrule_is_refused(law):
    with pytest.raises(
        ValueError, match="noise_levels must be independent, without num_levels, where a sampler lis"
    ):
        DiffusionForcing(noise_levels=law, sampler=Sampler())
