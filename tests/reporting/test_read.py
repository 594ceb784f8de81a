"""Records are joined by what they wrote and read, or refused."""

import hashlib
import json
import shutil

import pytest

from pipeline.grid import Cell, cells
from pipeline.records import DamagedRecordError
from pipeline.reporting.likelihood import absence
from pipeline.reporting.read import TIMES, Study, artifact_digest, read_study, short_name
from pipeline.unit import digest_of


def edit(path, change):
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def test_study_orders_checkpoints_by_what_they_are_made_from(reports):
    study = read_study(reports)
    assert [checkpoint.name for checkpoint in study.checkpoints] == [
        "teacher@causal",
        "init",
        "teacher@bidirectional",
        "distill@dmd",
        "distill@gan",
        "rollout@dmd",
        "rollout@gan",
    ]
    assert [checkpoint.label for checkpoint in study.checkpoints][:4] == [
        f"DF{TIMES}L2 causal",
        f"TF{TIMES}CD",
        f"DF{TIMES}L2 bidirectional",
        f"DF{TIMES}DMD",
    ]


def test_study_lists_every_unit_after_what_it_reads(reports):
    study = read_study(reports)
    made = {artifact_digest(record): index for index, record in enumerate(study.records)}
    assert len(study.records) == 17
    for index, record in enumerate(study.records):
        assert all(made[digest] < index for digest in record.inputs.values())


def test_study_follows_a_chain_to_its_beginning_without_the_networks_that_judge(reports):
    rollout = next(c for c in read_study(reports).checkpoints if c.name == "rollout@gan")
    assert {record.name for record in rollout.chain} == {
        "prepare",
        "codec",
        "teacher@causal",
        "teacher@bidirectional",
        "init",
        "distill@gan",
        "rollout@gan",
    }
    assert rollout.chain[-1] is rollout.trained


def test_study_knows_from_which_checkpoint_another_started(reports):
    study = read_study(reports)
    origins = {c.name: origin.name for c in study.checkpoints if (origin := study.origin_of(c))}
    assert origins == {
        "teacher@bidirectional": "teacher@causal",
        "init": "teacher@causal",
        "distill@dmd": "init",
        "distill@gan": "init",
        "rollout@dmd": "distill@dmd",
        "rollout@gan": "distill@gan",
    }


def test_artifact_digest_is_that_of_the_directory_on_disk(reports, tmp_path):
    directory = tmp_path / "artifact"
    directory.mkdir()
    for name in ("b.json", "a.safetensors", "c.npy"):
        (directory / name).write_text(name)
    record = next(record for record in read_study(reports).records if record.name == "codec")
    products = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}
    record.products.clear()
    record.products.update(products)
    assert artifact_digest(record) == digest_of(directory)


def test_short_name_is_initials_and_loss():
    assert short_name(Cell("self_forcing", "gan")) == f"SF{TIMES}GAN"
    assert short_name(Cell("teacher_forcing", "consistency_training")) == f"TF{TIMES}CT"
    labels = [short_name(cell) for cell in cells()]
    assert len(set(labels)) == len(labels)


def test_study_names_a_damaged_record(reports):
    path = reports / "rollout" / "dmd" / "record.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(DamagedRecordError, match=r"rollout/dmd/record\.json is damaged"):
        read_study(reports)


def test_study_names_the_record_of_a_checkpoint_that_was_not_measured(reports):
    (reports / "evaluate" / "rollout-dmd" / "record.json").unlink()
    with pytest.raises(DamagedRecordError, match=r"evaluate/rollout-dmd/record\.json"):
        read_study(reports)


def test_study_refuses_records_of_two_runs(reports):
    edit(reports / "teacher" / "causal" / "record.json", lambda record: record["products"].update(other="1"))
    with pytest.raises(DamagedRecordError, match="not of one run"):
        read_study(reports)


def test_study_refuses_records_of_two_profiles(reports):
    edit(reports / "codec" / "record.json", lambda record: record.update(profile="smoke"))
    with pytest.raises(DamagedRecordError, match="one profile, found: default, smoke"):
        read_study(reports)


@pytest.mark.parametrize(("profile", "warned"), [("default", False), ("blob", False), ("smoke", True)])
def test_the_numbers_of_every_profile_but_those_of_results_are_said_to_mean_nothing(profile, warned):
    study = Study(profile=profile, records=(), checkpoints=())
    assert study.is_smoke == warned
    assert (study.warning == f"profile {profile}: these numbers mean nothing") == warned


def test_study_refuses_an_empty_directory(tmp_path):
    with pytest.raises(DamagedRecordError, match="no record"):
        read_study(tmp_path)


def test_study_names_what_a_record_lacks(reports):
    edit(
        reports / "distill" / "dmd" / "record.json",
        lambda record: record["metrics"]["cell"].update(method="Unheard"),
    )
    with pytest.raises(DamagedRecordError, match=r"distill/dmd/record\.json: no method is called Unheard"):
        read_study(reports)


def test_a_student_is_compared_with_its_origin_sampled_alike(reports):
    own = reports / "evaluate" / "teacher-causal"
    few = own.with_name("teacher-causal-few_steps")
    shutil.copytree(own, few)
    record = json.loads((few / "record.json").read_text())
    record["item"] = few.name
    record["work"] |= {"sampler": {"num_steps": 4}, "bits": None}
    (few / "record.json").write_text(json.dumps(record))
    study = read_study(reports)
    found = {c.name: c for c in study.checkpoints}
    assert "teacher@causal few steps" in found
    assert found["teacher@causal few steps"].label.endswith("L2 few steps")
    origins = {name: origin.name for name, c in found.items() if (origin := study.origin_of(c))}
    assert origins["init"] == "teacher@causal few steps"
    assert origins["distill@dmd"] == origins["distill@gan"] == "init"
    assert origins["teacher@bidirectional"] == "teacher@causal"
    missing = absence(found["teacher@causal few steps"])
    assert missing == ("not measured", "no sampler moves the bound: see teacher@causal")
