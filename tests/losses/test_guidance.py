"""Classes: a network that is told them, one that is not, and the line through both answers."""

import dataclasses

import pytest
import torch

from pipeline.diffusion.autoregress import Sampler
from pipeline.diffusion.schedule import FlowMatching
from pipeline.evaluation.sampling import sample
from pipeline.interfaces import Rollout
from pipeline.losses.dmd import Dmd
from pipeline.losses.scores import Guided, Scores
from pipeline.models.denoiser import Denoiser, load_denoiser, save_denoiser
from pipeline.models.discriminator import Discriminator
from tests.cells import make_cell

NUM_CLASSES = 3
LABELS = torch.tensor([0, 2, 1, 2])


def build(num_classes=NUM_CLASSES, *, attention="full", seed=0):
    """A network whose answer depends on all that it is told: no weight is left at zero."""
    spec = make_cell(attention=attention).denoiser
    backbone = dataclasses.replace(spec.backbone, num_classes=num_classes)
    torch.manual_seed(seed)
    denoiser = Denoiser(dataclasses.replace(spec, backbone=backbone))
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return denoiser


@pytest.fixture
def asked(rng):
    """Noised frames, their levels, and a clean context."""
    x_t, context = torch.randn(2, 4, 3, 2, 2, 2, generator=rng)
    return x_t, torch.rand(4, 3, generator=rng), context


def test_a_network_without_classes_has_the_weights_that_it_had_and_draws_no_more():
    torch.manual_seed(0)
    plain = Denoiser(make_cell().denoiser)
    after = torch.rand(1)
    spec = make_cell().denoiser
    backbone = dataclasses.replace(spec.backbone, num_classes=NUM_CLASSES)
    torch.manual_seed(0)
    told = Denoiser(dataclasses.replace(spec, backbone=backbone))
    assert not torch.equal(torch.rand(1), after)
    assert set(told.state_dict()) - set(plain.state_dict()) == {"backbone.classes.table.weight"}
    assert all(torch.equal(tensor, told.state_dict()[name]) for name, tensor in plain.state_dict().items())
    with pytest.raises(ValueError, match="num_classes must be above 0 where a network is told classes, got 0"):
        plain.given(LABELS)


def test_each_clip_is_answered_by_its_own_class(asked):
    x_t, t, _ = asked
    network = build()
    together = network.given(LABELS)(x_t, t)
    for clip, label in enumerate(LABELS):
        alone = network.given(label[None])(x_t[[clip]], t[[clip]])
        torch.testing.assert_close(together[[clip]], alone, rtol=1e-4, atol=1e-5)
    assert (together - network.given(LABELS.flip(0))(x_t, t)).abs().max() > 1e-2


def test_no_class_is_the_label_after_the_last_and_what_an_unbound_network_answers(asked):
    x_t, t, context = asked
    for network, ask in (
        (build(), lambda n: n(x_t, t)),
        (build(attention="causal"), lambda n: n.beside(x_t, t, context)),
        (build(attention="causal"), lambda n: n.denoise_chunk(x_t[:, :1], t[:, :1], None)),
    ):
        none = network.given(torch.full((4,), NUM_CLASSES))
        assert torch.equal(ask(none), ask(network))
        assert (ask(network.given(LABELS)) - ask(network)).abs().max() > 1e-2


def test_a_told_network_shares_every_weight_and_leaves_the_other_untold(asked):
    x_t, t, _ = asked
    network = build()
    before, told = network(x_t, t), network.given(LABELS)
    assert [id(p) for p in told.parameters()] == [id(p) for p in network.parameters()]
    assert torch.equal(network(x_t, t), before)
    gradients = torch.autograd.grad(told(x_t, t).square().sum(), list(network.parameters()))
    table = dict(zip([name for name, _ in network.named_parameters()], gradients, strict=True))
    moved = table["backbone.classes.table.weight"].abs().sum(1) > 0
    assert moved.tolist() == [True, True, True, False]


def test_context_that_was_cached_keeps_its_class(asked):
    """Chunk by chunk with caches is one parallel forward, as without classes."""
    x_t, t, _ = asked
    told, cache, made = build(attention="causal").given(LABELS), None, []
    for frame in range(3):
        chunk = slice(frame, frame + 1)
        made.append(told.denoise_chunk(x_t[:, chunk], t[:, chunk], cache))
        cache = told.extend(cache, x_t[:, chunk], t[:, chunk], window=3)
    torch.testing.assert_close(torch.cat(made, 1), told(x_t, t), rtol=1e-4, atol=1e-4)


def test_a_saved_network_keeps_its_classes(asked, tmp_path):
    x_t, t, _ = asked
    network = build()
    save_denoiser(network, tmp_path, latents="0" * 64)
    loaded = load_denoiser(tmp_path, latents="0" * 64)
    assert torch.equal(loaded.given(LABELS)(x_t, t), network.given(LABELS)(x_t, t))


def test_a_discriminator_is_told_the_class_too(asked):
    x_t, t, context = asked
    for attention, ask in (("full", lambda d: d(x_t, t)), ("causal", lambda d: d.beside(x_t, t, context))):
        discriminator = Discriminator(build(attention=attention))
        told, other = discriminator.given(LABELS), discriminator.given(LABELS.flip(0))
        assert (ask(told) - ask(other)).abs().max() > 1e-4
        assert torch.equal(ask(discriminator.given(torch.full((4,), NUM_CLASSES))), ask(discriminator))


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 4.0])
def test_guided_answers_lie_on_the_line_through_both(scale, asked):
    x_t, t, context = asked
    network = build()
    told, untold = network.given(LABELS)(x_t, t), network(x_t, t)
    guided = Guided(network, scale).given(LABELS)
    torch.testing.assert_close(guided(x_t, t), untold + scale * (told - untold), rtol=0, atol=0)
    causal = build(attention="causal")
    told, untold = causal.given(LABELS).beside(x_t, t, context), causal.beside(x_t, t, context)
    beside = Guided(causal, scale).given(LABELS).beside(x_t, t, context)
    torch.testing.assert_close(beside, untold + scale * (told - untold), rtol=0, atol=0)


def test_a_clip_without_class_is_not_guided(asked):
    x_t, t, _ = asked
    network, labels = build(), torch.tensor([0, NUM_CLASSES, 1, NUM_CLASSES])
    found = Guided(network, 4.0).given(labels)(x_t, t)
    assert torch.equal(found[1::2], network(x_t, t)[1::2])
    assert torch.equal(Guided(network, 4.0)(x_t, t), network(x_t, t))


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_dmd_compares_the_fake_score_with_the_guided_score_of_data(guidance, asked):
    x_t, t, x0_hat = asked
    scores = Scores(build())
    with torch.no_grad():
        scores.fake.backbone.head.bias.add_(0.5)

    def judge(network, x, t):
        return network.given(LABELS)(x, t)

    rollout = Rollout(x0_hat, x_t, t, counts=torch.ones_like(t), target=None, denoise=scores.fake, judge=judge)
    loss = Dmd(guidance=guidance, normaliser=False)
    found = loss.gradient(rollout, scores, x_t, t, schedule=FlowMatching())
    told, untold = scores.real.given(LABELS)(x_t, t), scores.real(x_t, t)
    wanted = scores.fake.given(LABELS)(x_t, t) - (untold + guidance * (told - untold))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_guidance_of_1_asks_no_network_twice(asked, monkeypatch):
    x_t, t, x0_hat = asked
    scores, calls = Scores(build()), []

    def judge(network, x, t):
        calls.append(type(network).__name__)
        return network.given(LABELS)(x, t)

    rollout = Rollout(x0_hat, x_t, t, counts=torch.ones_like(t), target=None, denoise=scores.fake, judge=judge)
    for guidance in (1.0, 4.0):
        Dmd(guidance=guidance).gradient(rollout, scores, x_t, t, schedule=FlowMatching())
    assert calls == ["Denoiser", "Denoiser", "Denoiser", "Guided"]
    assert "guided by 4" in Dmd(guidance=4.0).measure
    assert "guided" not in Dmd().measure


@pytest.mark.parametrize("guidance", [-1.0, float("inf"), float("nan")])
def test_guidance_that_is_no_factor_is_refused(guidance):
    with pytest.raises(ValueError, match=r"guidance must be in \[0, inf\), got"):
        Dmd(guidance=guidance)


def test_samples_are_of_every_class_alike(monkeypatch):
    network, seen = build(attention="causal"), []
    given = Denoiser.given

    def spy(self, labels):
        seen.append(labels)
        return given(self, labels)

    monkeypatch.setattr(Denoiser, "given", spy)
    sample(network, 300, 2, sampler=Sampler(num_steps=1), rng=torch.Generator().manual_seed(0))
    (labels,) = seen
    share = torch.bincount(labels, minlength=NUM_CLASSES) / 300
    assert ((share - 1 / NUM_CLASSES).abs() < 0.1).all()  # 3.7 standard deviations
    assert len(share) == NUM_CLASSES
