"""The recorded step: its bookkeeping on a CPU, with a graph that simply makes the step again when it is replayed."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bayesbinn_nb.library import replay
from bayesbinn_nb.library.data import ArrayData, CropFlip
from bayesbinn_nb.library.replay import ReplayedStep, is_capturable
from bayesbinn_nb.library.trainer import Trainer
from bayesbinn_nb.methods.bayesbinn import BayesBiNN
from bayesbinn_nb.methods.ste import STE


@pytest.fixture
def no_gpu(monkeypatch):
    "Streams that do nothing; a recording that notes its key, and is replayed by making the step"
    stream, recorded = SimpleNamespace(wait_stream=lambda other: None), []
    monkeypatch.setattr(replay.torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(replay.torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(replay.torch.cuda, "stream", lambda s: nullcontext())

    def record(self):
        self.key = self.method.graph_key()
        recorded.append(self.key)
        return SimpleNamespace(replay=self._step)

    monkeypatch.setattr(ReplayedStep, "_record", record)
    return recorded


def pictures():
    g = torch.Generator().manual_seed(0)
    return ArrayData(torch.randn(70, 1, 4, 4, generator=g), torch.arange(70) % 3, augmentation=CropFlip(1))


def new(method):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    return Trainer(model, device="cpu").compile(method()).prepare(70)


def batches(data):
    order = torch.Generator().manual_seed(1)
    return data.batches(10, shuffle=True, generator=order, augment=True), data.batches(
        16, shuffle=True, generator=order
    )


@pytest.mark.parametrize(
    "method", [lambda: BayesBiNN(lr=1e-3, samples=2), lambda: STE(lr=1e-2)], ids=["bayesbinn", "ste"]
)
def test_a_replayed_epoch_makes_the_steps_of_an_eager_one(method, no_gpu):
    for which in (0, 1):  # with augmentation and full batches; with a smaller one at the end
        no_gpu.clear()
        data, eager, other = pictures(), new(method), new(method)
        recorder = ReplayedStep(other._train_step, other.method, data)
        for _ in range(2):
            sums, again = torch.zeros(2), torch.zeros(2)
            seen = sum(eager._train_step(x, y, sums) for x, y in batches(data)[which])
            assert recorder.epoch(batches(data)[which], again) == seen
            torch.testing.assert_close(again, sums)
        assert len(no_gpu) == 1, "recorded once, after three steps as usual"
        for (name, a), b in zip(eager.model.state_dict().items(), other.model.state_dict().values(), strict=True):
            assert torch.equal(a, b), name


def test_another_rate_is_recorded_anew(no_gpu, monkeypatch):
    data, trainer, rate = pictures(), new(lambda: STE(lr=1e-2)), [0.1]
    monkeypatch.setattr(type(trainer.method), "graph_key", lambda self: tuple(rate))
    recorder = ReplayedStep(trainer._train_step, trainer.method, data)
    for rate[0] in (0.1, 0.1, 0.05):
        recorder.epoch(batches(data)[0], torch.zeros(2))
    assert no_gpu == [(0.1,), (0.05,)]


def test_what_waits_for_the_host_is_not_recorded():
    waits = new(lambda: STE(optimizer=lambda p: torch.optim.Adam(p, capturable=False)))
    assert not is_capturable(waits.method)
