"""The page of the laboratory, for a reader who has never seen the sources: claims, maps, refutations, every
cell."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from pipeline.records import DamagedRecordError
from pipeline.reporting.columns import NOTHING
from pipeline.reporting.laboratory import answers, method, words
from pipeline.reporting.laboratory.brief import (
    PAGE,
    PREFIX,
    Map,
    answer_list,
    claims_table,
    draw_maps,
    failures,
    labelled,
    listed,
    map_picture,
    narrow,
    pill,
)
from pipeline.reporting.laboratory.evidence import Answered, answered, draw, evidence
from pipeline.reporting.laboratory.figures import draw_best_fits, draw_modes, with_modes
from pipeline.reporting.laboratory.neural import neural_sections
from pipeline.reporting.laboratory.results import (
    COMMAND,
    DIRECTORY,
    LEARNED,
    Judged,
    Laboratory,
    read_laboratory,
)
from pipeline.reporting.laboratory.rollouts import draw_exposure
from pipeline.reporting.laboratory.whole_grid import grid_tables
from pipeline.reporting.markup import STYLE, picture, table, warned
from pipeline.reporting.style import theme
from pipeline.unit import replace_file

TITLE = "Which divergence does each way of training really minimise?"
CAPTIONS = {
    "fits": """Grey: the density of data over the value of a pixel. Lines: of all Gaussians, the best under each
divergence, with its mean and standard deviation: predictions, by quadrature, with no error of sampling. The
forward KL, KL(data &Vert; model), punishes a model that leaves out what data have, so its best fit is broad;
the reverse KL, KL(model &Vert; data), one that makes what data have not, so its best fit is narrow and may sit
on one mode. So a student that can only be a Gaussian shows, by where it ends, which of them its training
minimised.""",
    "modes": """Which share of a student's clips lies in the mode that is rarest in data; the dashed line is the
share that it has among data. To its left, clips of that kind go missing. Means over {seeds}; thick: their 95 %
intervals, most of them narrower than the mark. Hollow: learned critics. Shapes are methods.""",
    "exposure": """Students of an autoregression of variance 1, rolled out far past the length of their training
(dashed line), {num_rollouts:,} clips a seed. Lines: means over {seeds}; bands: their 95 % intervals. Circles:
the closed form. TF teacher forcing, DF diffusion forcing (context noise: contexts are noised, and the student
is told), SF self forcing. Left to itself, what is not seen in training adds up.""",
}


MAP_BESIDE = "The same on the map of optima."


def write_laboratory(reports: Path, *, profile: str) -> Path:
    """Write laboratory.html and its figures from the CSVs in reports/laboratory; equal files give equal bytes.

    Raises:
        DamagedRecordError: a file is missing, damaged, or of another profile; the message names it.
    """
    found = read_laboratory(reports)
    if found.profile != profile:
        path = reports / DIRECTORY / "run.json"
        raise DamagedRecordError(f"{path} must be of profile {profile}, found: {found.profile}")
    figures = reports / "figures"
    figures.mkdir(exist_ok=True)
    for old in figures.glob(f"{PREFIX}*"):
        old.unlink()
    with theme():
        parts = sections(found, reports, figures)
    page = reports / PAGE
    replace_file(page, _page(found, parts))
    return page


def sections(found: Laboratory, reports: Path, figures: Path) -> dict[str, list[str]]:
    """Every section by its title, its figures drawn."""
    first, *rest = [(process, one) for process in found.processes for one in draw_maps(found, figures, process)]
    others = "".join(_picture(one.path, _of_map(found, process, one)) for process, one in rest)
    results = [
        *failures(found),
        answer_list(found),
        method.glossary(),
        _drawn(draw_best_fits(found, _processes_of_one_frame(found), figures / f"{PREFIX}fits.svg"), "fits", found)
        if _processes_of_one_frame(found)
        else "",
    ]
    return {
        "The answer": results,
        "Claim by claim": [claims_table(found)],
        "The map of optima": [
            narrow(map_picture(found, first[1])),
            f'<h3>The same on the other processes</h3><div class="maps">{others}</div>' if rest else "",
        ],
        "Tempting claims, and what students say": [_question(found, one, figures) for one in answered(found)],
        "The whole grid": grid_tables(found),
        "Every cell": cells_tables(found),
        **(
            {"Which modes are kept": [_drawn(draw_modes(found, figures / f"{PREFIX}modes.svg"), "modes", found)]}
            if with_modes(found)
            else {}
        ),
        "Exposure bias": [
            f"<p>{escape(answers.exposure(found))}</p>",
            _drawn(draw_exposure(found, figures / f"{PREFIX}exposure.svg"), "exposure", found),
        ],
        **neural_sections(found, reports / DIRECTORY, figures),
        "How it was measured": [method.measured(found)],
        "What it does not say": [method.limits(found)],
        "Provenance": [method.provenance(found, reports / DIRECTORY)],
    }


def _page(found: Laboratory, parts: Mapping[str, Sequence[str]]) -> str:
    ids = {title: title.lower().replace(",", "").replace(" ", "-") for title in parts}
    links = "".join(f'<a href="#{ids[title]}">{title}</a> ' for title in parts)
    body = "\n".join(
        f'<section id="{ids[title]}"><h2>{title}</h2>\n' + "\n".join(content) + "</section>"
        for title, content in parts.items()
    )
    warning = f'<p class="warning" role="alert">{escape(found.warning)}.</p>' if found.warning else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>forcing-grid: the laboratory</title><style>{STYLE}</style></head>
<body><header>{warning}<p class="faint"><a href="index.html">the report</a> / the laboratory</p><h1>{TITLE}</h1>
<p class="lede">{answers.QUESTION}</p><nav>{links}</nav></header>
<main>{body}</main>{f"<footer>{warning}</footer>" if warning else ""}</body></html>
"""


def _processes_of_one_frame(found: Laboratory) -> list[str]:
    return [process for process in found.processes if "m" in next(iter(found.best(process).values()))]


def _of_map(found: Laboratory, process: str, one: Map) -> str:
    students = f" Students of {one.method.replace('_', ' ')}." if one.method else ""
    return f"{method.process(found, process)}{students}"


def _figure(path: Path, name: str, found: Laboratory) -> str:
    numbers = {"seeds": found.seeds, "num_rollouts": found.params["exposure"]["num_rollouts"]}
    return _picture(path, warned(found.warning, CAPTIONS[name].format(**numbers)))


def _picture(path: Path, caption: str) -> str:
    return picture(path, caption, command=COMMAND)


def _drawn(path: Path, name: str, found: Laboratory) -> str:
    return narrow(_figure(path, name, found))


def _question(found: Laboratory, one: Answered, figures: Path) -> str:
    asked = one.question
    paths = draw(found, one, figures)
    captions = [asked.caption] if len(paths) == 1 else [f"{asked.caption} Means over {found.seeds}.", MAP_BESIDE]
    drawn = [_picture(path, caption) for path, caption in zip(paths, captions, strict=True)]
    shown = narrow(drawn[0]) if len(drawn) == 1 else f'<div class="pair">{"".join(drawn)}</div>'
    of_drawn, *others = evidence(found, one).values()
    rest = [line for said in others for line in said]
    more = f"<details><summary>On other processes</summary><ul>{_items(rest)}</ul></details>" if rest else ""
    return (
        f'<div class="question"><h3>{escape(asked.title)}</h3><p>The claim: {escape(asked.claim)} '
        f"{pill(one.judgement.verdict.value)}</p><p>What is derived:</p><ol>{_items(asked.lines)}</ol>"
        f"<p>What students did:</p><ul>{_items(of_drawn)}</ul>{shown}{more}</div>"
    )


def _items(lines: Sequence[str]) -> str:
    return "".join(f"<li>{line}</li>" for line in lines)


def cells_tables(found: Laboratory) -> list[str]:
    """A table a process: a row a cell and kind of critics."""
    heads = ["cell", "set to", "claimed", "derived", "nearest optimum", "next one apart", "cannot be told from"]
    heads += ["KL(data, model)", "KL(model, data)", "JSD"]
    tables = [f"<p>{warned(found.warning, escape(method.CELLS))}</p>"]
    for process in found.processes:
        rows = [("", _cells_of(found, row, heads)) for row in found.judged if row.process == process]
        tables.append(table(heads, rows, caption=escape(method.process(found, process)), kind="wordy"))
    return tables


def _cells_of(found: Laboratory, row: Judged, heads: Sequence[str]) -> list[str]:
    def named(name: str, after: str = "") -> str:
        return f"{escape(words.objective(name))} {after}" if name else NOTHING

    seeds = [
        one
        for one in found.measured
        if (one.cell, one.process, one.critics) == (row.cell, row.process, row.critics)
    ]
    reached = []
    for name in ("forward_kl", "reverse_kl", "jensen_shannon"):
        values = [value for one in seeds if (value := vars(one)[name]) is not None]
        reached.append(f'<span class="number">{sum(values) / len(values):.3f}</span>' if values else NOTHING)
    apart = "" if row.runner_up_distance is None else f"{row.runner_up_distance:.3f}"
    same = [escape(words.objective(name)) for name in row.inseparable.split(";") if name]
    critics = ", learned critics" if row.critics == LEARNED else ""
    text = f"<br>text: {named(row.text_claimed, pill(row.text_verdict))}" if row.text_claimed else ""
    cells = (
        escape(words.settings(found, row.cell)) or NOTHING,
        named(row.claimed, pill(row.verdict)) + text,
        named(row.derived, pill(row.derived_verdict)),
        named(row.nearest, f"{row.distance:.3f}"),
        named(row.runner_up, apart),
        f"<details><summary>{len(same)}</summary>{listed(same)}</details>" if same else NOTHING,
        *reached,
    )
    return labelled(words.cell(row.cell) + critics, heads, cells)
