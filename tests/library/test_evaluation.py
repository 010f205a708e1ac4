"""Evaluation: in the memory of one batch, of models that were only loaded, and of what does not count."""

import weakref

import pytest
import torch
from torch import nn

from bayesbinn_nb.library.checkpoint import load_model, save_model
from bayesbinn_nb.library.data import ArrayData
from bayesbinn_nb.library.metrics import calibration, segmentation_scores
from bayesbinn_nb.library.models import build_model
from bayesbinn_nb.library.trainer import Trainer
from bayesbinn_nb.methods.bayesbinn import BayesBiNN
from bayesbinn_nb.methods.ste import STE


class Stream:
    "Batches made one by one; counts how many of them are alive"

    def __init__(self, n=12):
        self.n, self.alive, self.most = n, 0, 0

    def _gone(self):
        self.alive -= 1

    def __iter__(self):
        g = torch.Generator().manual_seed(1)
        for _ in range(self.n):
            x, y = torch.randn(8, 4, generator=g), torch.randint(0, 3, (8,), generator=g)
            self.alive += 1
            self.most = max(self.most, self.alive)
            weakref.finalize(x, self._gone)
            yield x, y


def trained(method=None):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    return Trainer(net, device="cpu").compile(method or BayesBiNN(init_lambda=0.5)).prepare(100)


@pytest.mark.parametrize(
    "how, call", [("mode", "evaluate"), ("mode", "predict"), ("sample", "predict"), ("mean", "evaluate")]
)
def test_a_single_pass_holds_one_batch(how, call):
    data, trainer = Stream(), trained()
    getattr(trainer, call)(data, how=how)
    assert data.most <= 2, "the batch that is used, and the one that is being made"


def test_several_passes_see_every_batch_through_one_network_each():
    data, trainer = Stream(), trained()
    draws, mean = trainer.predict(data, "sample", 3), trainer.predict(data, "mean", 3)
    whole = torch.cat([x for x, _ in Stream()])
    assert torch.allclose(draws, trainer.predict(whole, "sample", 3), atol=1e-6)
    assert torch.allclose(draws.mean(0), mean, atol=1e-6) and draws.std(0).mean() > 0.01


def test_an_empty_last_batch_is_passed_over():
    x, y = torch.randn(20, 4), torch.randint(0, 3, (20,))
    batches = [(x, y), (x[:0], y[:0])]
    trainer = trained(STE())
    assert trainer.evaluate(batches) == trainer.evaluate([(x, y)])
    assert torch.isfinite(torch.tensor(trainer.fit(batches, epochs=2, progress="silent").column("loss"))).all()
    with pytest.raises(ValueError, match="nothing to evaluate"):
        trainer.evaluate([(x[:0], y[:0])])


def test_a_model_from_a_file_is_scored_without_training(tmp_path):
    model = build_model("mnist_mlp", in_features=4, hidden=8, num_classes=3, dropout=0.0)
    data = ArrayData(torch.randn(60, 4), torch.randint(0, 3, (60,)))
    trainer = Trainer(model, device="cpu").compile(STE())
    trainer.fit(data, epochs=2, progress="silent")
    loaded = Trainer(load_model(save_model(model, tmp_path / "m")), device="cpu")
    assert loaded.evaluate(data) == trainer.evaluate(data)
    assert torch.equal(loaded.predict(data), trainer.predict(data))
    with pytest.raises(RuntimeError, match="needs a trained method"):
        loaded.predict(data, "mean", 3)
    with pytest.raises(RuntimeError, match="Call compile"):
        loaded.fit(data, epochs=1)


def test_targets_that_do_not_count_enter_no_score():
    x, y = torch.randn(90, 4), torch.randint(0, 3, (90,))
    marked = y.clone()
    marked[60:] = -100
    trainer = trained(STE())
    whole, part = trainer.evaluate(ArrayData(x, marked), batch_size=40), trainer.evaluate(ArrayData(x[:60], y[:60]))
    assert whole == pytest.approx(part, abs=1e-6)
    for data in (ArrayData(x, marked), [(x[:50], marked[:50]), (x[50:], marked[50:])]):
        row = trained(STE(lr=1e-12)).fit(data, epochs=1, batch_size=45, progress="silent")[0]
        counted = trained(STE(lr=1e-12)).fit(ArrayData(x, y), epochs=1, batch_size=45, progress="silent")[0]
        assert row["accuracy"] > 0.7 * counted["accuracy"], "a third counted as wrong would leave two thirds at most"
    with pytest.raises(ValueError, match="all of them are -100"):
        trained(STE()).fit(ArrayData(x[60:], marked[60:]), epochs=1, progress="silent")


def textbook(p, y, bins=15):
    "Bins (a, b], by hand"
    confidence, guess = p.double().max(1)
    right = (guess == y).double()
    which = (confidence * bins).ceil().long().clamp(1, bins) - 1
    return sum(
        float((which == b).double().mean() * abs(right[which == b].mean() - confidence[which == b].mean()))
        for b in which.unique()
    )


def test_a_confidence_of_one_belongs_to_the_last_bin():
    p, y = torch.tensor([[0.95, 0.05], [1.0, 0.0]]), torch.tensor([0, 1])
    assert calibration(p, y)["ece"] == pytest.approx(textbook(p, y))
    g = torch.Generator().manual_seed(0)
    logit = torch.cat([torch.full((1000,), 200.0), 3 + 3 * torch.rand(1000, generator=g)])
    p = torch.stack([logit, torch.zeros(2000)], 1).softmax(1)
    y = torch.cat([torch.tensor([1] * 100 + [0] * 900), torch.zeros(1000, dtype=torch.long)])
    assert calibration(p, y)["ece"] == pytest.approx(textbook(p, y), abs=1e-9)
    above = torch.tensor([[1.0000001, 0.0]] * 50 + [[0.9, 0.1]] * 50)
    assert calibration(above, torch.zeros(100, dtype=torch.long))["ece"] == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize("value", [0, 1])
def test_a_class_that_is_nowhere_is_not_missed(value):
    everywhere = torch.full((1, 4, 4), value)
    scores = segmentation_scores(everywhere, everywhere)
    assert scores["mean_iou"] == 1 and scores["score"] == 0 and scores["pixel_error"] == 0
    wrong = segmentation_scores(1 - everywhere, everywhere)
    assert wrong["cell_iou"] == wrong["membrane_iou"] == 0


def test_a_foreign_autocast_block_changes_nothing():
    data = ArrayData(torch.randn(60, 4), torch.randint(0, 3, (60,)))
    net = nn.Sequential(nn.Linear(4, 16, bias=False), nn.ReLU(), nn.Linear(16, 3, bias=False))
    method = BayesBiNN(init_lambda=0.1, temperature=1.0)
    trainer = Trainer(net, device="cpu", precision="bfloat16").compile(method).prepare(60)
    outside = trainer.predict(data, "sample", 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = trainer.predict(data, "sample", 4)
    assert torch.equal(outside, inside) and inside.std(0).mean() > 0.01
