"""Which networks the gradients of a loss reach."""

import torch

from pipeline.diffusion.schedule import FlowMatching
from pipeline.interfaces import Rollout
from pipeline.models.backbone import BackboneSpec
from pipeline.models.denoiser import Denoiser, DenoiserSpec
from pipeline.models.discriminator import Discriminator


def tiny(seed=0):
    """A denoiser for clips (B, 3, 1, 4, 4), no weight of which is 0."""
    spec = BackboneSpec(channels=1, frame_size=4, patch=4, width=16, depth=1, num_heads=2)
    denoiser, rng = Denoiser(DenoiserSpec(spec)), torch.Generator().manual_seed(seed)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=rng)
    return denoiser


def reached(loss):
    """Names of the networks with a gradient after `student_loss`, then after `critic_loss`; the rest have None."""
    rng = torch.Generator().manual_seed(0)
    student, critics = tiny(1), loss.critics(tiny())
    with torch.no_grad():  # a fake score that is the teacher leaves nothing to descend
        for parameter in critics.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=rng))
    clips, x_t = torch.randn(2, 4, 3, 1, 4, 4, generator=rng)
    t = torch.full((4, 3), 0.7)
    networks = {"student": student} | {
        name: part for name, part in critics.named_modules() if isinstance(part, Denoiser | Discriminator)
    }
    found = []
    for part in (loss.student_loss, loss.critic_loss):
        rollout = Rollout(student(x_t, t), x_t, t, counts=t, target=None, denoise=student)
        part(rollout, clips, critics, schedule=FlowMatching(), rng=rng).backward()
        gradients = {
            name: [p.grad for p in network.parameters() if p.grad is not None] for name, network in networks.items()
        }
        assert all(sum(g.abs().sum() for g in held) > 0 for held in gradients.values() if held)
        found.append({name for name, held in gradients.items() if held})
        for network in networks.values():
            network.zero_grad(set_to_none=True)
    return tuple(found)
