"""The section on beginnings: there where they were compared, made of their numbers, careful in its claims."""

import csv
import json
import re
from html import unescape

import pytest

from pipeline.causal_forcing import CausalForcing
from pipeline.records import DamagedRecordError
from pipeline.reporting.beginnings import NAMES, answer, as_text, beginnings, legend, lines_of, read_beginnings
from pipeline.reporting.read import artifact_digest, read_study
from pipeline.training.loop import TrainingSpec

# residual on causal and on bidirectional ends, then excess FVD before and after self forcing
NUMBERS = {
    "teacher": (0.0529, 0.1804, 14.6, 10.2),
    "ode_regression_causal": (0.0071, 0.1503, 6.9, 4.6),
    "ode_regression_bidirectional": (0.0161, 0.1218, 11.8, 7.3),
    "consistency": (0.0409, 0.1998, 4.5, 4.3),
}
NUM_FRAMES = 8


def init_rows(**changed):
    """Intervals are of 8 % to either side; standard errors 2 % of the residual."""
    rows = []
    for init, (causal, full, before, after) in (NUMBERS | changed).items():
        row = {"init": init, "updates": 0 if init == "teacher" else 120}
        for prefix, excess in (("", before), ("rollout_", after)):
            ends = {"excess": excess, "excess_low": 0.92 * excess, "excess_high": 1.08 * excess}
            kept = {"first_to_second": 0.95 - excess / 100, "first_to_last": 0.92 - excess / 100}
            row |= {f"{prefix}{name}": value for name, value in {**ends, **kept, "drift_slope": 0.1}.items()}
        row |= {"residual_causal": causal, "residual_causal_se": 0.02 * causal}
        row |= {"residual_bidirectional": full, "residual_bidirectional_se": 0.02 * full}
        rows.append({**row, "rollout_updates": 40, "seconds": 3.2, "rollout_seconds": 61.0})
    return rows


def residual_rows(rows):
    """Falling from frame to frame, the more so on the ends of the bidirectional teacher."""
    for row in rows:
        for teacher, slope in (("causal", 1.2), ("bidirectional", 0.8)):
            mean = row[f"residual_{teacher}"]
            yield {"init": row["init"], "teacher": teacher, "level": 1.0, "frame": "", "residual": mean}
            for frame in range(NUM_FRAMES):
                share = min(1.0, 4 * mean / (1 + frame) ** slope)
                yield {"init": row["init"], "teacher": teacher, "level": 1.0, "frame": frame, "residual": share}


def write_beginnings(reports, *, rows=None, codec=None, profile=None, failed=None):
    """What `python3 -m pipeline causal-forcing` leaves behind."""
    directory, study = reports / "causal_forcing", read_study(reports)
    directory.mkdir(exist_ok=True)
    rows = rows or init_rows()
    for name, lines in (("inits.csv", rows), ("residuals.csv", list(residual_rows(rows)))):
        with (directory / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)
    about = {
        "profile": profile or study.profile,
        "codec": codec or artifact_digest(study.stage("codec")),
        "params": {"num_clips": 1024, "num_heldout": 512},
        "failed": failed or {},
    }
    (directory / "run.json").write_text(json.dumps(about))
    return directory


def section_of(reports):
    (reports / "figures").mkdir(exist_ok=True)
    found = beginnings(read_study(reports), reports)
    return "\n".join(found["Where to begin"])


def test_a_page_without_the_experiment_has_no_such_section(reports):
    assert beginnings(read_study(reports), reports) == {}


def test_every_beginning_of_the_experiment_has_a_name():
    experiment = CausalForcing(TrainingSpec(num_steps=1), TrainingSpec(num_steps=1))
    assert list(experiment.inits()) == list(NAMES) == list(NUMBERS)


def test_page_text_and_csv_show_the_same_numbers(reports):
    directory = write_beginnings(reports)
    section, text = unescape(section_of(reports)), as_text(read_beginnings(reports))
    assert "<code>python3 -m pipeline causal-forcing</code>" in section
    assert (section.count("<figure"), section.count("<table")) == (1, 1)
    assert 'class="warning"' not in section
    shown = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr.*?</tr>", section)]
    with (directory / "inits.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(shown) - 1 == 4
    for row, line in zip(rows, shown[1:], strict=True):
        ends = [[float(row[f"{p}excess{end}"]) for end in ("", "_low", "_high")] for p in ("", "rollout_")]
        fvd = [f"{excess:.1f} [{low:.1f}, {high:.1f}]" for excess, low, high in ends]
        kept = [f"{float(row[f'{p}first_to_last']):.3f}" for p in ("", "rollout_")]
        left = [f"{float(row[f'residual_{teacher}']):.4f}" for teacher in ("causal", "bidirectional")]
        expected = [NAMES[row["init"]], row["updates"], *left, fvd[0], kept[0], fvd[1], kept[1], "3"]
        assert line == expected
        (words,) = (one for one in text.splitlines() if one.startswith(f"{expected[0]} "))
        assert words.replace("*", " ").split() == " ".join(expected).split()
    assert "4.5 [4.1, 4.9]*" in text
    assert max(map(len, text.split("\n\n")[0].splitlines())) <= 120


def test_data_of_the_figure_are_the_numbers_of_the_experiment(reports):
    directory = write_beginnings(reports)
    assert section_of(reports).count("<code>python3 -m pipeline causal-forcing</code></p></figure>") == 1
    assert (reports / "figures" / "beginnings.png").exists()
    with (reports / "figures" / "beginnings.csv").open(newline="") as file:
        shown = list(csv.DictReader(file))
    with (directory / "residuals.csv").open(newline="") as file:
        of_frames = [row for row in csv.DictReader(file) if row["frame"]]
    by_frame = {(row["begins_with"], row["ends_of_teacher"], row["frame"]): row["residual_share"] for row in shown}
    for row in of_frames:
        frame = str(1 + int(row["frame"]))
        assert float(by_frame[NAMES[row["init"]], row["teacher"], frame]) == float(row["residual"])
    after = {row["begins_with"]: row for row in shown if row["when"].startswith("after")}
    assert len(shown) == len(of_frames) + 2 * len(NUMBERS)
    for row in init_rows():
        numbers = [float(after[NAMES[row["init"]]][name]) for name in ("excess_fvd", "low", "high")]
        assert numbers == [row["rollout_excess"], row["rollout_excess_low"], row["rollout_excess_high"]]


def test_the_answer_compares_each_regression_on_ends_of_its_own_teacher(reports):
    write_beginnings(reports)
    found = read_beginnings(reports)
    claim, best, caveat = answer(found)
    assert "leaves 12.2 ± 0.48 % of the variance" in claim  # 1.96 * 2 % of .1218
    assert "the causal teacher 0.71 ± 0.028 %: 17.2 times as much; Causal Forcing, arXiv:2602.02214," in claim
    assert best == (
        "Before self forcing by DMD the best begins with: consistency, excess FVD 4.5 [4.1, 4.9] (apart from all "
        "others); after it the best begins with: consistency, excess FVD 4.3 [4.0, 4.6] (not separated from: "
        "regression, causal)."
    )
    assert "One seed" in caveat
    assert "over clips, not over training runs" in caveat
    assert "at n = 1,024 clips. Then DMD: after 40 updates" in legend(found)


@pytest.mark.parametrize(("full", "says"), [(0.0072, ": not separated, against"), (0.006, ": less, against")])
def test_a_claim_that_does_not_hold_is_not_called_true(reports, full, says):
    write_beginnings(reports, rows=init_rows(ode_regression_bidirectional=(0.01, full, 11.8, 7.3)))
    claim = answer(read_beginnings(reports))[0]
    assert says in claim
    assert "times as much" not in claim


def test_a_beginning_that_failed_is_told_and_the_claim_not_judged(reports):
    rows = [row for row in init_rows() if row["init"] != "ode_regression_bidirectional"]
    write_beginnings(reports, rows=rows, failed={"ode_regression_bidirectional": "student_loss is nan at step 3"})
    found = read_beginnings(reports)
    assert answer(found)[0].endswith("is not judged: there is no ode_regression_bidirectional.")
    assert "failed: ode_regression_bidirectional: student_loss is nan at step 3" in as_text(found)
    assert "ode_regression_bidirectional failed: student_loss is nan at step 3" in section_of(reports)
    assert len(lines_of(found)) == 1 + 3


def test_students_of_another_codec_or_profile_are_told(reports):
    write_beginnings(reports, codec="0" * 64, profile="smoke")
    section = section_of(reports)
    assert "These students speak the latents of another codec than that of this run: python3 -m" in section
    assert "These students are of profile smoke, this page is of default" in section


def test_table_and_figure_of_a_smoke_experiment_warn(tmp_path, write_run):
    reports = write_run(tmp_path, "smoke")
    write_beginnings(reports)
    assert section_of(reports).count("profile smoke: these numbers mean nothing") == 2
    assert "#b00020" in (reports / "figures" / "beginnings.svg").read_text()


def test_section_and_figure_are_the_same_bytes_twice(reports):
    write_beginnings(reports)
    path = reports / "figures" / "beginnings.svg"
    assert (section_of(reports), path.read_bytes()) == (section_of(reports), path.read_bytes())


@pytest.mark.parametrize("name", ["run.json", "inits.csv", "residuals.csv"])
def test_a_damaged_file_is_named(reports, name):
    path = write_beginnings(reports) / name
    for content in ("{}", "", "init\nteacher\n"):
        path.write_text(content)
        with pytest.raises(DamagedRecordError, match=f"causal_forcing/{name} is damaged"):
            read_beginnings(reports)
    path.unlink()
    with pytest.raises(DamagedRecordError, match=f"causal_forcing/{name} cannot be read"):
        read_beginnings(reports)


def test_a_beginning_without_residuals_or_name_is_refused(reports):
    directory = write_beginnings(reports)
    kept = (directory / "residuals.csv").read_text().replace("consistency,causal,1.0,", "consistency,other,1.0,")
    (directory / "residuals.csv").write_text(kept)
    with pytest.raises(
        DamagedRecordError, match=r"residuals\.csv is damaged: it has no frame of consistency on causal"
    ):
        read_beginnings(reports)
    (directory / "inits.csv").write_text((directory / "inits.csv").read_text().replace("consistency", "unheard"))
    with pytest.raises(DamagedRecordError, match=r"inits\.csv is damaged: it knows unheard; known: teacher, "):
        read_beginnings(reports)
