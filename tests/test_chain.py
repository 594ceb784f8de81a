"""dvc.yaml: what the parameters name is run, in order, and nothing else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.unit import PROJECT

STAND_IN = """import json, sys
from pathlib import Path
name, *items = Path(__file__).stem, *sys.argv[1:]
path = Path(*([name, "-".join(items)] if name == "evaluate" else items if name == "student" else [name, *items]))
outs = {"report": ["index.html", "laboratory.html", "grid.csv", "figures", "metrics"], "track": ["tracked.json"]}
outs = {**outs, "run": ["grid"]}.get(name)
for out in [Path("reports", o) for o in outs] if outs else [Path("reports", path), Path("artifacts", path)]:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("x") if out.suffix else out.mkdir(exist_ok=True)
    if out.is_dir():
        (out / "record.json").write_text(json.dumps(sys.argv))
with open("log", "a") as log:
    log.write(" ".join([name, *items]) + chr(10))
"""


def test_the_chain_trains_the_losses_and_evaluates_the_checkpoints_of_the_parameters():
    stages = YAML(typ="safe", pure=True).load((PROJECT / "dvc.yaml").read_text())["stages"]
    assert stages["distill"]["foreach"] == "${distill.losses}"
    assert stages["rollout"]["foreach"] == "${rollout.losses}"
    assert stages["evaluate"]["foreach"] == "${checkpoints}"
    made = {f"reports/{name}" for name in stages if name not in ("report", "track")}
    for reader, drawn in (("report", set()), ("track", {"reports/figures"})):
        read = {path for path in stages[reader]["deps"] if path.startswith("reports/")}
        assert read == made | drawn


@pytest.mark.slow
def test_dvc_runs_the_losses_of_the_parameters_before_what_reads_all_reports(tmp_path):
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copyfile(PROJECT / name, tmp_path / name)
    params = YAML(typ="safe", pure=True).load((PROJECT / "params.yaml").read_text())
    for stage in ("distill", "rollout"):
        del params[stage]["losses"]["gan"], params[stage]["training"]["gan"], params["checkpoints"][f"{stage}-gan"]
    YAML().dump(params, tmp_path / "params.yaml")
    for name in ("pipeline", "stages", "sweeps", ".dvc"):
        (tmp_path / name).mkdir()
    for stage in YAML(typ="safe", pure=True).load((PROJECT / "dvc.yaml").read_text())["stages"].values():
        for path in stage.get("deps", []):
            if path.startswith("pipeline/"):
                made = tmp_path / path
                (made if made.suffix else made / "code.py").parent.mkdir(parents=True, exist_ok=True)
                (made if made.suffix else made / "code.py").touch()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    for path in (*(PROJECT / "stages").glob("*.py"), *(PROJECT / "sweeps").glob("*.py")):
        is_library = path.stem in ("__init__", "entry", "parallel", "runner")
        (tmp_path / path.parent.name / path.name).write_text("" if is_library else STAND_IN)
    binaries = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}"}

    def repro():
        command = [binaries / "dvc", "repro"]
        subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True, text=True)
        return (tmp_path / "log").read_text().splitlines()

    ran = repro()
    assert ran[-2:] == ["report", "track"]
    assert [name for name in ran if name.startswith("student")] == ["student distill dmd", "student rollout dmd"]
    assert "evaluate distill-gan" not in ran
    assert "evaluate rollout-dmd" in ran
    assert repro() == ran
