"""The section of an ablation: there where one was run, made of its numbers, and warned of where it is old."""

import csv
import itertools
import json
from dataclasses import fields, replace

import pytest

from pipeline.records import DamagedRecordError
from pipeline.reporting.claims import Gap, Spread, Teacher, gaps_of, mean_gap, verdicts
from pipeline.reporting.objectives import as_text, objectives, read_objectives
from pipeline.reporting.read import artifact_digest, read_study

SCHEDULES, WEIGHTINGS, PREDICTIONS = ("cosine", "flow_matching"), ("exponential", "edm"), ("x0", "v")


def teachers():
    """Bits differ by .01 between schedules, .1 between weightings, 1 between predictions; excess tenfold."""
    found = []
    for (p, prediction), (w, weighting), (s, schedule) in itertools.product(
        *map(enumerate, (PREDICTIONS, WEIGHTINGS, SCHEDULES))
    ):
        bits = 3 + p + 0.1 * w + 0.01 * s
        found.append(
            Teacher(
                prediction, weighting, schedule, bits, 0.02, 10 * bits, 10 * bits - 2, 10 * bits + 2, 0.7, 0.25,
                0.5, 450, 83.6,
            )
        )  # fmt: skip
    return found


def spread(*, context=0.0, clean=0.0):
    """Two schedules and the adaptive one; the last differs from the first by so much, of means of 1."""
    lines = []
    for teacher in teachers():
        for law, moved in (("training", context), ("teacher_forcing", clean)):
            for index, name in enumerate((*SCHEDULES, "adaptive")):
                head = (teacher.prediction, teacher.weighting, teacher.schedule, law, name)
                lines.append(Spread(*head, 1 + moved * index / 2, 0.01, 0.9 - 0.2 * index))
    return lines


def write_table(path, lines):
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(lines[0])])
        writer.writerows(vars(line).values() for line in lines)


def write_ablation(reports, *, codec=None, failed=None, lines=None):
    directory = reports / "ablation"
    directory.mkdir()
    write_table(directory / "diffusion.csv", lines or teachers())
    write_table(directory / "spread.csv", spread())
    study = read_study(reports)
    digest = codec or artifact_digest(study.stage("codec"))
    about = {"profile": study.profile, "codec": digest, "num_clips": 512, "failed": failed or {}}
    (directory / "run.json").write_text(json.dumps(about))
    return directory


def section_of(reports):
    return "\n".join(objectives(read_study(reports), reports)["Objectives"])


def test_a_page_without_an_ablation_has_no_such_section(reports):
    assert objectives(read_study(reports), reports) == {}


def test_the_section_holds_the_tables_the_figure_and_the_command(reports):
    write_ablation(reports)
    section = section_of(reports)
    assert "<code>python3 -m pipeline ablate-diffusion</code>" in section
    assert section.count("<table") == 2
    assert section.count("<figure") == 1
    assert section.count('<th scope="row">x0</th>') == 4 + 8  # teachers, and networks by two laws
    assert "3.110 ± 0.020" in section
    assert "31.1 [29.1, 33.1]" in section
    assert 'class="warning"' not in section
    assert (reports / "figures" / "objectives.svg").exists()
    assert (reports / "figures" / "objectives.png").exists()


def test_data_of_the_figure_are_the_numbers_of_the_teachers(reports):
    write_ablation(reports)
    assert section_of(reports).count("<figure") == 1
    with (reports / "figures" / "objectives.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * len(teachers())  # panels
    found = {tuple(row[name] for name in ("prediction", "weighting", "schedule", "measure")): row for row in rows}
    for teacher in teachers():
        axes = (teacher.prediction, teacher.weighting, teacher.schedule)
        numbers = [found[*axes, "excess FVD"][name] for name in ("value", "low", "high")]
        assert numbers == [repr(x) for x in (teacher.excess, teacher.excess_low, teacher.excess_high)]
        assert float(found[*axes, "bits per dimension"]["low"]) == pytest.approx(teacher.bits_per_dim - 1.96 * 0.02)
        assert found[*axes, "relative sd of a clip's loss"]["low"] == ""  # it has no interval


def test_the_section_is_the_same_bytes_twice(reports):
    write_ablation(reports)
    pages = [section_of(reports) for _ in range(2)]
    assert pages[0] == pages[1]


def test_teachers_of_another_codec_and_those_that_failed_are_told(reports):
    write_ablation(reports, codec="0" * 64, failed={"v + edm + cosine": "student_loss is nan at step 3"})
    text = section_of(reports)
    assert "These teachers speak the latents of another codec than that of this run" in text
    assert "v + edm + cosine failed: student_loss is nan at step 3" in text


def test_every_table_and_figure_of_a_smoke_ablation_warns(tmp_path, write_run):
    reports = write_run(tmp_path, "smoke")
    write_ablation(reports)
    assert section_of(reports).count("profile smoke: these numbers mean nothing") == 3
    assert "#b00020" in (reports / "figures" / "objectives.svg").read_text()


def test_unmeasured_bits_leave_out_their_panel_and_their_verdict(reports):
    write_ablation(reports, lines=[replace(t, bits_per_dim=None, bits_standard_error=None) for t in teachers()])
    assert section_of(reports).count("<figure") == 1
    with (reports / "figures" / "objectives.csv").open(newline="") as file:
        assert {row["measure"] for row in csv.DictReader(file)} == {"excess FVD", "relative sd of a clip's loss"}
    text = as_text(read_objectives(reports))
    assert "bits per dimension" not in text
    assert "Mean absolute difference in excess FVD" in text


@pytest.mark.parametrize("name", ["run.json", "diffusion.csv", "spread.csv"])
def test_a_damaged_file_is_named(reports, name):
    path = write_ablation(reports) / name
    for content in ("{}", "", "prediction\nx0\n"):
        path.write_text(content)
        with pytest.raises(DamagedRecordError, match=f"ablation/{name} is damaged"):
            read_objectives(reports)
    path.unlink()
    with pytest.raises(DamagedRecordError, match=f"ablation/{name} cannot be read"):
        read_objectives(reports)


def test_equal_means_are_called_equal_and_others_not():
    held = verdicts(teachers(), spread(context=0.2, clean=0.02))
    assert held[0].startswith("w = exp(-log_snr / 2), clean context: ")
    assert "is equal within 3 standard errors (largest difference 1.4 of them, 2.0%; 12 pairs)" in held[0]
    assert "w of edm" in held[1]
    assert "the largest such difference is 14.1 standard errors (18.2%; 24 pairs)" in held[2]
    broken = verdicts(teachers(), spread(clean=0.1))
    assert "is NOT equal within 3 standard errors (largest difference 7.1 of them" in broken[0]


def test_the_smallest_spread_is_named():
    line = next(line for line in verdicts(teachers(), spread()) if line.startswith("Relative"))
    assert "adaptive 0.50, flow_matching 0.70, cosine 0.90" in line
    assert "Smallest: adaptive for exponential, adaptive for edm." in line


def test_differences_are_between_teachers_that_differ_in_one_thing_alone():
    found = {axis: mean_gap(teachers(), axis, "bits_per_dim") for axis in ("prediction", "weighting", "schedule")}
    assert found == pytest.approx({"prediction": 1.0, "weighting": 0.1, "schedule": 0.01})
    line = next(line for line in verdicts(teachers(), spread()) if "bits per dimension" in line)
    assert "prediction 1, weighting 0.1, schedule 0.01." in line
    assert "two teachers less than 0.055 apart are not separated" in line  # 1.96 * .02 * sqrt(2)


def test_a_gap_counts_the_errors_of_both_means():
    one = spread()[0]
    lines = [replace(one, mean=1.0, standard_error=0.03), replace(one, mean=1.1, standard_error=0.04)]
    (gap,) = gaps_of(lines, "training")
    assert (gap.errors, gap.relative) == pytest.approx(tuple(vars(Gap(2.0, 0.1 / 1.05)).values()))


def test_the_best_of_a_column_is_marked_and_losses_of_unlike_objectives_are_not(reports):
    write_ablation(reports)
    found = read_objectives(reports)
    heads, *rows = as_text(found).split("\n\n")[0].splitlines()
    least = min(range(len(found.teachers)), key=lambda index: found.teachers[index].excess)
    assert [index for index, row in enumerate(rows) if "]*" in row] == [least]
    assert "loss" in heads
    assert not any(f"{teacher.loss:.4f}*" in row for row, teacher in zip(rows, found.teachers, strict=True))
