"""A profile is a workspace of its own: merged parameters, the project's code, its own results."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.workspace import main, make_workspace, merged_params

PARAMS = """# What decides every result.
profile: default
seed: 1  # of all streams
teacher:
  num_steps: 3000  # student updates
  loss: {type: l2, levels: [0.2, 0.9]}
codec:
  width: 32
"""
DVC_YAML = """stages:
  copy:
    cmd: python stages/copy.py
    deps: [stages/copy.py, pipeline]
    params: [seed]
    outs: [reports/out.txt: {cache: false}]
"""


@pytest.fixture
def project(tmp_path) -> Path:
    project = tmp_path / "project"
    for name in ("pipeline", "stages", "sweeps", "profiles", ".dvc/plots"):
        (project / name).mkdir(parents=True)
    (project / "params.yaml").write_text(PARAMS)
    (project / "dvc.yaml").write_text(DVC_YAML)
    (project / ".dvcignore").write_text("__pycache__\n")
    (project / "profiles" / "smoke.yaml").write_text("teacher:\n  num_steps: 5\n")
    (project / "pipeline" / "numbers.py").write_text("ONE = 1\n")
    copy = "import pathlib; pathlib.Path('reports').mkdir(exist_ok=True)\n"
    copy += "pathlib.Path('reports/out.txt').write_text(pathlib.Path('params.yaml').read_text())\n"
    (project / "stages" / "copy.py").write_text(copy)
    return project


def test_merged_params_change_only_what_the_overlay_names():
    merged = merged_params(PARAMS, "seed: 2\nteacher: {loss: {levels: [0.5]}}\n", "smoke")
    expected = YAML(typ="safe").load(PARAMS)
    expected |= {"profile": "smoke", "seed": 2}
    expected["teacher"]["loss"]["levels"] = [0.5]
    assert YAML(typ="safe").load(merged) == expected


def test_merged_params_keep_comments():
    merged = merged_params(PARAMS, "teacher: {num_steps: 5}", "smoke")
    assert "num_steps: 5     # student updates\n" in merged  # at the column where it was
    assert merged.startswith("# What decides every result.\nprofile: smoke\n")


def test_an_empty_overlay_changes_the_name_alone():
    assert merged_params(PARAMS, "# nothing\n", "smoke") == PARAMS.replace("default", "smoke")


def test_another_choice_by_name_is_given_whole_and_the_same_one_is_merged():
    params = PARAMS + "source: {name: digits, size: 8, speed: 1.0}\n"
    other = merged_params(params, "source: {name: blob, noise: 0.1}", "smoke")
    assert YAML(typ="safe").load(other)["source"] == {"name": "blob", "noise": 0.1}
    same = merged_params(params, "source: {name: digits, size: 12}", "smoke")
    assert YAML(typ="safe").load(same)["source"] == {"name": "digits", "size": 12, "speed": 1.0}
    with pytest.raises(ValueError, match=re.escape("source.noise is not there")):
        merged_params(params, "source: {name: digits, noise: 0.1}", "smoke")


def test_an_overlay_may_turn_a_section_off():
    merged = merged_params(PARAMS, "codec: none", "pixels")
    assert YAML(typ="safe").load(merged)["codec"] == "none"


@pytest.mark.parametrize(
    ("overlay", "path"),
    [
        ("teacher: {num_step: 5}", "teacher.num_step"),
        ("teacher: {loss: {weight: 1}}", "teacher.loss.weight"),
        ("techer: {}", "techer"),
    ],
)
def test_an_overlay_with_a_key_that_the_parameters_lack_is_refused(overlay, path):
    with pytest.raises(ValueError, match=rf"profiles/smoke\.yaml .*: {re.escape(path)} is not there"):
        merged_params(PARAMS, overlay, "smoke")


def test_an_overlay_must_not_name_the_profile():
    with pytest.raises(ValueError, match="must not set profile"):
        merged_params(PARAMS, "profile: other", "smoke")


def test_the_default_lives_in_the_project(project, tmp_path):
    assert make_workspace("default", project, tmp_path / "work") == project


def test_an_unknown_profile_lists_the_known(project, tmp_path):
    with pytest.raises(ValueError, match="one of default, smoke, got smok"):
        make_workspace("smok", project, tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_a_refused_overlay_writes_nothing(project, tmp_path):
    (project / "profiles" / "smoke.yaml").write_text("sede: 2\n")
    with pytest.raises(ValueError, match="sede"):
        make_workspace("smoke", project, tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_a_workspace_follows_the_project_and_keeps_its_results(project, tmp_path):
    workspace = make_workspace("smoke", project, tmp_path / "work")
    assert workspace == tmp_path / "work" / "profiles" / "smoke"
    (workspace / "dvc.lock").write_text("lock")
    (project / "params.yaml").write_text(PARAMS.replace("width: 32", "width: 64"))
    (project / "stages" / "new.py").touch()
    assert make_workspace("smoke", project, tmp_path / "work") == workspace
    values = YAML(typ="safe").load((workspace / "params.yaml").read_text())
    assert (values["codec"]["width"], values["teacher"]["num_steps"]) == (64, 5)
    assert (workspace / "stages" / "new.py").exists()
    assert (workspace / "dvc.lock").read_text() == "lock"


def test_a_moved_project_is_found_again(project, tmp_path):
    workspace = make_workspace("smoke", project, tmp_path / "work")
    moved = project.rename(tmp_path / "moved")
    make_workspace("smoke", moved, tmp_path / "work")
    assert (workspace / "pipeline").resolve() == moved / "pipeline"


def test_the_entry_point_says_one_line_and_exits_with_2(capsys):
    assert main(["no-such-profile"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_dvc_sees_parameters_and_code_of_a_workspace(project, tmp_path):
    workspace = make_workspace("smoke", project, tmp_path / "work")

    def repro() -> str:
        bin_directory = Path(sys.executable).parent
        env = {**os.environ, "PATH": f"{bin_directory}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "true"}
        command = [bin_directory / "dvc", "repro"]
        return subprocess.run(command, cwd=workspace, env=env, check=True, capture_output=True, text=True).stdout

    assert "Running stage 'copy'" in repro()
    assert "didn't change" in repro()
    (project / "pipeline" / "numbers.py").write_text("ONE = 2\n")
    assert "Running stage 'copy'" in repro()
    (project / "profiles" / "smoke.yaml").write_text("seed: 3\n")
    make_workspace("smoke", project, tmp_path / "work")
    assert "Running stage 'copy'" in repro()
    assert "seed: 3" in (workspace / "reports" / "out.txt").read_text()
    assert not (project / "dvc.lock").exists()
    assert not (project / "reports").exists()
