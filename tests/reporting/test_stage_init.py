"""Every way to begin is told on the page, and students are traced to where their weights come from."""

import json
import shutil

import pytest

from pipeline.diffusion.weighting import PredictionL2
from pipeline.losses.l2 import L2
from pipeline.records import DamagedRecordError, read_record
from pipeline.reporting.prose import beginning, chain
from pipeline.reporting.read import artifact_digest, read_study
from pipeline.reporting.weighting import objectives
from pipeline.unit import as_plain


def begin_by(reports, kind, inputs, products):
    """In the place of consistency distillation; the students of distill start from it."""
    shutil.rmtree(reports / "evaluate" / "init")  # what is not trained is not measured
    path = reports / "init" / "record.json"
    path.with_name("curve.csv").unlink()
    record = json.loads(path.read_text()) | {"products": products, "metrics": {"student_updates": 0}}
    record["work"] = {"type": f"pipeline.training.init.{kind}"}
    record["inputs"] = {name: record["inputs"][name] for name in inputs}
    path.write_text(json.dumps(record))
    for loss in ("dmd", "gan"):
        student = reports / "distill" / loss / "record.json"
        content = json.loads(student.read_text())
        content["inputs"]["init"] = artifact_digest(read_record(path))
        student.write_text(json.dumps(content))


def line_of(study):
    (line,) = (line for line in chain(study).splitlines() if "<strong>init</strong>" in line)
    return line


def test_the_chain_tells_what_init_trained(reports):
    assert line_of(read_study(reports)) == (
        "<li><strong>init</strong>: where the students of distill start: the causal teacher's weights after "
        "3,000 updates by teacher forcing with consistency distillation.</li>"
    )


def test_students_of_the_teachers_own_weights_start_from_the_teacher(reports):
    teacher = read_record(reports / "teacher" / "causal" / "record.json")
    begin_by(reports, "FromTeacher", ["codec", "teacher"], teacher.products)
    study = read_study(reports)
    assert "start: the weights of the causal teacher as they are." in line_of(study)
    student = next(c for c in study.checkpoints if c.name == "distill@dmd")
    assert study.origin_of(student).name == "teacher@causal"
    assert student.chain[-2:] == (study.stage("teacher@bidirectional"), student.trained)


def test_students_of_random_weights_start_from_no_checkpoint(reports):
    begin_by(reports, "Untrained", ["codec"], {"weights.safetensors": "random"})
    study = read_study(reports)
    assert "start: random weights." in line_of(study)
    student = next(c for c in study.checkpoints if c.name == "distill@dmd")
    assert study.origin_of(student) is None
    assert study.stage("init") in student.chain


def test_regression_on_trajectories_is_told_and_has_no_density_of_levels(reports):
    path = reports / "init" / "record.json"
    record = json.loads(path.read_text())
    record["metrics"]["cell"] = {"method": "OnTrajectories", "loss": "L2"}
    record["work"] |= {"method": {"context": "clean"}, "loss": as_plain(L2(PredictionL2("x0")))}
    del record["inputs"]["teacher"]
    record["inputs"]["trajectories"] = "7" * 64
    path.write_text(json.dumps(record))
    study = read_study(reports)
    assert "after 3,000 updates by regression on the ends of a teacher's trajectories." in line_of(study)
    checkpoint = next(c for c in study.checkpoints if c.name == "init")
    assert checkpoint.cell == ("teacher_forcing", "kd")
    assert checkpoint not in [owner for owners in objectives(study).values() for owner in owners]


def test_a_beginning_that_the_library_has_not_is_refused(reports):
    begin_by(reports, "Unheard", ["codec"], {})
    with pytest.raises(DamagedRecordError, match=r"init/record\.json: no beginning is called Unheard"):
        beginning(read_record(reports / "init" / "record.json"))
