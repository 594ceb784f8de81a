"""What the pages say can be done: every command line, every link, every file.

Each line of a shell block of README.md and docs/*.md, and each command inside a sentence, is run by the rule of
tests/docs_rules.py for its program; a line without a rule fails. The pages that add a loss and a source are carried
out from their first block to their last in tests/test_docs_walkthroughs.py.
"""

import ast
import csv
import functools
import operator
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.data import SOURCES
from pipeline.diffusion.noise_levels import NOISE_LEVELS
from pipeline.diffusion.prediction import PREDICTIONS
from pipeline.diffusion.schedule import SCHEDULES
from pipeline.diffusion.trajectory import STEPS
from pipeline.diffusion.weighting import WEIGHTINGS
from pipeline.losses import LOSSES
from pipeline.methods import METHODS
from pipeline.sweep.budget import BUDGETS
from pipeline.tasks import TASKS
from pipeline.training.init import INITS
from pipeline.unit import PROJECT
from tests import docs_rules
from tests.docs_pages import PAGES, SHELLS, SPANNED, Block, anchors, apply, blocks, command, commands, links

CARRIED_OUT = ("adding-a-loss.md", "adding-a-data-source.md", "adding-a-process.md")
COMMANDS = {
    (found.env, found.words): found for page in PAGES if page.name not in CARRIED_OUT for found in commands(page)
}
BLOCKS = [(page, block) for page in PAGES for block in blocks(page)]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("docs")


@pytest.mark.slow
@pytest.mark.parametrize("found", COMMANDS.values(), ids=str)
def test_a_command_works_as_the_page_has_it(found, scratch, monkeypatch, capsys):
    docs_rules.run(found, scratch, monkeypatch)


def test_what_no_rule_covers_fails(scratch, monkeypatch):
    for line in (
        "rm -r reports",
        "python3 -m pipeline trian",
        "python -m pipeline.sample",
        "ray start --to-the-end",
    ):
        with pytest.raises(AssertionError):
            docs_rules.run(command(PROJECT / "README.md", line), scratch, monkeypatch)


def test_every_task_has_a_test_that_runs_it():
    assert set(docs_rules.RUN_BY) == set(TASKS)


@pytest.mark.parametrize(("page", "block"), BLOCKS, ids=lambda part: part.name if isinstance(part, Path) else "")
def test_a_block_is_of_a_kind_that_is_tested(page: Path, block: Block):
    kinds = (*SHELLS, "diff", "python", "yaml", "")  # the last: what a command has printed
    assert block.kind in kinds, f"{page.name}: no test reads a block of {block.kind}"
    if block.kind in ("python", "diff"):
        assert block.path is not None, f"{page.name}: a block must say of which file it is:\n{block.text}"
        assert page.name in CARRIED_OUT, f"{page.name} is not carried out by tests/test_docs_walkthroughs.py"
    told = [line for line in block.text.splitlines() if line.startswith(SPANNED)]
    assert block.kind in SHELLS or not told, (
        f"{page.name}: commands stand in a block of {' or '.join(SHELLS)}: {told}"
    )
    if block.kind == "python":
        ast.parse(block.text)
    if block.kind == "yaml" and block.path is None:
        is_part_of(YAML(typ="safe", pure=True).load(block.text), parameters(), page.name)


def is_part_of(given, known, where: str) -> None:
    """Every key of a piece of parameters is one of params.yaml, whatever its value."""
    for key, value in given.items():
        assert key in known, f"{where}.{key} is not in params.yaml"
        if isinstance(value, dict) and isinstance(known[key], dict) and "name" not in value:
            is_part_of(value, known[key], f"{where}.{key}")


def parameters():
    return YAML(typ="safe", pure=True).load(PROJECT / "params.yaml")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_are_there(page: Path):
    for target in links(page):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name}: {target}"
        assert PROJECT in path.parents
        assert not anchor or anchor in anchors(path), f"{page.name}: {target}"


def test_readme_leads_to_every_page():
    linked = {(PROJECT / target).resolve() for target in links(PROJECT / "README.md")}
    assert set(PAGES[1:]) <= linked


def rows_of_tables(page: str) -> list[list[str]]:
    """Cells of all tables of a page, without their backticks."""
    lines = (PROJECT / "docs" / page).read_text().splitlines()
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]


def test_the_page_on_the_grid_says_of_every_method_and_loss_what_the_code_does():
    rows = {row[0]: row[1:] for row in rows_of_tables("grid.md")}
    for name, method in METHODS.items():
        assert rows[name][1:] == [f"{method.attention} attention", f"the {method.teacher} teacher"]
    for name, loss in LOSSES.items():
        assert [bool(cell) for cell in rows[name][1:3]] == [loss.needs_target, loss.needs_teacher], name
        assert bool(rows[name][3]) == (loss().critic_updates > 0), name


def test_the_page_of_names_has_those_of_every_registry():
    rows = {row[1]: re.findall(r"\w+", row[2]) for row in rows_of_tables("mathematics.md")[1:] if row[0] != "---"}
    registries = {
        "denoiser.schedule": SCHEDULES,
        "denoiser.prediction": PREDICTIONS,
        "teacher.causal.loss.weighting": WEIGHTINGS,
        "teacher.causal.method.noise_levels": NOISE_LEVELS,
        "sampler.step": STEPS,
        "init": INITS,
        "sweep.budget": BUDGETS,
        "prepare.source": SOURCES,
    }
    assert rows == {where: list(registry) for where, registry in registries.items()}
    for where in rows:
        functools.reduce(operator.getitem, where.split("."), parameters())


def test_the_page_on_the_grid_has_the_verdicts_that_are_tracked():
    marks, found = {"confirmed": "\N{CHECK MARK}", "refuted": "\N{BALLOT X}", "undecided": "?"}, {}
    with (PROJECT / "reports" / "laboratory" / "claims.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["claim"], {})[row["reading"]] = marks[row["verdict"]]
    told = [row for row in rows_of_tables("grid.md") if " x " in row[0]]
    assert told == [[*claim.split(": "), read["table"], read["text"]] for claim, read in found.items()]


def test_a_hunk_goes_where_its_lines_stand_once(tmp_path):
    path = tmp_path / "table"
    path.write_text("one\ntwo\nthree\n")
    apply(Block("diff", " one\n+and a half\n-two\n three\n", "table"), tmp_path)
    assert path.read_text() == "one\nand a half\nthree\n"
    for hunk in (" four\n+five\n", " e\n+f\n"):
        with pytest.raises(ValueError, match="must have these lines once"):
            apply(Block("diff", hunk, "table"), tmp_path)
