"""What the page of the laboratory calls objectives, cells and divergences."""

from typing import Any

from pipeline.reporting.laboratory.results import Laboratory
from pipeline.reporting.read import TIMES

NO_OPTIMUM = "none of those predicted"
DIVERGENCES = {
    "forward_kl": "forward KL",
    "softened_reverse_kl": "softened reverse KL",
    "reverse_kl": "reverse KL",
    "jensen_shannon": "Jensen\u2013Shannon",
    "fisher": "Fisher divergence",
    "wasserstein": "Wasserstein-2",
    "dmd_normalised": "normalised DMD field",
    "none": "no divergence",
    "add": "ADD's objective",
    "pagoda": "PaGoDA's objective",
    "kd": "distance to the ends of the flow",
    "consistency_training": "fixed point of consistency training",
    "consistency_distillation": "fixed point of consistency distillation",
    "mean_flow": "fixed point of mean flow, the moments of data",
}
SHORT_DIVERGENCES = {
    "kd": "ends of the flow",
    "consistency_training": "consistency training",
    "consistency_distillation": "consistency distillation",
    "mean_flow": "mean flow",
}
AVERAGES = {  # by the end of a name, the longest first
    "_averaged_independent": ", frames noised apart",
    "_averaged_x0": " (x0 weights)",
    "_averaged": "",
}
FRAMES = {
    "teacher_forcing_": ", frame by frame",
    "diffusion_forcing_": ", of restored clips",
    "self_forcing_detached_": ", context detached",
    "self_forcing_": ", of own frames",
}
SHORT_AVERAGES = {"_averaged_independent": " apart", "_averaged_x0": " (x0)"}
SHORT_FRAMES = {
    ", frame by frame": ", by frame",
    ", of restored clips": ", restored",
    ", context detached": ", detached",
    ", of own frames": ", own frames",
}
FORCINGS = {  # of L2: which noise its frames have
    "bidirectional": "of the clip",
    "teacher_forcing": "of each frame after true ones",
    "diffusion_forcing": "of each frame beside noisy ones",
    "diffusion_forcing_causal": "of each frame after noisy ones",
}
WEIGHTED = {  # of L2: what its weights make of it, and after its forcing
    "elbo": ("forward KL", ""),
    "eps": ("L2 error", " (\u03b5 weights)"),  # no average of KLs: they are not monotone
    "flow": ("noise-averaged forward KL", " (flow weights)"),
}
PARTS = {
    "l2": "L2",
    "dmd": "DMD",
    "gan": "GAN",
    "sid": "SiD",
    "kd": "KD",
    "add": "ADD",
    "pagoda": "PaGoDA",
    "kl": "KL",
    "elbo": "ELBO",
    "eps": "\u03b5",
    "f": "f-distill",
    "jensen": "JS",
    "shannon": "",
    "non": "non-saturating",
    "saturating": "saturating",
}
INITIALS = {  # on figures
    "bidirectional": "B",
    "teacher_forcing": "TF",
    "diffusion_forcing": "DF",
    "self_forcing": "SF",
}
SHORT_FORCINGS = {**INITIALS, "diffusion_forcing_causal": "DF", "diffusion_forcing": "DF, full attention"}
CLEAN_LEVEL = 1e-3  # levels up to here are as good as none


def objective(name: str, *, short: bool = False) -> str:
    """An objective of predicted.csv, in words. Noise-averaged, or short noised: a mean over levels of noise."""
    if name.startswith("l2_"):
        weighting, _, forcing = name.removeprefix("l2_").partition("_")
        if short:
            return f"L2 {PARTS.get(weighting, weighting)}, {SHORT_FORCINGS.get(forcing, forcing)}"
        weighted, weights = WEIGHTED[weighting]
        return f"{weighted} {FORCINGS.get(forcing, forcing)}{weights}"
    if name.startswith("sid_"):
        return f"SiD field, \u03b1 = {name.removeprefix('sid_')}"
    ending = next((text for prefix, text in FRAMES.items() if name.startswith(prefix)), "")
    for prefix in FRAMES:
        name = name.removeprefix(prefix)
    suffix = next((end for end in AVERAGES if name.endswith(end)), "")
    base = name.removesuffix(suffix)
    said = DIVERGENCES.get(base, _spaced(base))
    if base.startswith("entropy_"):
        weight = float(base.removeprefix("entropy_"))
        sign = "+" if weight > 0 else "\u2212"
        said = f"reverse KL {sign} {abs(weight):g} H"
    if short:
        noised = ", noised" if suffix else ""
        said = SHORT_DIVERGENCES.get(base, said)
        return f"{said}{noised}{SHORT_AVERAGES.get(suffix, '')}{SHORT_FRAMES.get(ending, '')}"
    return f"{'noise-averaged ' if suffix else ''}{said}{AVERAGES.get(suffix, '')}{ending}"


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def loss(name: str) -> str:
    """A loss of the grid."""
    return PARTS.get(name, "f-distill" if name == "f_distill" else _spaced(name))


def cell(name: str, *, short: bool = False) -> str:
    """A cell by its name in the parameters, like self_forcing_full-dmd_clean. short: for figures."""
    method, _, rest = name.partition("-")
    known = next((key for key in sorted(INITIALS, key=len, reverse=True) if method.startswith(key)), "")
    variant = method.removeprefix(known).strip("_").replace("_", " ")
    forcing = INITIALS[known] if short and known else known.replace("_", " ")
    parts = rest.replace("non_saturating", "non").split("_")
    words = " ".join(filter(None, (PARTS.get(part, part) for part in parts)))
    return f"{' '.join(filter(None, (forcing, variant)))} {TIMES} {words}"


def settings(found: Laboratory, name: str) -> str:
    """What sets a cell apart from others of its method and loss, read from the parameters."""
    method, chosen = (found.params["cells"][name][axis] for axis in ("method", "loss"))
    said: list[str] = []
    match found.place(name).loss:
        case "l2":
            said.append(_weighting(chosen["weighting"]))
        case "dmd":
            said += [f"{chosen['space']} space", *_levels(chosen)]
        case "gan":
            said += [chosen["objective"].replace("_", "-"), *_levels(chosen)]
        case "sid":
            said.append(f"\u03b1 = {chosen['alpha']:g}")
        case "f_distill":
            said += [objective(chosen["f_divergence"]), *_levels(chosen)]
        case "add" | "pagoda":
            said.append(
                f"adversary {chosen['gan']['objective'].replace('_', '-')}, weight {chosen['gan_weight']:g}"
            )
        case _:
            pass  # those have nothing that differs between cells here
    if found.place(name).method == "self_forcing":
        said.append("context detached" if method["detach_context"] else "gradient through the context")
    if found.place(name).method == "diffusion_forcing" and method["noise_levels"].get("clean_probability"):
        said.append(f"{method['noise_levels']['clean_probability']:.0%} of contexts clean")
    if (factor := found.params["cells"][name]["update_factor"]) > 1:
        said.append(f"{factor} times the updates")
    return ", ".join(said)


def _weighting(weighting: dict[str, Any]) -> str:
    if "prediction" in weighting:
        return f"{weighting['prediction'].replace('_', ' ')} weights"
    return f"{weighting['type'].rpartition('.')[2].upper()} weights"


def _levels(chosen: dict[str, Any]) -> list[str]:
    return ["clean frames" if chosen["level_max"] <= CLEAN_LEVEL else "noised frames"]


def share(value: float) -> str:
    """For people."""
    return f"{100 * value:.3g} %"
