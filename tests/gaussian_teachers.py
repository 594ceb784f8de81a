"""Exact denoisers of Gaussian clips of scalar frames: of whole clips, and of each frame after clean ones."""

import torch

from pipeline.diffusion.schedule import FlowMatching

SCHEDULE = FlowMatching()


class WholeClips:
    """E[x_0 | x_t] of frames of covariance `cov`, together, as full attention sees them."""

    def __init__(self, cov):
        self.cov = cov

    def denoise_chunk(self, x_t, t, cache):
        assert cache is None
        alpha, sigma = (c[..., 0, 0, 0].double() for c in SCHEDULE.at(t))
        noisy = alpha[:, :, None] * self.cov * alpha[:, None, :] + torch.diag_embed(sigma**2)
        weights = torch.linalg.solve(noisy, alpha[:, :, None] * self.cov)
        x0_hat = (weights.mT @ x_t[:, :, 0, 0].double()).to(x_t)
        return x0_hat[:, :, None, None]

    def extend(self, cache, x, t, *, window):
        raise AssertionError("nothing follows a whole clip")


class AfterClean:
    """E[x_f | x_f,t, x_<f] of frames of covariance `cov`, one after another, as a causal teacher sees them."""

    def __init__(self, cov):
        self.cov = cov

    def denoise_chunk(self, x_t, t, cache):
        num_seen = 0 if cache is None else cache.shape[1]
        past, cross = self.cov[:num_seen, :num_seen], self.cov[:num_seen, num_seen]
        weights = torch.linalg.solve(past, cross) if num_seen else cross
        mean = (weights.float() * cache[:, :, 0, 0, 0]).sum(1) if num_seen else torch.zeros(len(x_t))
        var = (self.cov[num_seen, num_seen] - weights @ cross).float()
        mean = mean[:, None, None, None, None]
        alpha, sigma = SCHEDULE.at(t)
        return mean + alpha * var / (alpha**2 * var + sigma**2) * (x_t - alpha * mean)

    def extend(self, cache, x, t, *, window):
        assert (t == 0).all()
        return x if cache is None else torch.cat([cache, x], 1)[:, -window:]
