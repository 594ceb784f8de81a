"""Every figure of the laboratory has beside it the numbers that it shows, and they are those of its files."""

import base64
import re

import numpy as np
import pandas as pd
import pytest

from pipeline.laboratory.verdicts import STUDENT_T
from pipeline.reporting.laboratory.page import write_laboratory
from tests.laboratory_files import write_laboratory_files
from tests.processes import PROCESSES
from tests.reporting.test_laboratory_figures import NEURAL, write_neural

PARAMETERS = ("m", "s", "m1", "s1", "c", "m2", "s2")
STUDENT = ["process", "cell", "critics"]
NUM_SEEDS = 3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """reports/ with the laboratory's files, neural students among them, and its page."""
    reports = tmp_path_factory.mktemp("laboratory")
    write_neural(write_laboratory_files(reports, num_seeds=NUM_SEEDS), tuple(NEURAL))
    write_laboratory(reports, profile="default")
    return reports


def figure(run, name):
    return pd.read_csv(run / "figures" / f"laboratory_{name}.csv")


def source(run, name):
    return pd.read_csv(run / "laboratory" / f"{name}.csv")


def same(found, expected, columns):
    """Numbers of two tables, row by row."""
    assert len(found) == len(expected)
    np.testing.assert_allclose(
        found[list(columns)].to_numpy(float), expected[list(columns)].to_numpy(float), rtol=1e-12, atol=1e-15
    )


def columns(rows):
    """The parameters that the rows have."""
    return [name for name in PARAMETERS if name in rows.columns and len(rows[name].dropna())]


def marks(run):
    """The rows of every map and picture of laws, with the file's name."""
    named = [path.stem.removeprefix("laboratory_") for path in (run / "figures").glob("*.csv")]
    for name in sorted(named):
        if "_map" in name or name.startswith("map_") or name.endswith("laws") or name == "fits":
            yield name, figure(run, name)


def test_every_figure_is_written_thrice_and_offers_its_data_and_its_command(run):
    directory = run / "figures"
    names = {path.stem for path in directory.iterdir()}
    assert {path.name for path in directory.iterdir()} == {
        f"{name}{kind}" for name in names for kind in (".svg", ".png", ".csv")
    }
    text = (run / "laboratory.html").read_text()
    figures = re.findall(r'<figure id="figure-([^"]+)">(.*?)</figure>', text, re.DOTALL)
    assert {name for name, _ in figures} == names
    for name, content in figures:
        data = re.search(r'download="([^"]+)" href="data:text/csv;base64,([^"]+)"', content)
        assert data[1] == f"{name}.csv"
        assert base64.b64decode(data[2]) == (directory / f"{name}.csv").read_bytes()
        assert len(pd.read_csv(directory / f"{name}.csv")) >= 2
        assert "<code>python3 -m pipeline laboratory</code>" in content


def test_optima_on_figures_are_those_predicted(run):
    predicted = source(run, "predicted")
    best = predicted[predicted["rank"] == 0].set_index(["process", "objective"])
    num_checked = 0
    for name, rows in marks(run):
        optima = rows[rows["mark"] == "optimum"]
        if optima.empty:
            assert name == "restored_laws"  # that supposes none
            continue
        shown = columns(optima)
        same(optima, best.loc[list(zip(optima["process"], optima["objective"], strict=True))], shown)
        if "map_" in name:
            assert len(optima) == len(best.loc[optima["process"].iloc[0]])
        num_checked += len(optima)
    assert num_checked > 50


def test_students_on_figures_end_where_the_verdicts_say_with_their_intervals(run):
    verdicts = source(run, "verdicts").set_index(STUDENT)
    for name, rows in marks(run):
        if name == "fits":  # of predictions alone
            continue
        students = rows[rows["mark"] == "student"]
        shown = [column for column in PARAMETERS if column in students]
        expected = verdicts.loc[[tuple(row) for row in students[STUDENT].to_numpy()]]
        same(students, expected, [*shown, *(f"{column}_half_width" for column in shown)])
        assert students[[*shown, *(f"{column}_half_width" for column in shown)]].notna().to_numpy().any()
        if name.startswith("map_"):
            assert len(students) == (source(run, "verdicts")["process"] == name[-1]).sum()


def test_ways_on_maps_are_running_means_of_the_curves_at_their_steps(run):
    curves = source(run, "curves").set_index([*STUDENT, "seed"]).sort_index()
    for name, rows in marks(run):
        ways = rows[rows["mark"] == "training"]
        assert ways.empty == ("map" not in name)
        if ways.empty:
            continue
        for key, way in ways.groupby([*STUDENT, "seed"]):
            whole = curves.loc[key].sort_values("step")
            plane = columns(way)
            mean = whole[plane].ewm(alpha=0.3, adjust=False).mean().set_axis(whole["step"])
            same(way, mean.loc[way["step"]], plane)
            assert {whole["step"].iloc[0], whole["step"].iloc[-1]} <= set(way["step"])
            assert len(way) <= 20


def test_data_on_figures_are_the_components_of_the_process(run):
    for _, rows in marks(run):
        for process, own in rows[rows["mark"] == "data"].groupby("process"):
            law = PROCESSES[str(process)].law
            assert own["share"].to_numpy() == pytest.approx(law.shares.numpy())
            assert own["mean_1"].to_numpy() == pytest.approx(law.means[:, 0].numpy())
            assert own["covariance_11"].to_numpy() == pytest.approx((law.factors[:, 0] ** 2).sum(-1).numpy())


def test_kept_modes_are_means_of_the_seeds_with_their_intervals(run):
    rows, measured = figure(run, "modes"), source(run, "measured").set_index(STUDENT)
    assert len(rows) == source(run, "verdicts")["process"].isin(list("AD")).sum()
    for row in rows.to_dict("records"):
        seeds = [
            float(kept.split(";")[row["mode"]]) for kept in measured.loc[tuple(row[k] for k in STUDENT), "kept"]
        ]
        assert len(seeds) == NUM_SEEDS
        assert row["share"] == pytest.approx(np.mean(seeds), abs=1e-6)
        width = STUDENT_T[NUM_SEEDS] * np.std(seeds, ddof=1) / NUM_SEEDS**0.5
        assert row["half_width"] == pytest.approx(width, abs=1e-6)


def test_roll_outs_are_means_of_the_seeds_with_their_intervals(run):
    rows, rolled = figure(run, "exposure"), source(run, "exposure")
    rolled["reverse_kl_so_far"] = rolled.fillna({"reverse_kl_by_frame": 0}).groupby(["rollout", "seed"])[
        "reverse_kl_by_frame"
    ].cumsum()  # fmt: skip
    seeds = rolled.groupby(["rollout", "frame"])
    at = [(row.rollout, row.frame - 1) for row in rows.itertuples()]
    assert len(at) == len(seeds)
    for number in ("variance", "mean", "reverse_kl_so_far"):
        assert rows[number].to_numpy() == pytest.approx(seeds[number].mean().loc[at].to_numpy(), abs=1e-12)
        widths = STUDENT_T[NUM_SEEDS] * seeds[number].sem().loc[at].to_numpy()
        assert rows[f"{number}_half_width"].to_numpy() == pytest.approx(widths, abs=1e-9)
    circles = rows["predicted_variance"].notna().to_numpy()
    assert circles.tolist() == [row.frame % 2 == 1 for row in rows.itertuples()]
    expected = seeds["predicted_variance"].mean().loc[at].to_numpy()[circles]
    assert rows["predicted_variance"].to_numpy()[circles] == pytest.approx(expected)


def test_neural_figures_show_the_rows_of_their_files(run):
    pd.testing.assert_frame_equal(figure(run, "neural"), source(run, "neural"))
    modes = source(run, "neural_modes")
    rarest = modes.query("mode == 1").reset_index(drop=True)  # 25 % of data
    pd.testing.assert_frame_equal(figure(run, "neural_modes"), rarest)
    bias = figure(run, "estimators").drop_duplicates()
    merged = bias.merge(source(run, "estimators"))
    assert len(merged) == len(bias) == len(source(run, "estimators"))
    assert (bias["estimate"] - bias["exact"]).to_numpy() == pytest.approx(bias["estimate_less_exact"].to_numpy())


def test_sums_over_frames_are_those_of_the_seeds(run):
    steps = source(run, "neural_steps")
    steps["so_far"] = steps.groupby(["cell", "contexts", "seed"])["value"].cumsum()
    seeds = steps.groupby(["cell", "contexts", "frame"])["so_far"]
    rows = figure(run, "neural_steps")
    at = [(row.cell, row.contexts, row.frame - 1) for row in rows.itertuples()]
    assert len(at) == len(seeds)
    for column, of_seeds in (("value", seeds.mean()), ("least", seeds.min()), ("most", seeds.max())):
        assert rows[column].to_numpy() == pytest.approx(of_seeds.loc[at].to_numpy())
