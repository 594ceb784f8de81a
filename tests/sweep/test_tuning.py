"""Settings, and the search for them."""

from dataclasses import replace
from statistics import median

import pytest

from pipeline.losses.dmd import Dmd
from pipeline.losses.pagoda import Pagoda
from pipeline.sweep.tuning import SEARCHES, Search, Setting, Tuning, with_critic_updates
from tests.cells import make_cell

TUNING = Tuning(num_trials=5, learning_rate=(1e-4, 1e-2))


def tried(search, value=lambda _: 1.0):
    """All settings that a search asks for, each told this value."""
    found = []
    while settings := search.ask():
        for setting in settings:
            found.append(setting)
            search.tell(setting, value(setting))
    return found


def test_a_setting_changes_rates_and_critic_updates_and_nothing_else():
    cell = make_cell("self_forcing", "dmd")
    made = Setting(2e-3, 0.5, 3).applied(cell)
    optimizer, critic = cell.training.optimizer, cell.training.critic_optimizer
    wanted = replace(
        cell,
        loss=Dmd(critic_updates=3),
        training=replace(
            cell.training,
            optimizer=replace(
                optimizer, learning_rate=2e-3, matrix_learning_rate=2 * optimizer.matrix_learning_rate
            ),
            critic_optimizer=replace(
                critic,
                learning_rate=critic.learning_rate / 2,
                matrix_learning_rate=critic.matrix_learning_rate / 2,
            ),
        ),
    )
    assert optimizer.learning_rate == 1e-3
    assert made == wanted
    assert Setting().applied(cell) == cell


def test_a_cell_without_critics_takes_the_rate_alone():
    cell = make_cell("diffusion_forcing", "l2")
    assert Setting(2e-3, 0.5, 3).applied(cell) == Setting(2e-3).applied(cell)


def test_critics_within_a_loss_are_reached():
    loss, plain = with_critic_updates(Pagoda(), 3), Pagoda()
    assert loss == replace(plain, gan=replace(plain.gan, critic_updates=3))
    assert loss.critic_updates == 3


@pytest.mark.parametrize("search", SEARCHES)
def test_every_cell_has_as_many_trials_within_the_ranges_and_first_its_own_setting(search):
    tuning = replace(TUNING, search=search)
    for cell in (make_cell("self_forcing", "dmd"), make_cell("diffusion_forcing", "l2")):
        cell = Setting(critic_updates=4).applied(cell)
        found = tried(Search(tuning, cell), value=lambda setting: -(setting.learning_rate or 0.0))
        assert len(found) == tuning.num_trials
        assert found[0] == Setting()
        assert all(1e-4 <= setting.learning_rate <= 1e-2 for setting in found[1:])
        if cell.loss.critic_updates:
            assert {setting.critic_updates for setting in found[1:]} <= {1, 2, 4}
        else:
            assert {(s.critic_rate_factor, s.critic_updates) for s in found} == {(None, None)}


def test_random_search_tries_the_same_for_all_cells_and_again():
    cells = [Setting(critic_updates=4).applied(make_cell("self_forcing", loss)) for loss in ("dmd", "sid")]
    first, second, again = (tried(Search(TUNING, cell)) for cell in (*cells, cells[0]))
    assert first == second == again
    l2 = tried(Search(TUNING, make_cell("diffusion_forcing", "l2")))
    assert [setting.learning_rate for setting in l2] == [setting.learning_rate for setting in first]
    assert tried(Search(replace(TUNING, seed=1), cells[0])) != first


def test_tpe_goes_where_results_are_good():
    tuning = replace(TUNING, search="tpe", num_trials=40)
    cell = make_cell("diffusion_forcing", "l2")
    good = 1e-3
    found = tried(Search(tuning, cell), value=lambda s: abs((s.learning_rate or 1e-4) - good))
    early, late = ([abs(s.learning_rate - good) for s in part] for part in (found[1:13], found[-12:]))
    assert median(late) < 0.7 * median(early)


def test_the_best_is_the_lowest_and_what_failed_is_never_chosen():
    search = Search(TUNING, make_cell("diffusion_forcing", "l2"))
    settings = search.ask()
    for setting, value in zip(settings, (3.0, None, 1.0, 2.0, None), strict=True):
        search.tell(setting, value)
    assert search.best == settings[2]
    assert search.ask() == []
    failed = Search(TUNING, make_cell("diffusion_forcing", "l2"))
    for setting in failed.ask():
        failed.tell(setting, None)
    assert failed.best == Setting()
