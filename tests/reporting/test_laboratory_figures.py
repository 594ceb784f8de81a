"""What the laboratory's pictures draw: laws, places on maps, labels that never overlap, and neural students."""

import csv
import re
from html import unescape

import numpy as np
import pytest

from pipeline.records import DamagedRecordError
from pipeline.reporting.laboratory.figures import rarest
from pipeline.reporting.laboratory.laws import Mixture, ellipse, of_student
from pipeline.reporting.laboratory.maps import (
    Site,
    ended_above,
    hue,
    mark,
    objectives_on,
    sites_of,
    stacked,
)
from pipeline.reporting.laboratory.neural import neural_sections, read_neural
from pipeline.reporting.laboratory.results import RECOGNISED, read_laboratory
from pipeline.reporting.laboratory.rollouts import rolled
from pipeline.reporting.laboratory.shown import WAY_POINTS, smoothed, thinned
from pipeline.reporting.style import HUES
from tests.laboratory_files import OPTIMA, write_laboratory_files

NEURAL = {
    "neural.csv": "cell,process,seed,divergence,value,low,high,estimator",
    "neural_modes.csv": "cell,process,seed,mode,share,data_share",
    "neural_steps.csv": "cell,process,seed,contexts,frame,value,low,high,estimator",
    "estimators.csv": "pair,dimensions,divergence,estimator,num_samples,exact,estimate,low,high",
}
DIVERGENCES = ("forward_kl", "reverse_kl", "jensen_shannon")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    reports = tmp_path_factory.mktemp("laboratory")
    write_laboratory_files(reports)
    return read_laboratory(reports)


def neural_rows():
    """Two cells, two seeds: the second of lower bounds alone."""
    rows = {name: [] for name in NEURAL}
    for cell, size, estimator in (
        ("teacher_forcing-l2", 0.1, "both_densities"),
        ("bidirectional-dmd", 0.7, "classifier_bound"),
    ):
        for seed in (0, 1):
            about, how = (cell, "D", seed), (size + 0.02 * seed, size - 0.05, size + 0.07, estimator)
            rows["neural.csv"] += [(*about, divergence, *how) for divergence in DIVERGENCES]
            rows["neural_modes.csv"] += [(*about, 0, 1 - size / 2, 0.75), (*about, 1, size / 2, 0.25)]
            rows["neural_steps.csv"] += [
                (*about, kind, frame, *how) for kind in ("true", "own") for frame in range(4)
            ]
    for number in (512, 8192):
        for estimator, off in (("both_densities", 0.0), ("classifier_bound", -64 / number)):
            exact = 0.25
            rows["estimators.csv"] += [
                ("D", 2, divergence, estimator, number, exact, exact + off, exact + off - 0.01, exact + off + 0.01)
                for divergence in DIVERGENCES
            ]
    return rows


def write_neural(directory, names=tuple(NEURAL)):
    directory.mkdir(exist_ok=True)
    for name in names:
        with (directory / name).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(NEURAL[name].split(","))
            writer.writerows(neural_rows()[name])


def text_of(parts):
    return unescape(re.sub(r"<[^>]+>", " ", "\n".join(line for content in parts.values() for line in content)))


def test_density_of_a_process_is_that_of_its_law(found):
    x = np.linspace(-3, 6, 5)
    expected = 0.75 * np.exp(-((x / 0.5) ** 2) / 2) / 0.5 + 0.25 * np.exp(-((x - 2) ** 2) / 2)
    assert found.laws["A"].first(1).density(x[:, None]) == pytest.approx(expected / np.sqrt(2 * np.pi), rel=1e-12)
    grid = np.stack(np.meshgrid(np.linspace(-8, 10, 400), np.linspace(-8, 10, 400)), -1)
    assert found.laws["D"].first(2).density(grid).sum() * (18 / 399) ** 2 == pytest.approx(1, abs=1e-6)
    assert found.laws["L"].first(2).covariances[0] == pytest.approx(np.array([[1, 5 / 6], [5 / 6, 1]]), rel=1e-12)


def test_law_of_a_student_has_the_moments_of_its_roll_out():
    at = {"m1": 0.3, "s1": 0.8, "c": 0.5, "m2": -0.1, "s2": 0.4}
    rng = np.random.default_rng(0)
    first = at["m1"] + at["s1"] * rng.normal(size=200_000)
    second = at["c"] * first + at["m2"] + at["s2"] * rng.normal(size=200_000)
    law = of_student(at)
    assert law.means[0] == pytest.approx([first.mean(), second.mean()], abs=0.01)
    assert law.covariances[0] == pytest.approx(np.cov(first, second), abs=0.01)
    tied = of_student({"s1": 1.0, "c": 0.9, "s": 0.19**0.5})
    assert tied.covariances[0] == pytest.approx(np.array([[1, 0.9], [0.9, 1]]))


def test_every_point_of_an_ellipse_is_as_far_from_the_mean():
    law = of_student({"m1": 0.3, "s1": 0.8, "c": 0.5, "m2": -0.1, "s2": 0.4})
    away = ellipse(law, 1.5) - law.means[0][:, None]
    squared = np.einsum("in,ij,jn->n", away, np.linalg.inv(law.covariances[0]), away)
    assert squared == pytest.approx(np.full(squared.shape, 1.5**2))


def test_a_mode_that_lies_within_another_is_not_told_from_it():
    shares, means = np.array([0.2, 0.5, 0.3]), np.array([[0.0], [0.2], [9.0]])
    law = Mixture(shares, means, np.array([[[4.0]], [[0.25]], [[0.25]]]))
    x = np.linspace(-12, 14, 40_001)
    parts = [
        Mixture(shares[k : k + 1], means[k : k + 1], law.covariances[k : k + 1]).density(x[:, None])
        for k in range(3)
    ]
    exact = [
        (part**2 / sum(parts)).sum() * (x[1] - x[0]) / share for part, share in zip(parts, shares, strict=True)
    ]
    assert law.recognised() == pytest.approx(exact, abs=0.02)
    assert law.recognised()[0] < RECOGNISED < law.recognised()[1:].min()


def test_the_rarest_mode_is_the_one_that_data_have_least_of(found):
    assert rarest(found, "A") == (1, pytest.approx(0.25))
    assert rarest(found, "D") == (1, pytest.approx(0.25))
    with pytest.raises(ValueError, match="process L must have several modes"):
        rarest(found, "L")


def test_labels_keep_their_order_and_never_overlap():
    rng = np.random.default_rng(1)
    for _ in range(50):
        sizes = rng.uniform(5, 15, 12).tolist()
        wanted = sorted(rng.uniform(0, 200, 12).tolist(), reverse=True)
        places = stacked(wanted, sizes, 200.0)
        tops = [place + size / 2 for place, size in zip(places, sizes, strict=True)]
        bottoms = [place - size / 2 for place, size in zip(places, sizes, strict=True)]
        assert all(bottom >= top - 1e-6 for bottom, top in zip(bottoms, tops[1:], strict=False))
        assert tops[0] <= 200 + 1e-6
        assert bottoms[-1] >= -1e-6


def test_labels_with_room_stand_where_they_are_wanted():
    assert stacked([90.0, 50.0, 10.0], [10.0, 10.0, 10.0], 100.0) == pytest.approx([90, 50, 10])
    assert stacked([52.0, 50.0], [10.0, 10.0], 100.0) == pytest.approx([56, 46])  # about the mean of both


def test_a_place_of_the_map_holds_what_coincides_and_who_settled_there(found):
    rows = [row for row in found.judged if row.process == "A" and row.critics == "exact"]
    named = objectives_on(found, "A", rows, every=True)
    assert named == {name for name in OPTIMA["A"] if not name.startswith("entropy")}
    sites = sites_of(found, "A", rows, named)
    of_forward = next(site for site in sites if "forward_kl" in site.objectives)
    assert set(of_forward.objectives) == {"forward_kl", "forward_kl_averaged", "l2_elbo_bidirectional"}
    assert [row.cell for row in of_forward.cells] == ["bidirectional-l2_elbo"]
    placed = [row.cell for site in sites for row in site.cells]
    assert sorted(placed) == sorted(row.cell for row in rows)


def test_who_settled_at_no_optimum_has_a_place_of_its_own(found):
    rows = [row for row in found.judged if row.process == "D"]
    sites = sites_of(found, "D", rows, objectives_on(found, "D", rows, every=False))
    alone = [site for site in sites if not site.objectives]
    assert [row.cell for site in alone for row in site.cells] == ["diffusion_forcing_clean-dmd"]


def test_a_local_optimum_is_named_as_one(tmp_path):
    path = write_laboratory_files(tmp_path, processes=("A",), ends={"bidirectional-dmd": {"A": (0.9, 0.3)}})
    predicted = path / "predicted.csv"
    best = next(line for line in predicted.read_text().splitlines() if line.startswith("A,reverse_kl_averaged,0,"))
    columns = best.split(",")
    columns[2:5] = "1", "0.9", "0.3"
    predicted.write_text(predicted.read_text() + ",".join(columns) + "\n")
    found = read_laboratory(tmp_path)
    row = found.of("bidirectional-dmd", "A")
    assert row is not None
    assert found.settled_on(row) == "reverse_kl_averaged"
    site = next(site for site in sites_of(found, "A", [row], {"reverse_kl_averaged"}) if site.cells)
    assert (site.is_local, site.objectives) == (True, ("reverse_kl_averaged",))


def test_a_map_ends_above_the_one_place_that_would_take_a_third_of_it():
    def below(*heights):
        return [site.is_below for site in ended_above([Site({"s": height}, (), ()) for height in heights], "s")]

    assert below(1.0, 0.9, 0.8, 0.6, 0.1) == [False, False, False, False, True]
    assert not any(below(1.0, 0.8, 0.6, 0.4, 0.2))
    assert not any(below(1.0, 0.9, 0.8, 0.1))  # of so few each counts


def test_colour_is_the_loss_and_marker_the_method(found):
    assert hue(found, "bidirectional-dmd") == hue(found, "self_forcing-dmd") == HUES[1]
    assert hue(found, "bidirectional-l2_elbo") != HUES[1]
    assert mark(found, "self_forcing-dmd") != mark(found, "teacher_forcing-dmd")
    assert mark(found, "teacher_forcing-l2_elbo") == mark(found, "teacher_forcing-dmd")


def test_a_smoothed_way_begins_where_it_begins_and_tends_to_where_it_stays():
    way = smoothed([(0, {"m": 0.0, "s": 1.0})] + [(step, {"m": 1.0, "s": 0.0}) for step in range(1, 41)])
    assert way[0] == (0, {"m": 0.0, "s": 1.0})
    assert (way[1][1]["m"], way[-1][1]["m"], way[-1][1]["s"]) == pytest.approx((0.3, 1.0, 0.0), abs=1e-5)
    assert [step for step, _ in way] == list(range(41))


@pytest.mark.parametrize("length", [1, 2, 19, 20, 21, 40, 41, 100])
def test_a_thinned_way_keeps_its_ends_and_has_few_points(length):
    way = [(step, {"m": float(step)}) for step in range(length)]
    few = thinned(way)
    assert (few[0], few[-1]) == (way[0], way[-1])
    assert len(few) == len({step for step, _ in few}) == min(length, len(few)) <= WAY_POINTS
    assert few == way or len(few) > WAY_POINTS / 2


def test_roll_outs_are_means_over_seeds(found):
    series = rolled(found)
    own = [row for row in found.rolled if row.rollout == "teacher_forcing" and row.frame == 7]
    assert len(own) == 3
    assert series["teacher_forcing"]["variance"][7] == pytest.approx(sum(row.variance for row in own) / 3)
    assert series["teacher_forcing"]["reverse_kl_by_frame"][0] == 0  # of the first frame it is not known


def test_neural_sections_stand_where_their_files_do(found, tmp_path):
    assert neural_sections(found, tmp_path, tmp_path) == {}
    (tmp_path / "neural.csv").write_text("\n")  # of a run without neural students
    assert neural_sections(found, tmp_path, tmp_path) == {}
    write_neural(tmp_path, ("estimators.csv",))
    assert list(neural_sections(found, tmp_path, tmp_path)) == ["How good the estimators are"]
    write_neural(tmp_path)
    parts = neural_sections(found, tmp_path, tmp_path)
    assert list(parts) == ["Neural students", "How good the estimators are"]
    assert sum(line.count("<figure") for content in parts.values() for line in content) == 4


def test_neural_sections_tell_the_numbers_of_their_files(found, tmp_path):
    write_neural(tmp_path)
    text = text_of(neural_sections(found, tmp_path, tmp_path))
    assert "forward KL: least teacher forcing \u00d7 L2, 0.110, most bidirectional \u00d7 DMD, 0.710" in text
    assert "Of bidirectional \u00d7 DMD only lower bounds are known." in text
    assert text.count("0.110 [0.100, 0.120]") == 3
    assert "classifier bound: -0.125 to -0.125 nats at 512 draws, -0.008 to -0.008 nats at 8,192 draws" in text


@pytest.mark.parametrize("name", NEURAL)
def test_a_damaged_file_of_neural_students_is_named(tmp_path, name):
    write_neural(tmp_path)
    (tmp_path / name).write_text("cell\nx\n")
    with pytest.raises(DamagedRecordError, match=f"{name} is damaged: it lacks"):
        read_neural(tmp_path)
