"""Optimal transport of two frames to Gaussians, blurred by entropy: smooth, and off by the square of the blur."""

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.data.processes_mixture import GaussianMixture, gaussian

REACH = 5.0  # standard deviations at which the grid ends
FINENESS = 0.6  # its step in standard deviations of the kernel
FAINT = 1e-100  # shares and kernels below this are cut, so that their products do not underflow
NUM_PLAIN = 10  # iterations before longer steps are safe
OVERRELAXED = 1.6  # exponent of those steps, which converge several times as fast; arXiv:2012.12562
CONVERGED = 1e-11  # mean absolute change of ln v
MAX_ITERATIONS = 20_000


class TransportError(ArithmeticError):
    """Iterations that overflow, or do not end."""


class SinkhornDivergence:
    """S(P) = OT(q, N(0, P)) - OT(q, q) / 2 - OT(N(0, P), N(0, P)) / 2, q the data about their mean.

    OT(q, p) = min over couplings of E|x - y|^2 + blur KL(coupling || q p). S is W2^2 + O(blur^2): arXiv:2006.08172.
    Sums are over a grid of both frames, where the kernel exp(-|x - y|^2 / blur) is that of one frame times that of
    the other.
    """

    def __init__(self, data: GaussianMixture, blur: float) -> None:
        """data: of two frames. blur: squared units of the frames. Raises TransportError."""
        assert data.num_frames == 2
        self.blur = blur
        apart = data.means - data.mean
        centres = torch.cat([apart, torch.zeros(1, 2, dtype=torch.float64)])  # of components, and of students
        stds = torch.cat([data.covariances, data.covariance[None]]).diagonal(dim1=-2, dim2=-1).sqrt()
        ends = zip((centres - REACH * stds).amin(0), (centres + REACH * stds).amax(0), strict=True)
        step = FINENESS * (blur / 2) ** 0.5
        lines = [torch.arange(low.item(), high.item() + step, step, dtype=torch.float64) for low, high in ends]
        self._x = torch.cartesian_prod(*lines).reshape(*map(len, lines), 2)
        kernels = (torch.exp(-((line[:, None] - line).square()) / blur) for line in lines)
        self._first, self._second = (kernel.where(kernel > FAINT, 0) for kernel in kernels)
        self._q = self._shares(GaussianMixture(data.shares, apart, data.factors))
        self._v = self._q  # of the last student: the next is not far from it
        self._to_itself = self._between_data()

    def __call__(self, factor: Float[Tensor, "2 2"]) -> Float[Tensor, ""]:
        """S of P = factor factor^T, with its gradient.

        Raises:
            TransportError: P is so far from the covariance of data that numbers overflow.
        """
        p = self._shares(gaussian(torch.zeros(2, dtype=torch.float64), factor))
        value, slope = self._transport(p.detach())
        to_student = value + (slope * (p - p.detach())).sum()
        return to_student - self._to_itself / 2 - self._between_students(factor) / 2

    def _shares(self, law: GaussianMixture) -> Tensor:
        """Of the points of the grid."""
        log_density = law.log_density(self._x)
        return torch.softmax(log_density.flatten(), 0).reshape(log_density.shape).clamp_min(FAINT)

    def _between_data(self) -> Tensor:
        """OT(q, q): both scalings are one u, which soon settles, however far apart modes lie; arXiv:1810.08278."""
        u = self._q.sqrt()
        for _ in range(MAX_ITERATIONS):
            needed = self._q / (self._blurred(u) * u)
            if self._is_reached(self._q, needed):
                return 2 * self.blur * (self._q * (u / self._q).log()).sum()
            u = u * needed.sqrt()
        raise self._endless()

    def _transport(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """OT(q, p) and its derivative in p, which is blur ln(v / p): the coupling is u exp(-|x - y|^2 / blur) v."""
        u, v = torch.ones_like(p), self._v
        for number in range(MAX_ITERATIONS):
            power = 1.0 if number < NUM_PLAIN else OVERRELAXED
            u = u * (self._q / (self._blurred(v) * u)) ** power
            needed = p / (self._blurred(u) * v)
            if self._is_reached(p, needed):
                break
            v = v * needed**power
        else:
            raise self._endless()
        self._v = v
        of_data, of_student = (self.blur * (scaling / law).log() for scaling, law in ((u, self._q), (v, p)))
        return (self._q * of_data).sum() + (p * of_student).sum(), of_student

    def _is_reached(self, law: Tensor, needed: Tensor) -> bool:
        """Whether a scaling of this law would hardly change."""
        change = (law * needed.log()).abs().sum()
        if not change.isfinite():
            raise TransportError(f"transport overflows at blur={self.blur:.4g}")
        return bool(change < CONVERGED)

    def _endless(self) -> TransportError:
        return TransportError(f"transport does not converge in {MAX_ITERATIONS} iterations at blur={self.blur:.4g}")

    def _blurred(self, values: Tensor) -> Tensor:
        return self._first @ values @ self._second

    def _between_students(self, factor: Tensor) -> Tensor:
        """OT(N(0, P), N(0, P)): along each axis of P the covariance is c, with 2 c^2 + blur c = 2 P^2."""
        variance = torch.linalg.svdvals(factor).square()
        c = (torch.sqrt(self.blur**2 + 16 * variance.square()) - self.blur) / 4
        information = -torch.log(self.blur * c / (2 * variance.square())) / 2  # 1 - c^2 / P^2 = blur c / (2 P^2)
        return (2 * (variance - c) + self.blur * information).sum()
