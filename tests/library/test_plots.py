"""Figure helpers: what they draw, what they refuse, and that the library does without matplotlib."""

import subprocess
import sys

import numpy as np
import pytest
import torch

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from bayesbinn_nb.library import plots  # noqa: E402


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def ax():
    return plt.subplots()[1]


def test_importing_does_not_load_matplotlib():
    code = "import sys, bayesbinn_nb.library.plots; assert not {'matplotlib', 'seaborn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match="pip install matplotlib seaborn"):
        plots.training_curves({"ste": [1.0, 2.0]})


def test_a_method_has_one_colour_and_labels_of_one_figure_differ():
    assert plots.method_color("STE (seed 3)") == plots.METHOD_COLORS["ste"]
    assert plots.method_color("Full precision") == plots.METHOD_COLORS["full_precision"]
    colors = plots._colors(["bayesbinn", "epoch 1", "epoch 2", "epoch 3"])
    assert len(set(colors.values())) == 4 and colors["bayesbinn"] == plots.METHOD_COLORS["bayesbinn"]


def test_training_curves_begin_at_epoch_one_and_draw_the_mean(ax):
    plots.training_curves(
        {"ste": torch.tensor([[90.0, 92.0], [94.0, 96.0]])}, published={"ste": [(2, 95.0, 0.5)]}, ax=ax
    )
    line = ax.get_lines()[0]
    assert line.get_xdata().tolist() == [1, 2] and line.get_ydata().tolist() == [92, 94]
    assert ax.get_lines()[1].get_xydata()[0].tolist() == [2, 95]


def test_accuracy_bars_keep_every_seed_in_view(ax):
    plots.accuracy_bars({"a": [90.0, 99.0], "b": [80.0, 81.0]}, published={"b": (70.0, 2.0)}, ax=ax)
    low, high = ax.get_xlim()
    assert low < 68 and high > 99


def test_decision_surface_asks_at_the_right_places(ax):
    plots.decision_surface(
        lambda p: torch.sigmoid(p[:, 1]),
        torch.tensor([[-1.0, 0.0], [1.0, 0.0]]),
        torch.tensor([0, 1]),
        extent=(-2, 2, -3, 3),
        grid=7,
        ax=ax,
    )
    drawn = ax.images[0].get_array()
    np.testing.assert_allclose(
        drawn[:, 0], 1 / (1 + np.exp(-np.linspace(-3, 3, 7))), rtol=1e-6
    )  # rows follow the second input, upwards
    assert ax.images[0].origin == "lower"


def test_regression_band_has_the_asked_widths(ax):
    plots.regression_band([0.0, 1.0], [0.0, 0.0], [1.0, 1.0], widths=(3.0,), ax=ax)
    y = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (y.min(), y.max()) == (-3, 3)


def test_histogram_shows_shares(ax):
    plots.probability_histogram(torch.tensor([[0.0, 1.0], [1.0, 1.0]]), bins=2, ax=ax)
    assert ax.patches[0].get_data().values.tolist() == [0.25, 0.75]


def test_epochs_without_a_flip_leave_a_gap(ax):
    plots.flip_ratio_curve({"bop": [0.1, 0.0, 0.01]}, ax=ax)
    assert np.isnan(ax.get_lines()[0].get_ydata()).tolist() == [False, True, False]


def test_heat_map_writes_the_numbers_and_leaves_blanks(ax):
    plots.heat_map([[1.0, np.nan], [2.0, 3.0]], ["r", "s"], ["u", "v"], ax=ax)
    assert sorted(t.get_text() for t in ax.texts) == ["1.0", "2.0", "3.0"]


@pytest.mark.parametrize(
    "draw, says",
    [
        (lambda: plots.training_curves({"a": [[[1.0]]]}), "dimension"),
        (lambda: plots.training_curves({"a": [1.0]}, published={"a": [(1, 2)]}), "epoch, value"),
        (lambda: plots.accuracy_bars({"a": []}), "one value per seed"),
        (lambda: plots.decision_surface(lambda p: p[:, 0], torch.randn(9, 2), torch.arange(9) % 2), "sigmoid"),
        (lambda: plots.regression_band([1.0, 0.0], [0.0, 0.0], [1.0, 1.0]), "sort"),
        (lambda: plots.regression_band([0.0], [0.0], [-1.0]), "≥ 0"),
        (lambda: plots.regression_band([0.0], [0.0, 1.0], [1.0]), "equally many"),
        (lambda: plots.probability_histogram(torch.tensor([-2.0, 0.5])), "not λ"),
        (lambda: plots.flip_ratio_curve({"a": [3.0]}), "divided"),
        (lambda: plots.heat_map([[1.0]], ["a", "b"], ["c"]), "names"),
    ],
)
def test_wrong_input_is_refused(draw, says):
    with pytest.raises(ValueError, match=says):
        draw()


def test_svg_is_the_same_twice_and_has_no_date():
    text = [plots.svg(plots.training_curves({"ste": [1.0, 2.0]}).figure) for _ in range(2)]
    assert text[0] == text[1] and text[0].startswith("<svg") and "dc:date" not in text[0] and not plt.get_fignums()
