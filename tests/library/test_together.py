"""Several seeds at once: resumed after a kill, with mini-batches and validation, in bfloat16, and every trainer
usable afterwards."""

import pytest
import torch

from bayesbinn_nb.library.data import load_data
from bayesbinn_nb.library.models import assert_binary, build_model
from bayesbinn_nb.library.together import SideBySide, fit_together
from bayesbinn_nb.library.trainer import Callback, Trainer
from bayesbinn_nb.methods.bayesbinn import BayesBiNN
from bayesbinn_nb.methods.full_precision import FullPrecision
from bayesbinn_nb.methods.pmf import PMF
from bayesbinn_nb.methods.ste import STE

METHODS = {
    "ste": lambda: STE(lr=1e-2),
    "pmf": lambda: PMF(beta_every=5),
    "bayesbinn": lambda: BayesBiNN(lr=1e-3, temperature=1e-2, momentum=0.9, mean="lagged"),
    "adam": lambda: FullPrecision(),
}


def trainers(method, seeds=(0, 1, 2), **settings):
    made = []
    for seed in seeds:
        torch.manual_seed(seed)
        trainer = Trainer(
            build_model("mnist_mlp", in_features=64, hidden=32, layers=1, dropout=0.0),
            device="cpu",
            seed=seed,
            **settings,
        )

        def falling(o):
            return torch.optim.lr_scheduler.CosineAnnealingLR(o, 10, 1e-16)

        made.append(trainer.compile(METHODS[method](), scheduler=falling))
    return made


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


class Kill(Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_begin(self, trainer, logs):
        if logs["epoch"] == self.epoch:
            raise KeyboardInterrupt


@pytest.mark.parametrize("method", METHODS)
def test_killed_and_resumed_is_bit_identical(method, digits, tmp_path):
    whole, cut, again = (trainers(method) for _ in range(3))
    run = dict(epochs=4, progress="silent", batch_size=50)
    histories = fit_together(whole, digits.train, digits.val, digits.test, **run)
    with pytest.raises(KeyboardInterrupt):
        fit_together(cut, digits.train, digits.val, digits.test, checkpoint_dir=tmp_path, callbacks=[Kill(3)], **run)
    resumed = fit_together(again, digits.train, digits.val, digits.test, checkpoint_dir=tmp_path, **run)

    def measured(rows):
        return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]

    assert [measured(h) for h in histories] == [measured(h) for h in resumed]
    assert [len(h) for h in histories] == [4, 4, 4] and {"loss", "accuracy", "val_accuracy", "test_loss", "lr"} <= set(
        histories[0][0]
    )
    for a, b in zip(whole, again):
        for (k, p), q in zip(a.model.state_dict().items(), b.model.state_dict().values()):
            assert torch.equal(p, q), k


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_trainers_are_ordinary_afterwards(precision, digits, tmp_path):
    together = trainers("bayesbinn", precision=precision)
    fit_together(together, digits.train, digits.val, epochs=4, progress="silent", batch_size=50)
    scores = [t.evaluate(digits.test, how="mean", samples=5)["accuracy"] for t in together]
    assert len(set(scores)) > 1 and min(scores) > 0.3, "each has learned, and not the same"
    for t in together:
        assert_binary(t.model, list(t.method.binary_parameters))
        assert t.history[-1]["val_accuracy"] == pytest.approx(t.evaluate(digits.val)["accuracy"])
        assert [row["epoch"] for row in t.history] == [1, 2, 3, 4]
    first = together[0]
    first.save(tmp_path / "one.pt")
    loaded = trainers("bayesbinn", precision=precision)[0].load(tmp_path / "one.pt")
    assert torch.equal(loaded.predict(digits.test), first.predict(digits.test))
    first.fit(digits.train, epochs=5, progress="silent", batch_size=50)
    assert first.history[-1]["loss"] < first.history[0]["loss"] and len(first.history) == 5


def test_one_network_does_not_feel_the_others(digits):
    with_two, with_others = trainers("adam", seeds=(0, 1)), trainers("adam", seeds=(0, 7, 8))
    alone = trainers("adam", seeds=(0,))[0]
    for group in (with_two, with_others):
        fit_together(group, digits.train, epochs=2, progress="silent", batch_size=50)
    alone.fit(digits.train, epochs=2, progress="silent", batch_size=50)
    for row, other, own in zip(with_two[0].history, with_others[0].history, alone.history):
        assert row["loss"] == pytest.approx(own["loss"], rel=2e-3) and other["loss"] == pytest.approx(
            own["loss"], rel=2e-3
        )
    assert abs(with_two[1].history[-1]["loss"] - alone.history[-1]["loss"]) > 1e-3


def test_one_trainer_is_fitted_as_usual(digits):
    together, alone = trainers("bayesbinn", seeds=(3,)), trainers("bayesbinn", seeds=(3,))
    fit_together(together, digits.train, epochs=1, progress="silent")
    alone[0].fit(digits.train, epochs=1, progress="silent")
    assert together[0].history[0]["loss"] == alone[0].history[0]["loss"]


def test_noise_differs_from_network_to_network():
    torch.manual_seed(0)
    model = build_model("toy_mlp", hidden=8)
    same = [
        Trainer(build_model("toy_mlp", hidden=8), device="cpu", seed=5).compile(
            BayesBiNN(lr=1e-2, temperature=1.0, init_lambda=1.0, momentum=0.9), loss="mse", metrics=()
        )
        for _ in range(2)
    ]
    for t in same:
        t.model.load_state_dict(model.state_dict())
    x, y = torch.randn(32, 2), torch.randn(32, 1)
    fit_together(same, [(x, y)] * 3, epochs=1, progress="silent")
    a, b = (torch.cat([l.flatten() for l in t.method.optimizer.natural_parameters()]) for t in same)
    assert (a != b).float().mean() > 0.9, "two networks with the same seed and start must see different noise"


def test_side_by_side_wants_equal_networks():
    with pytest.raises((RuntimeError, ValueError), match="size|shape|differ"):
        SideBySide([build_model("toy_mlp", hidden=8), build_model("toy_mlp", hidden=9)])


def test_a_folder_of_other_seeds_is_refused(digits, tmp_path):
    fit_together(trainers("ste", seeds=(0, 1)), digits.train, epochs=1, progress="silent", checkpoint_dir=tmp_path)
    other = trainers("ste", seeds=(0, 7))
    with pytest.raises(ValueError, match=r"of the seeds \[0, 1\], these are \[0, 7\]"):
        fit_together(other, digits.train, epochs=2, progress="silent", checkpoint_dir=tmp_path)
    assert not any(t.history for t in other)
    same = trainers("ste", seeds=(0, 1))
    assert [len(h) for h in fit_together(same, digits.train, epochs=2, progress="silent", checkpoint_dir=tmp_path)] == [
        2,
        2,
    ]


@pytest.mark.parametrize("seeds", [(0, 1), (0,)])
def test_arrays_as_fit_takes_them(seeds, digits):
    x, y = (t[:120].numpy() for t in digits.train.tensors())
    run = dict(epochs=1, progress="silent", batch_size=50)
    apart, as_pair, validated = (trainers("ste", seeds) for _ in range(3))
    for made, data in ((apart, (x, y)), (as_pair, ((x, y),)), (validated, ((x, y), (x[:30], y[:30])))):
        histories = fit_together(made, *data, **run)
        assert len(histories) == len(seeds) and all(len(h) == 1 for h in histories)
    assert [t.history[0]["loss"] for t in apart] == [t.history[0]["loss"] for t in as_pair]
    assert all("val_loss" in t.history[0] for t in validated) and not any("val_loss" in t.history[0] for t in apart)


def test_names_that_the_joint_fit_would_pass_over(digits):
    run = dict(epochs=1, progress="silent", batch_size=50)
    x, y = (t[:120].numpy() for t in digits.train.tensors())
    named = trainers("ste", (0, 1))
    histories = fit_together(named, x, y, validation_data=(x[:30], y[:30]), **run)
    assert all("val_loss" in h[0] for h in histories)
    for seeds in ((0, 1), (0,)):
        with pytest.raises(TypeError, match="does not take validation_split, monitr: beside .* batch_size, drop_last"):
            fit_together(trainers("ste", seeds), x, y, validation_split=0.1, monitr="loss", **run)
    with pytest.raises(ValueError, match="given twice"):
        fit_together(trainers("ste", (0, 1)), digits.train, digits.val, validation_data=digits.val, **run)
