"""The section of clips whose data have a known density."""

import csv
import json

from pipeline.reporting.columns import NOTHING
from pipeline.reporting.known_density import TITLE, known_density, table_lines
from pipeline.reporting.read import read_study


def measured(log_density, *, read_share=1.0):
    shares = {"left": 0.6, "right": 0.4}
    return {"read_share": read_share, "log_density": log_density, "standard_error": 0.05, "system_shares": shares}


def blobs(log_density):
    frames = {"index": [1, 2, 3], "log_density": [-3.0, log_density, None], "log_density_real": [-3.0, 0.9, 0.9]}
    sets = {"generated": measured(log_density, read_share=0.97), "real": measured(0.94), "codec": measured(0.93)}
    return {"data_shares": {"left": 0.5, "right": 0.5}, **sets, "frames": frames}


def test_checkpoints_stand_above_real_clips_and_an_unread_set_has_no_density():
    unread = {**blobs(0.0), "generated": {**measured(None, read_share=0.0), "standard_error": None}}
    lines = table_lines({"teacher@causal": blobs(-16.9), "init": unread})
    assert lines[0] == ["", "read", "ln q", "left (0.50)", "right (0.50)"]
    assert lines[1] == ["teacher@causal", "97%", "-16.90 ± 0.05", "0.60", "0.40"]
    assert lines[2][:3] == ["init", "0%", NOTHING]
    assert [line[0] for line in lines[3:]] == ["real clips", "real, through codec"]


def test_the_section_is_there_where_it_was_measured(reports):
    assert known_density(read_study(reports), reports) == {}
    path = next(reports.glob("evaluate/*/record.json"))
    record = json.loads(path.read_text())
    record["metrics"]["known_density"] = blobs(-16.9)
    path.write_text(json.dumps(record))
    (reports / "figures").mkdir(exist_ok=True)
    section = known_density(read_study(reports), reports)
    assert list(section) == [TITLE]
    assert "-16.90 ± 0.05" in "".join(section[TITLE])
    assert "<code>python3 -m pipeline repro</code>" in section[TITLE][-1]
    figures = reports / "figures"
    assert (figures / "known_density.svg").exists()
    assert (figures / "known_density.png").exists()
    with (figures / "known_density.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["log_density_nats"] for row in rows] == ["-3.0", "-16.9", "", "-3.0", "0.9", "0.9"]
    assert [row["clips_of"] for row in rows][2:4] == [path.parent.name.replace("-", "@"), "real clips"]
