"""The pages that add a loss and a data source, carried out in copies of the project as they are written.

Every block is applied and every command is run, but for those of ELSEWHERE, which tests/docs_rules.py checks. The
sweep with the new loss has the networks of tests/tiny_run.py, and the records of a run that never was, in the place
of what `repro --profile smoke` makes in three minutes.
"""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from pipeline.unit import PROJECT
from tests import docs_rules
from tests.docs_pages import apply, blocks, commands
from tests.docs_rules import copied, done, through_the_door
from tests.reporting.conftest import write_records
from tests.tiny_run import make_artifacts, raw

pytestmark = pytest.mark.slow
DOCS = PROJECT / "docs"
ELSEWHERE = (
    ("check",),
    ("sweep",),
    ("every-cell",),
    ("repro", "--profile", "smoke"),
)
UNITS = ("pipeline.training.cell", "pipeline.evaluation.evaluate", "pipeline.losses.gan")
SOURCES = f"""import json, os, sys
sys.path.insert(0, os.getcwd())
from pipeline.unit import sources_of
print(json.dumps(sources_of({set(UNITS)!r})))"""
MEASURED = """import json, sys
from pipeline.config import load_params
from pipeline.workspace import make_workspace
run = load_params(make_workspace(sys.argv[1]) / "params.yaml").laboratory
print(json.dumps([key[:3] for key in run.keys_of(0)]))"""  # under a profile; measuring takes half an hour
yaml = YAML(typ="safe", pure=True)


def carried_out(page: Path, project: Path, work: Path, monkeypatch, tmp_path) -> dict[tuple[str, ...], str]:
    """What every command of the page has said, by its words."""
    said = {}
    for found in commands(page):
        match found.words:
            case ("python3", "-m", "pipeline", *task) if tuple(task) in ELSEWHERE:
                docs_rules.run(found, tmp_path, monkeypatch)
                monkeypatch.undo()
            case ("python3", "-m", "pipeline", "laboratory", "--profile", profile):
                said[tuple(found.words)] = done(["-c", MEASURED, profile], project)
            case ("python3", "-m", "pipeline", *task):
                said[tuple(task)] = through_the_door(tuple(task), project, work)
            case ("python", "-m", module, *rest):
                said[module, *rest] = done(["-m", module, *rest], project)
            case (".", ".venv/bin/activate"):
                pass
            case _:
                raise AssertionError(f"no rule says how a test runs {found}")
    return said


def applied(page: Path, project: Path) -> None:
    """All files of the page, clean by the project's own rules."""
    made = [block for block in blocks(page) if block.path]
    for block in made:
        apply(block, project)
    paths = sorted({block.path for block in made if block.path and block.path.endswith(".py")})
    for asked in (["format", "--check"], ["check"]) if paths else ():
        done(["-m", "ruff", *asked, *paths], project)


def test_the_page_that_adds_a_loss(tmp_path, monkeypatch):
    page, project, work = DOCS / "adding-a-loss.md", copied(tmp_path / "project"), tmp_path / "work"
    before = json.loads(done(["-c", SOURCES], project))
    applied(page, project)
    assert json.loads(done(["-c", SOURCES], project)) == before, "other results must not be made anew"

    params, smoke = yaml.load(project / "params.yaml"), yaml.load(project / "profiles" / "smoke.yaml")
    tiny = raw()
    tiny["grid"] |= {name: params["grid"][name] for name in ("methods", "losses")}
    swept = {name: smoke["sweep"][name] for name in ("cells", "seeds")}
    yaml.dump(tiny, project / "params.yaml")
    yaml.dump({"sweep": swept}, project / "profiles" / "smoke.yaml")
    workspace = work / "profiles" / "smoke"
    make_artifacts(workspace / "artifacts")
    write_records(workspace, "smoke")

    said = carried_out(page, project, work, monkeypatch, tmp_path)
    grid = said["pipeline.grid",].splitlines()
    cells = {line.split(" | ")[0][2:]: line for line in grid if " | charbonnier | " in line}
    assert [line.endswith("| yes |") for line in cells.values()] == [True, True, True, False]
    assert cells["self_forcing"].endswith(
        "charbonnier needs a target, and a frame that self_forcing lets run free has none |"
    )
    golden = json.loads((project / "tests" / "golden" / "three_steps.json").read_text())
    assert {name for name in golden if name.endswith("-charbonnier")} == {
        f"{m}-charbonnier" for m in list(cells)[:3]
    }
    assert (
        "7 passed"
        in said["test", "tests/losses/test_charbonnier.py", "tests/methods/test_every_cell.py", "-k", "charbonnier"]
    )

    assert "teacher forcing charbonnier" in said["sweep", "--profile", "smoke"]
    with (workspace / "reports" / "grid" / "trials.csv").open(newline="") as file:
        trials = [row for row in csv.DictReader(file) if row["loss"] == "charbonnier"]
    assert {row["phase"] for row in trials} == {"default", "tuning", "tuned"}
    assert {row["status"] for row in trials} == {"done"}
    assert "charbonnier" in (workspace / "reports" / "figures" / "sweep_matrix.csv").read_text()
    assert 'id="figure-sweep_matrix"' in (workspace / "reports" / "index.html").read_text()


def test_the_page_that_adds_a_source(tmp_path, monkeypatch):
    page, project, work = DOCS / "adding-a-data-source.md", copied(tmp_path / "project"), tmp_path / "work"
    applied(page, project)
    carried_out(page, project, work, monkeypatch, tmp_path)
    workspace = work / "profiles" / "shapes"
    manifest = json.loads((workspace / "artifacts" / "prepare" / "manifest.json").read_text())
    assert manifest["source"]["type"] == "pipeline.data.moving_shapes.MovingShapes"
    assert (workspace / "reports" / "prepare" / "contact_sheet.png").exists()
    record = json.loads((workspace / "reports" / "features" / "record.json").read_text())
    assert record["metrics"]["rising_families"] >= 0.8 * record["metrics"]["num_families"]
    record = json.loads((workspace / "reports" / "evaluate" / "teacher-causal" / "record.json").read_text())
    with np.load(workspace / "reports" / "evaluate" / "teacher-causal" / "samples.npz") as shown:
        assert shown["generated"].shape == shown["real"].shape
    assert record["metrics"]["fvd"]["floor"] < record["metrics"]["fvd"]["value"]


def test_the_page_that_adds_a_process(tmp_path, monkeypatch):
    page, project, work = DOCS / "adding-a-process.md", copied(tmp_path / "project"), tmp_path / "work"
    applied(page, project)
    said = carried_out(page, project, work, monkeypatch, tmp_path)
    (predicted,) = (json.loads(text) for command, text in said.items() if command[0] == "pipeline.laboratory")
    assert predicted["student"] == "frame_by_frame"
    narrow, broad = (predicted["optima"][name]["parameters"]["s2"] for name in ("reverse_kl", "forward_kl"))
    assert narrow < 0.5 * broad
    measured = json.loads(said["python3", "-m", "pipeline", "laboratory", "--profile", "swing"])
    assert [key for key in measured if key[1] == "swing"] == [
        ["bidirectional-l2_elbo", "swing", "exact"],
        ["teacher_forcing-dmd", "swing", "exact"],
        ["teacher_forcing-dmd", "swing", "learned"],
        ["self_forcing-dmd", "swing", "exact"],
        ["self_forcing-gan_saturating", "swing", "exact"],
    ]
