"""Frames as they become final: the same as those of `generate`, and while it still runs."""

import time
from dataclasses import replace
from threading import Event

import pytest
import torch

from pipeline.data.store import to_uint8
from pipeline.diffusion.autoregress import Sampler, generate
from pipeline.diffusion.trajectory import DDIM, DDPM, Heun
from pipeline.evaluation.sampling import generate_latents
from pipeline.models.backbone import BackboneSpec
from pipeline.models.codec import new_codec
from pipeline.models.denoiser import Denoiser, DenoiserSpec
from pipeline.sampling_stream import generate_stream, sample_stream
from pipeline.streams import stream

WAIT_S = 120.0
TINY = BackboneSpec(channels=1, frame_size=4, patch=4, width=8, depth=1, num_heads=1)
FEW = Sampler(num_steps=2, window=2)


def new_student(**backbone) -> Denoiser:
    """Whose answers depend on every frame that it sees."""
    torch.manual_seed(0)
    student = Denoiser(DenoiserSpec(replace(TINY, **backbone))).eval().requires_grad_(False)
    for parameter in student.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return student


def noise(num_frames):
    return torch.randn(2, num_frames, 1, 4, 4, generator=stream(0, "noise"))


def streamed(student, num_frames, sampler):
    rng = stream(0, "steps")
    schedule = DenoiserSpec().schedule
    return list(generate_stream(student, noise(num_frames), schedule=schedule, sampler=sampler, rng=rng))


@pytest.mark.parametrize(
    ("sampler", "attention", "lengths"),
    [
        (FEW, "causal", [1] * 6),
        (replace(FEW, step=DDPM(), context_noise=0.2), "causal", [1] * 6),
        (replace(FEW, chunk_len=2, step=Heun()), "causal", [2] * 3),
        (replace(FEW, num_steps=3, lag=1), "causal", [1] * 6),
        (replace(FEW, lag=0), "causal", [6]),
        (replace(FEW, step=DDIM(0.5), first_chunk_len=4, chunk_len=2), "full", [4, 2]),
    ],
)
def test_parts_are_those_of_generate_bit_for_bit_as_the_matrix_ends_them(sampler, attention, lengths):
    student = new_student(attention=attention, chunk_len=sampler.chunk_len)
    parts = streamed(student, 6, sampler)
    rng = stream(0, "steps")
    made = generate(student, noise(6), schedule=student.spec.schedule, sampler=sampler, rng=rng)
    assert [part.shape[1] for part in parts] == lengths
    assert torch.equal(torch.cat(parts, 1), made.x0_hat)


class Held:
    """Makes its first chunk at once; every later call of the denoiser is held up first."""

    def __init__(self, student, hold):
        self.student, self.hold, self.num_calls = student, hold, 0

    def denoise_chunk(self, x_t, t, cache):
        self.num_calls += 1
        if self.num_calls > FEW.num_steps:
            self.hold()
        return self.student.denoise_chunk(x_t, t, cache)

    def extend(self, cache, x, t, *, window):
        return self.student.extend(cache, x, t, window=window)


def held_stream(held, num_frames):
    schedule, rng = DenoiserSpec().schedule, stream(0, "steps")
    return generate_stream(held, noise(num_frames), schedule=schedule, sampler=FEW, rng=rng)


def test_a_frame_comes_before_the_next_one_is_made():
    gate = Event()
    held = Held(new_student(), lambda: gate.wait(WAIT_S))
    parts = held_stream(held, 3)
    first = next(parts)
    assert first.shape[1] == 1
    assert held.num_calls <= FEW.num_steps + 1
    gate.set()
    assert len(list(parts)) == 2


def test_nothing_is_made_after_the_iterator_is_closed():
    held = Held(new_student(), lambda: time.sleep(0.05))
    parts = held_stream(held, 1000)
    next(parts)
    parts.close()  # waits for the thread
    num_calls = held.num_calls
    assert num_calls < 1000 * FEW.num_steps
    assert list(parts) == []
    assert held.num_calls == num_calls


def test_what_the_procedure_refuses_is_raised_where_frames_are_asked_for():
    with pytest.raises(ValueError, match="T=5, chunk_len=2"):
        streamed(new_student(), 5, replace(FEW, chunk_len=2))


def test_an_error_of_the_student_is_raised_where_frames_are_asked_for():
    def fail():
        raise FloatingPointError

    parts = held_stream(Held(new_student(), fail), 3)
    assert next(parts).shape[1] == 1
    with pytest.raises(FloatingPointError):
        next(parts)


@pytest.mark.parametrize("num_classes", [0, 3])
def test_clips_are_those_that_evaluation_makes_in_one_batch(num_classes):
    student, codec = new_student(num_classes=num_classes), new_codec(None, (1, 4, 4)).requires_grad_(False)
    (latents,) = generate_latents(student, 3, 5, sampler=FEW, batch_size=3, seed=7)
    parts = list(sample_stream(student, codec, 3, 5, sampler=FEW, seed=7))
    assert torch.equal(torch.cat(parts, 1), torch.from_numpy(to_uint8(codec.decode(latents))))


def test_a_class_is_told_to_students_that_know_classes_and_refused_by_others():
    codec = new_codec(None, (1, 4, 4)).requires_grad_(False)
    student = new_student(num_classes=3)
    first, second = (
        torch.cat(list(sample_stream(student, codec, 1, 2, sampler=FEW, seed=0, label=label)), 1)
        for label in (0, 1)
    )
    assert not torch.equal(first, second)
    for spec, label in ((3, 3), (3, -1), (0, 0)):
        with pytest.raises(ValueError, match=f"one of the {spec} that the student knows, got {label}"):
            next(sample_stream(new_student(num_classes=spec), codec, 1, 2, sampler=FEW, seed=0, label=label))
