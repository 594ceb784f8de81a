"""A result says which code and which entry of dvc.lock it came from."""

import json

from pipeline.lineage import lock_digests


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
