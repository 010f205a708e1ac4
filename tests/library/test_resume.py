"""Going on: as often as it is stopped, with any loader, within an epoch, in the process that was interrupted."""

import random
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler

from bayesbinn_nb.library.checkpoint import load_checkpoint
from bayesbinn_nb.library.data import ArrayData
from bayesbinn_nb.library.resume import newest
from bayesbinn_nb.library.together import fit_together
from bayesbinn_nb.library.trainer import Callback, FlipRatio, Trainer
from bayesbinn_nb.methods.bayesbinn import BayesBiNN
from bayesbinn_nb.methods.bop import Bop
from bayesbinn_nb.methods.full_precision import FullPrecision
from bayesbinn_nb.methods.lrnet import LRNet
from bayesbinn_nb.methods.pmf import PMF
from bayesbinn_nb.methods.ste import STE

METHODS = {
    "bayesbinn": lambda: BayesBiNN(lr=1e-3, temperature=1.0, init_lambda=1.0, momentum=0.9),
    "bop": lambda: Bop(1e-2, 1e-4, decay=0.5),
    "ste": lambda: STE(lr=1e-2),
    "pmf": lambda: PMF(lr=1e-2, beta_every=3),
    "lrnet": lambda: LRNet(5e-2, lr_every=2),
    "real": lambda: FullPrecision(),
    "sgd": lambda: STE(optimizer=lambda p: torch.optim.SGD(p, 1e-2)),
    "adafactor": lambda: STE(optimizer=lambda p: torch.optim.Adafactor(p)),
    "asgd": lambda: STE(optimizer=lambda p: torch.optim.ASGD(p)),
}


def blobs(n=120):
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 3, (n,), generator=g)
    return ArrayData(torch.randn(n, 4, generator=g) + 3 * torch.eye(3, 4)[y], y)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.ReLU(), nn.Linear(16, 3))


def toy(method="ste", **kwargs):
    return Trainer(net(), device="cpu", **kwargs).compile(METHODS[method]())


def fit(trainer, epochs, data=None, **kwargs):
    settings = {"batch_size": 30, "progress": "silent"} | kwargs
    return trainer.fit(blobs() if data is None else data, epochs=epochs, **settings)


def measured(history):
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in history]


def same(a, b):
    assert measured(a.history) == measured(b.history)
    pairs = zip(a.model.state_dict().items(), b.model.state_dict().values(), strict=True)
    assert not [name for (name, p), q in pairs if not torch.equal(p, q)]


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_is_stopped_three_times_goes_on_three_times(method, tmp_path):
    for epochs in (1, 2, 3, 4):
        cut = toy(method)
        fit(cut, epochs, checkpoint_dir=tmp_path)
    whole = toy(method)
    fit(whole, 4)
    same(whole, cut)


RUN = textwrap.dedent(
    """
    import sys
    sys.path.insert(0, sys.argv[1])
    from test_resume import fit, measured, toy
    trainer = toy(sys.argv[2])
    fit(trainer, int(sys.argv[4]), checkpoint_dir=sys.argv[3])
    print(measured(trainer.history))
    """
)


@pytest.mark.parametrize("method", ["bayesbinn", "bop", "lrnet"])
def test_fresh_processes_go_on_as_well(method, tmp_path):
    here = str(__file__).rpartition("/")[0]
    for epochs in (1, 2, 3):
        call = [sys.executable, "-c", RUN, here, method, str(tmp_path), str(epochs)]
        said = subprocess.run(call, capture_output=True, text=True, timeout=300)
        assert said.returncode == 0, said.stderr[-500:]
    whole = toy(method)
    fit(whole, 3)
    assert said.stdout.strip() == str(measured(whole.history))


class Noisy(torch.utils.data.Dataset):
    "Every example is seen with noise of one kind"

    def __init__(self, kind):
        self.kind, self.own = kind, np.random.default_rng(5)
        self.x, self.y = blobs().tensors()

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        kinds = {"numpy": np.random.rand, "python": random.random, "own": self.own.random, "none": float}
        return self.x[i] + kinds[self.kind](), self.y[i]


def loader(kind="none", own=False, **settings):
    generator = torch.Generator().manual_seed(7)
    if own == "sampler":
        return DataLoader(Noisy(kind), batch_size=30, sampler=RandomSampler(range(120), generator=generator))
    return DataLoader(Noisy(kind), batch_size=30, shuffle=True, generator=generator if own else None, **settings)


@pytest.mark.parametrize(
    "kind, own, settings",
    [
        ("none", False, {}),
        ("none", True, {}),
        ("none", "sampler", {}),
        ("numpy", False, {}),
        ("python", False, {}),
        ("own", False, {}),
        ("numpy", True, {"num_workers": 1}),
    ],
)
def test_any_loader_goes_on_with_the_same_batches(kind, own, settings, tmp_path):
    whole, cut = toy(), None
    fit(whole, 4, loader(kind, own, **settings))
    for epochs in (2, 4):
        cut = toy()
        np.random.seed(epochs)  # another process has other global states
        random.seed(epochs)
        fit(cut, epochs, loader(kind, own, **settings), checkpoint_dir=tmp_path)
    same(whole, cut)


def test_training_leaves_all_global_generators_alone():
    np.random.seed(3)
    random.seed(3)
    torch.manual_seed(3)
    trainer, data = toy(), loader("numpy")
    before = (np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist())
    fit(trainer, 1, data)
    assert before == (np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist())


def test_persistent_workers_are_refused_where_a_run_shall_go_on(tmp_path):
    data = loader(num_workers=1, persistent_workers=True)
    with pytest.raises(ValueError, match="persistent_workers=False, or no checkpoint_dir"):
        fit(toy(), 1, data, checkpoint_dir=tmp_path)
    assert not list(tmp_path.iterdir())


class CtrlC(Callback):
    "Ctrl-C after a step, once"

    def __init__(self, epoch, step):
        self.at, self.done = (epoch, step), False

    def on_batch_end(self, trainer, logs):
        if not self.done and (logs["epoch"], logs["step"]) == self.at:
            self.done = True
            raise KeyboardInterrupt

    def state_dict(self):
        return {}


@pytest.mark.parametrize("epoch", [1, 3])
@pytest.mark.parametrize("seconds", [0.0, 1e9])
@pytest.mark.parametrize("data", [blobs, loader])
def test_after_ctrl_c_the_same_process_goes_on_from_the_epochs_start(epoch, seconds, data, tmp_path):
    whole, cut = toy("bayesbinn"), toy("bayesbinn")
    fit(whole, 4, data(), callbacks=[FlipRatio()])
    source = data()
    settings = {"callbacks": [FlipRatio(), CtrlC(epoch, 1)], "checkpoint_dir": tmp_path, "checkpoint_seconds": seconds}
    with pytest.raises(KeyboardInterrupt):
        fit(cut, 4, source, **settings)
    fit(cut, 4, source, **settings)
    same(whole, cut)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.pt"]


@pytest.mark.parametrize("folder", ["run", None])
def test_without_a_folder_a_broken_epoch_is_said_to_be_half_trained(folder, tmp_path):
    trainer = toy()
    with pytest.raises(KeyboardInterrupt):
        fit(trainer, 3, callbacks=[CtrlC(2, 1)])
    with pytest.warns(UserWarning, match="Epoch 2 was broken off"):
        fit(trainer, 3, checkpoint_dir=folder and tmp_path / folder)
    assert len(trainer.history) == 3


@pytest.mark.parametrize("method", ["bayesbinn", "bop", "ste", "pmf", "lrnet", "real"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_that_is_killed_within_an_epoch_goes_on_within_it(method, precision, tmp_path):
    def new():
        trainer = Trainer(net(), device="cpu", precision=precision).compile(
            METHODS[method](),
            scheduler=None if method in ("pmf", "lrnet") else lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
            scheduler_step="step",
        )
        return trainer

    whole = new()
    fit(whole, 3, callbacks=[FlipRatio()])
    for epoch, step in ((1, 1), (2, 2), (2, 3), (3, 0)):
        cut = new()
        settings = {"callbacks": [FlipRatio(), CtrlC(epoch, step)], "checkpoint_dir": tmp_path}
        with pytest.raises(KeyboardInterrupt):
            fit(cut, 3, checkpoint_seconds=1e-9, **settings)
        _, state = newest(tmp_path)
        place = state.get("place") or {"step": 0}
        assert (len(state["history"]), place["step"]) == (epoch - 1, step), "up to the step before the kill"
    cut = new()
    fit(cut, 3, callbacks=[FlipRatio()], checkpoint_dir=tmp_path)
    same(whole, cut)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.pt"]


def test_the_checkpoint_waits_for_a_foreign_loader_and_for_a_callback_that_cannot_remember(tmp_path):
    class Forgetful(Callback):
        def on_epoch_begin(self, trainer, logs):
            self.begun = True

    for name, data, callbacks in (("a", loader(), []), ("b", blobs(), [Forgetful()])):
        with pytest.raises(KeyboardInterrupt):
            fit(
                toy(),
                3,
                data,
                callbacks=[*callbacks, CtrlC(2, 2)],
                checkpoint_dir=tmp_path / name,
                checkpoint_seconds=1e-9,
            )
        path, state = newest(tmp_path / name)
        assert len(state["history"]) <= 1 and state.get("place") is None


def test_networks_side_by_side_go_on_within_an_epoch(tmp_path):
    def new():
        made = []
        for seed in range(2):
            torch.manual_seed(seed)
            layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
            made.append(Trainer(layers, device="cpu", seed=seed).compile(METHODS["bayesbinn"]()))
        return made

    settings = {"epochs": 2, "batch_size": 30, "progress": "silent"}
    whole, cut = new(), new()
    fit_together(whole, blobs(), **settings)
    with pytest.raises(KeyboardInterrupt):
        fit_together(
            new(), blobs(), callbacks=[CtrlC(2, 2)], checkpoint_dir=tmp_path, checkpoint_seconds=1e-9, **settings
        )
    assert newest(tmp_path)[1]["place"]["step"] == 2
    fit_together(cut, blobs(), checkpoint_dir=tmp_path, **settings)
    for a, b in zip(whole, cut, strict=True):
        same(a, b)


def test_a_killed_process_goes_on_within_its_epoch(tmp_path):
    script = textwrap.dedent(
        """
        import os, signal, sys
        sys.path.insert(0, sys.argv[1])
        from test_resume import Callback, fit, toy
        class Kill(Callback):
            def on_batch_end(self, trainer, logs):
                if (logs["epoch"], logs["step"]) == (2, int(sys.argv[3])):
                    os.kill(os.getpid(), signal.SIGKILL)
            def state_dict(self): return {}
        fit(toy("bayesbinn"), 3, callbacks=[Kill()], checkpoint_dir=sys.argv[2], checkpoint_seconds=1e-9)
        """
    )
    here = str(__file__).rpartition("/")[0]
    for step in (1, 2, 3):
        done = subprocess.run([sys.executable, "-c", script, here, str(tmp_path), str(step)], timeout=300)
        assert done.returncode == -signal.SIGKILL and newest(tmp_path)[1]["place"]["step"] == step
    whole, cut = toy("bayesbinn"), toy("bayesbinn")
    fit(whole, 3)
    fit(cut, 3, checkpoint_dir=tmp_path)
    same(whole, cut)


# ---- what is measured, and when


class Score(Callback):
    "A score of its own, in some epochs"

    def __init__(self, value, epochs=lambda epoch: True):
        self.value, self.epochs = value, epochs

    def on_epoch_end(self, trainer, logs):
        if self.epochs(logs["epoch"]):
            logs["mine"] = self.value(logs["epoch"])


def test_nan_in_the_first_epoch_does_not_stay_the_best(tmp_path):
    trainer = toy()
    score = Score(lambda epoch: float("nan") if epoch == 1 else 1 / epoch)
    fit(trainer, 4, callbacks=[score], checkpoint_dir=tmp_path, monitor="mine", monitor_mode="min")
    assert trainer.history.best("mine", "min")["epoch"] == 4
    assert len(load_checkpoint(tmp_path / "best.pt")["history"]) == 4


def test_a_callback_may_measure_less_often_than_fit(tmp_path):
    def seldom(epoch):
        return epoch == 3

    trainer = toy()
    fit(
        trainer,
        4,
        val=blobs(),
        callbacks=[Score(float, seldom)],
        monitor="mine",
        evaluate_every=2,
        checkpoint_dir=tmp_path,
    )
    assert len(load_checkpoint(tmp_path / "best.pt")["history"]) == 3
    assert [row["epoch"] for row in trainer.history if "val_loss" in row] == [2, 4]
    with pytest.raises(ValueError, match="monitor='yours' is not measured"):
        fit(toy(), 2, callbacks=[Score(float)], monitor="yours")


def test_a_callback_can_ask_when_measures_are_expected():
    asked = []

    class Ask(Callback):
        def on_epoch_end(self, trainer, logs):
            asked.append(trainer.evaluates(logs["epoch"]))

    fit(toy(), 5, callbacks=[Ask()], evaluate_every=2)
    assert asked == [False, True, False, True, True]


class Spoil(Callback):
    def on_batch_end(self, trainer, logs):
        if logs["epoch"] == 2 and logs["step"] == 3:
            trainer.method.optimizer.natural_parameters()[1][0, 0] = float("inf")


def test_an_infinite_lambda_is_named_though_the_weights_look_fine(tmp_path):
    with pytest.raises(FloatingPointError, match="After epoch 2, lam of 4.weight is no longer finite.*last good state"):
        fit(toy("bayesbinn"), 3, callbacks=[Spoil()], checkpoint_dir=tmp_path)
    assert len(load_checkpoint(tmp_path / "last.pt")["history"]) == 1


# ---- data that grow, layers that thaw, states that are handed over


def test_n_follows_the_data_and_says_so(tmp_path):
    trainer = toy("bayesbinn")
    fit(trainer, 1, blobs(60))
    with pytest.warns(UserWarning, match="120 examples and had 60"):
        fit(trainer, 2, checkpoint_dir=tmp_path)
    assert trainer.method.optimizer.param_groups[0]["train_size"] == 120 == trainer.method.train_size
    again = toy("bayesbinn")
    fit(again, 3, checkpoint_dir=tmp_path)
    assert len(again.history) == 3, "the folder belongs to the larger set now"


@pytest.mark.parametrize("method", [BayesBiNN(lr=1e-3, train_size=500), BayesBiNN(lr=1e-3)])
def test_an_n_that_was_given_stays(method):
    trainer, before = Trainer(net(), device="cpu").compile(method), method.own_train_size or 60
    if not method.own_train_size:
        trainer.prepare(60)
    fit(trainer, 1, blobs(60))
    fit(trainer, 2)  # a warning would be an error here
    assert method.optimizer.param_groups[0]["train_size"] == before


def test_a_fit_with_nothing_to_do_says_so(tmp_path):
    trainer = toy()
    fit(trainer, 2, checkpoint_dir=tmp_path)
    with pytest.warns(UserWarning, match=r"fit\(epochs=4\) would train 2 more"):
        fit(trainer, 2)
    fit(toy(), 2, checkpoint_dir=tmp_path)  # a finished run that is started again is no surprise


def test_a_layer_that_thaws_later_is_refused():
    trainer = toy()
    trainer.model[0].weight.requires_grad_(False)
    fit(trainer, 1)
    trainer.model[0].weight.requires_grad_(True)
    with pytest.raises(ValueError, match="0.weight was frozen when this run began"):
        fit(trainer, 2)
    fit(trainer.compile(STE(lr=1e-2)), 2)


def states(method):
    for o in method.optimizers():
        for s in o.state.values():
            for k, v in s.items():
                if isinstance(v, torch.Tensor):
                    yield type(o).__name__, k, v


@pytest.mark.parametrize("method", ["bayesbinn", "ste", "pmf", "real"])
def test_trainers_that_trained_together_share_nothing(method):
    def second(first_goes_on):
        made = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
            made.append(Trainer(layers, device="cpu", seed=seed).compile(METHODS[method]()))
        fit_together(made, blobs(), epochs=2, batch_size=30, progress="silent")
        before = [v.clone() for *_, v in states(made[1].method)]
        if first_goes_on:
            fit(made[0], 6)
        assert all(torch.equal(a, v) for a, (*_, v) in zip(before, states(made[1].method), strict=True))
        return fit(made[1], 4).column("loss")[2:]

    assert second(False) == second(True)
