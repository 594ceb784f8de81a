"""The student that has the moments of data: where training starts, and a search for optima too."""

from pipeline.data.processes_mixture import GaussianMixture
from pipeline.models.linear_gaussian import Form


def of_moments(data: GaussianMixture, form: Form, scale: float = 1.0) -> list[float]:
    """Its parameters, by the first two frames of data. scale: of its standard deviations."""
    mean, covariance = data.mean, data.covariance
    chain = {"m1": mean[0].item(), "s1": scale * covariance[0, 0].sqrt().item()}
    if data.num_frames > 1:
        slope = covariance[0, 1] / covariance[0, 0]
        rest = (covariance[1, 1] - slope * covariance[0, 1]).sqrt()
        shift = mean[1] - slope * mean[0]
        chain |= {"c": slope.item(), "m2": shift.item(), "s2": scale * rest.item()}
    return form.values(chain)
