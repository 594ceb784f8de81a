"""A result says which code and which entry of dvc.lock it came from."""

import json

from pipeline.lineage import directory_digest, lock_digests, revision_tags
from pipeline.unit import digest_of


def test_lock_digests_see_only_their_own_entry(tmp_path):
    lock = {"schema": "2.0", "stages": {"codec": {"cmd": "python -m stages.codec"}}}
    (tmp_path / "dvc.lock").write_text(json.dumps(lock))
    before = lock_digests(tmp_path)["codec"]
    lock["stages"]["track"] = {"cmd": "python -m stages.track"}
    (tmp_path / "dvc.lock").write_text(json.dumps(lock))
    assert lock_digests(tmp_path)["codec"] == before
    lock["stages"]["codec"]["cmd"] += " "
    (tmp_path / "dvc.lock").write_text(json.dumps(lock))
    assert lock_digests(tmp_path)["codec"] != before


def test_the_digest_of_products_is_that_of_the_directory_that_holds_them(tmp_path):
    for name in ("student.safetensors", "student.json"):
        (tmp_path / name).write_text(name)
    products = {name: digest_of(tmp_path / name) for name in ("student.safetensors", "student.json")}
    assert directory_digest(products) == digest_of(tmp_path)
    assert directory_digest({"student.json": products["student.json"]}) != digest_of(tmp_path)


def test_one_revision_is_the_commit_of_a_run_and_several_are_all_named():
    clean, dirty = {"commit": "5ea5", "dirty": False}, {"commit": "7a1e", "dirty": True}
    assert revision_tags(clean) == {
        "git.revision": "5ea5", "git.dirty": "false", "mlflow.source.git.commit": "5ea5",
    }  # fmt: skip
    assert revision_tags(clean, dirty) == {"git.revision": "5ea5, 7a1e", "git.dirty": "true"}
    assert revision_tags(None) == revision_tags() == {"git.revision": "none", "git.dirty": "none"}
