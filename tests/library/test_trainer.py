"""The trainer: a killed run goes on to the last bit, callbacks and errors do what they say."""

import os
import signal
import subprocess
import sys
import textwrap
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bayesbinn_nb.library.checkpoint import load_checkpoint
from bayesbinn_nb.library.data import ArrayData, load_data
from bayesbinn_nb.library.models import build_model
from bayesbinn_nb.library.trainer import (
    Callback,
    CSVLogger,
    FlipRatio,
    Progress,
    StopWhenStill,
    TensorBoardLogger,
    Trainer,
)
from bayesbinn_nb.methods.bayesbinn import BayesBiNN
from bayesbinn_nb.methods.bop import Bop
from bayesbinn_nb.methods.full_precision import FullPrecision
from bayesbinn_nb.methods.lrnet import LRNet
from bayesbinn_nb.methods.pmf import PMF
from bayesbinn_nb.methods.ste import STE

RUN = textwrap.dedent(
    """
    import sys, torch
    from bayesbinn_nb.library.data import load_data
    from bayesbinn_nb.library.models import build_model
    from bayesbinn_nb.library.trainer import FlipRatio, Trainer
    from bayesbinn_nb.methods.bayesbinn import BayesBiNN
    from bayesbinn_nb.methods.ste import STE

    torch.set_num_threads(1)
    digits = load_data("digits")
    method = {"bayesbinn": lambda: BayesBiNN(lr=1e-4), "ste": lambda: STE(lr=1e-2)}[sys.argv[1]]()
    trainer = Trainer(build_model("mnist_mlp", in_features=64, hidden=64), device="cpu", seed=3).compile(
        method, scheduler=lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 30, 1e-16))
    trainer.fit(digits.train, digits.val, epochs=int(sys.argv[3]), callbacks=[FlipRatio()], progress="line", checkpoint_dir=sys.argv[2])
    print("done")
    """  # noqa: E501
)


@pytest.mark.parametrize("method", ["bayesbinn", "ste"])
def test_kill_minus_nine_and_resume_is_bit_identical(tmp_path, method):
    script = tmp_path / "run.py"
    script.write_text(RUN)
    epochs = 25

    def start(folder):
        return subprocess.Popen(
            [sys.executable, str(script), method, str(tmp_path / folder), str(epochs)],
            stdout=subprocess.PIPE,
            text=True,
        )

    whole = start("whole")
    assert "done" in whole.communicate(timeout=240)[0] and whole.returncode == 0
    cut = start("cut")
    for line in cut.stdout:
        if line.startswith("epoch 3/"):
            break
    os.kill(cut.pid, signal.SIGKILL)
    cut.communicate()
    assert cut.returncode == -signal.SIGKILL
    reached = len(load_checkpoint(tmp_path / "cut" / "last.pt")["history"])
    assert 2 <= reached < epochs, "the run was to be killed on its way"
    again = start("cut")
    assert "done" in again.communicate(timeout=240)[0]

    a, b = (load_checkpoint(tmp_path / folder / "last.pt") for folder in ("whole", "cut"))

    def clean(h):
        return [{k: v for k, v in row.items() if "seconds" not in k} for row in h]

    assert clean(a["history"]) == clean(b["history"])
    assert all(torch.equal(a["model"][k], b["model"][k]) for k in a["model"])
    best_a, best_b = (load_checkpoint(tmp_path / folder / "best.pt") for folder in ("whole", "cut"))
    assert all(torch.equal(best_a["model"][k], best_b["model"][k]) for k in best_a["model"])


def toy(method=None, **kwargs):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    return Trainer(net, device="cpu", seed=0, **kwargs).compile(method or STE(lr=1e-2))


def blobs(n=300):
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 3, (n,), generator=g)
    return ArrayData(torch.randn(n, 4, generator=g) + 3 * torch.eye(3, 4)[y], y)


def test_seeds_decide_everything_and_the_global_state_is_left_alone():
    results = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        state = torch.get_rng_state()
        trainer = toy(BayesBiNN(lr=1e-3, temperature=1.0, init_lambda=1.0))
        torch.set_rng_state(state)
        history = trainer.fit(blobs(), epochs=3, batch_size=32, progress="silent")
        assert torch.equal(torch.get_rng_state(), state)
        results.append([row["loss"] for row in history])
    assert results[0] == results[1]


def test_best_checkpoint_is_the_best_validation_epoch(tmp_path):
    digits = load_data("digits")
    trainer = Trainer(build_model("mnist_mlp", in_features=64, hidden=32), device="cpu", seed=1).compile(STE(lr=1e-2))
    history = trainer.fit(
        digits.train, digits.val, epochs=6, progress="silent", checkpoint_dir=tmp_path, checkpoint_seconds=1e9
    )
    best = load_checkpoint(tmp_path / "best.pt")
    assert len(best["history"]) == history.best("val_accuracy")["epoch"]
    assert len(load_checkpoint(tmp_path / "last.pt")["history"]) == 6
    trainer.load(tmp_path / "best.pt")
    assert trainer.evaluate(digits.val)["accuracy"] == pytest.approx(history.best("val_accuracy")["val_accuracy"])


def test_any_iterable_of_batches_trains():
    data = blobs()
    trainer = toy()
    trainer.fit(DataLoader(TensorDataset(data.x, data.y), batch_size=30), epochs=5, progress="silent")
    assert trainer.method.train_size == 300 and trainer.evaluate(data)["accuracy"] > 0.8


@pytest.mark.parametrize(
    "method",
    [
        lambda: BayesBiNN(lr=1e-3, temperature=1.0, init_lambda=1.0),
        lambda: STE(lr=1e-2),
        lambda: FullPrecision(lr=1e-2),
    ],
)
def test_bfloat16_trains_and_leaves_float32_weights(method):
    trainer = toy(method(), precision="bfloat16")
    trainer.fit(blobs(), epochs=15, batch_size=30, progress="silent")
    assert trainer.evaluate(blobs())["accuracy"] > 0.8
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())


def test_loggers_and_progress(tmp_path, capsys):
    callbacks = [FlipRatio(), CSVLogger(tmp_path / "log.csv"), TensorBoardLogger(tmp_path / "tb")]
    toy().fit(blobs(), epochs=3, callbacks=callbacks, progress="line")
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert len(lines) == 4 and "flip_ratio" in lines[0]
    assert list((tmp_path / "tb").iterdir())
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["1/3", "2/3", "3/3"]
    with pytest.raises(ValueError, match="style must be"):
        Progress("loud")


def test_stopping_when_no_weight_flips():
    trainer = Trainer(nn.Sequential(nn.Linear(4, 3)), device="cpu").compile(STE(lr=1e-12))
    history = trainer.fit(blobs(), epochs=50, callbacks=[FlipRatio(), StopWhenStill(4)], progress="silent")
    assert len(history) == 4 and history[-1]["flipped"] == 0


def test_mean_prediction_averages_probabilities():
    trainer = toy(BayesBiNN(lr=1e-3, temperature=1.0, init_lambda=0.5))
    trainer.fit(blobs(), epochs=3, progress="silent")
    draws, mean = trainer.predict(blobs(), "sample", 5), trainer.predict(blobs(), "mean", 5)
    assert torch.allclose(draws.mean(0), mean, atol=1e-6) and torch.allclose(mean.sum(1), torch.ones(300), atol=1e-5)
    scored = trainer.evaluate(blobs(), how="mean", samples=5)
    assert scored["accuracy"] == pytest.approx((mean.argmax(1) == blobs().y).float().mean().item())


def test_a_loss_that_is_not_a_number_stops_and_keeps_the_checkpoint(tmp_path):
    class Spoil(Callback):
        def on_epoch_begin(self, trainer, logs):
            if logs["epoch"] == 3:
                trainer.model[3].bias.data.fill_(float("nan"))

    trainer = toy()
    with pytest.raises(FloatingPointError, match="training loss is nan in epoch 3.*last good state"):
        trainer.fit(blobs(), epochs=5, callbacks=[Spoil()], progress="silent", checkpoint_dir=tmp_path)
    assert len(load_checkpoint(tmp_path / "last.pt")["history"]) == 2


def test_a_checkpoint_of_another_seed_or_method_is_refused(tmp_path):
    toy().fit(blobs(), epochs=1, progress="silent", checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="belongs to seed 0"):
        Trainer(nn.Linear(4, 3), device="cpu", seed=7).compile(STE()).load(tmp_path / "last.pt")
    with pytest.raises(ValueError, match="saved by the method 'ste'"):
        toy(BayesBiNN()).load(tmp_path / "last.pt")


def test_importing_the_library_needs_no_notebook_package():
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('matplotlib', 'seaborn', 'papermill', 'nbformat', 'nbdev', 'fastcore', 'IPython', 'IPython.display'):
            raise ImportError(name + ' must not be needed')
sys.meta_path.insert(0, Block())
import bayesbinn_nb.library.trainer, bayesbinn_nb.library.packing, bayesbinn_nb.library.recipes, bayesbinn_nb.library.plots
import bayesbinn_nb.methods.lrnet, bayesbinn_nb.methods.pmf, bayesbinn_nb.methods.bop
"""  # noqa: E501
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# ---- an object or a folder that is used twice

BLOBS = {}


def blobs(n=300):
    if n not in BLOBS:
        g = torch.Generator().manual_seed(0)
        y = torch.randint(0, 3, (n,), generator=g)
        BLOBS[n] = ArrayData(torch.randn(n, 4, generator=g) + 3 * torch.eye(3, 4)[y], y)
    return BLOBS[n]


def fit(trainer, epochs=3, data=None, **kwargs):
    return trainer.fit(blobs() if data is None else data, epochs=epochs, batch_size=32, progress="silent", **kwargs)


def test_compiling_again_starts_anew():
    trainer = toy(BayesBiNN(lr=1e-3))
    fit(trainer)
    history = fit(trainer.compile(STE(lr=1e-2)), 5)
    assert len(history) == 5 and not any("posterior_entropy" in row for row in history)
    assert trainer.evaluate(blobs())["accuracy"] > 0.8


def test_a_method_trains_one_model_and_pmf_begins_anew():
    method = PMF(lr=1e-2, beta_every=5)
    trainer = toy(method)
    first = fit(trainer)[0]["beta"]
    with pytest.raises(ValueError, match="already trains another model: build a new method"):
        fit(toy(method))
    assert fit(trainer.compile(method))[0]["beta"] == first


def COSINE(epochs):
    return lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, epochs)


@pytest.mark.parametrize(
    "first, other, said",
    [
        (
            lambda t: t.compile(STE()),
            lambda t: t.compile(STE(clip_weights=0.1)),
            "method: clip_weights was 1.0 there and is 0.1 here",
        ),
        (
            lambda t: t.compile(STE()),
            lambda t: t.compile(STE(clip_gradients=0.5)),
            "method: clip_gradients was None there and is 0.5 here",
        ),
        (
            lambda t: t.compile(PMF()),
            lambda t: t.compile(PMF(beta_growth=1.05)),
            "method: beta_growth was 1.2 there and is 1.05 here",
        ),
        (lambda t: t.compile(PMF()), lambda t: t.compile(PMF(beta=2.0)), "method: beta was 1.0 there and is 2.0 here"),
        (
            lambda t: t.compile(Bop(1e-2, 1e-4)),
            lambda t: t.compile(Bop(1e-2, 1e-4, decay=0.1)),
            "method: decay was 1.0 there and is 0.1 here",
        ),
        (
            lambda t: t.compile(STE(), scheduler=COSINE(500)),
            lambda t: t.compile(STE(), scheduler=COSINE(10)),
            "schedule: T_max was 500 there and is 10 here",
        ),
        (
            lambda t: t.compile(STE()),
            lambda t: t.compile(STE(), scheduler=COSINE(10)),
            "schedule: kind was None there and is 'CosineAnnealingLR' here",
        ),
    ],
)
def test_every_setting_counts_when_a_run_goes_on(tmp_path, first, other, said):
    fit(first(toy()), checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match=said):
        fit(other(toy()), 4, checkpoint_dir=tmp_path)
    assert (
        len(fit(first(toy()), 4, checkpoint_dir=tmp_path)) == 4
    )  # PMF's beta has grown since, the cosine has moved on: still the same run


def test_a_checkpoint_that_knows_fewer_settings_goes_on(tmp_path):
    fit(toy(), checkpoint_dir=tmp_path)
    state = load_checkpoint(tmp_path / "last.pt")
    state["settings"] = {k: v for k, v in state["settings"].items() if ": " not in k}
    torch.save(state, tmp_path / "last.pt")
    assert len(fit(toy(), 4, checkpoint_dir=tmp_path)) == 4


@pytest.mark.parametrize("metric, best", [("top1", max), ("pixel_error", min)])
def test_best_is_large_unless_the_name_says_error(tmp_path, metric, best):
    values = iter([0.3, 0.5, 0.2, 0.4])
    trainer = toy().compile(STE(), metrics={metric: lambda out, y: torch.full((len(y),), float("nan"))})
    trainer.evaluate = lambda split: {metric: next(values)}
    fit(trainer, 4, val=blobs(), checkpoint_dir=tmp_path)
    assert load_checkpoint(tmp_path / "best.pt")["history"][-1][f"val_{metric}"] == best([0.3, 0.5, 0.2, 0.4])


def test_the_size_of_the_data_is_what_the_sampler_draws_from():
    data = TensorDataset(*blobs().tensors())
    loader = DataLoader(data, batch_size=10, sampler=torch.utils.data.SubsetRandomSampler(range(40)))
    method = BayesBiNN(lr=1e-3)
    toy().compile(method).fit(loader, epochs=1, progress="silent")
    assert method.train_size == 40 and method.optimizer.param_groups[0]["train_size"] == 40


@pytest.mark.parametrize(
    "other, said",
    [
        (lambda: (STE(lr=1e-9), blobs()), "lr was 0.01 there and is 1e-09 here"),
        (lambda: (STE(lr=1e-2), blobs(50)), "train_size was 300 there and is 50 here"),
    ],
)
def test_a_folder_of_other_settings_is_refused(tmp_path, other, said):
    fit(toy(), checkpoint_dir=tmp_path)
    method, data = other()
    with pytest.raises(ValueError, match=said):
        fit(toy(method), 4, data, checkpoint_dir=tmp_path)
    assert len(fit(toy(), 4, checkpoint_dir=tmp_path)) == 4


def test_another_methods_checkpoint_changes_nothing(tmp_path):
    trainer = toy()
    fit(trainer)
    trainer.save(tmp_path / "ste.pt")
    other = toy(Bop(1e-2, 1e-4)).prepare(300)
    before = [p.clone() for p in other.model.parameters()]
    with pytest.raises(ValueError, match="saved by the method 'ste'"):
        other.load(tmp_path / "ste.pt")
    assert all(torch.equal(a, b) for a, b in zip(before, other.model.parameters()))


def test_no_damaged_checkpoint_loads(tmp_path):
    trainer = toy()
    fit(trainer, 1)
    whole = trainer.save(tmp_path / "whole.pt").read_bytes()

    def same(a, b):
        return str(a) == str(b)

    right, draw = load_checkpoint(tmp_path / "whole.pt"), torch.Generator().manual_seed(0)
    for place in torch.randint(0, len(whole), (40,), generator=draw).tolist():
        (tmp_path / "cut.pt").write_bytes(whole[:place])
        with pytest.raises(ValueError, match="cut.pt is not a readable checkpoint"):
            load_checkpoint(tmp_path / "cut.pt")
        (tmp_path / "bad.pt").write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            assert same(load_checkpoint(tmp_path / "bad.pt"), right)  # a byte that nobody reads
        except ValueError as e:
            assert "bad.pt is not a readable checkpoint" in str(e)
    assert (tmp_path / "whole.pt").stat().st_mode & 0o044 == 0o044 & ~umask()


def test_a_torch_file_that_is_no_checkpoint_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "last.pt")
    for call in (lambda: toy().load(tmp_path / "last.pt"), lambda: fit(toy(), checkpoint_dir=tmp_path)):
        with pytest.raises(ValueError, match="not a readable checkpoint .TypeError.: it is damaged or of another kind"):
            call()


def umask():
    found = os.umask(0)
    os.umask(found)
    return found


class Interrupt(Callback):
    "Ctrl-C in the middle of an epoch, once"

    def __init__(self, epoch):
        self.epoch, self.done = epoch, False

    def on_batch_end(self, trainer, logs):
        if not self.done and logs["epoch"] == self.epoch and logs["step"] == 2:
            self.done = True
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "method",
    [
        lambda: BayesBiNN(lr=1e-3, samples=3),
        lambda: STE(lr=1e-2),
        lambda: FullPrecision(),
        lambda: LRNet(5e-2, lr_every=2),
    ],
    ids=["bayesbinn", "ste", "real", "lrnet"],
)
def test_an_interrupted_epoch_begins_once(tmp_path, method):
    rates = []
    for interrupted in (False, True):
        trainer = toy(method())
        trainer.scheduler_factory = lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 4)
        if interrupted:
            with pytest.raises(KeyboardInterrupt):
                fit(trainer, 4, callbacks=[Interrupt(3)])
            trainer.save(tmp_path / "between.pt")
        told = pytest.warns(UserWarning, match="Epoch 3 was broken off") if interrupted else nullcontext()
        with told:
            fit(trainer, 4)
        rates.append(
            (trainer.history.column("lr"), [g["lr"] for o in trainer.method.optimizers() for g in o.param_groups])
        )
    assert rates[0] == rates[1]


@pytest.mark.parametrize(
    "method",
    [lambda: BayesBiNN(lr=1e-3, samples=3), lambda: STE(lr=1e-2), lambda: FullPrecision()],
    ids=["bayesbinn", "ste", "real"],
)
def test_a_step_that_is_broken_off_leaves_no_gradient(method):
    trainer = toy(method())
    fit(trainer, 1)
    right, calls = trainer.metrics["accuracy"], []

    def metric(out, y):  # measured after the backward pass
        calls.append(1)
        return right(out, y) if len(calls) % 2 else (_ for _ in ()).throw(KeyboardInterrupt())

    trainer.metrics["accuracy"] = metric
    with pytest.raises(KeyboardInterrupt):
        fit(trainer, 2)
    assert all(p.grad is None for p in trainer.model.parameters()) and trainer.method.passes == 0
    assert all(p.grad is None for o in trainer.method.optimizers() for g in o.param_groups for p in g["params"])


def test_a_run_that_stopped_stays_stopped(tmp_path):
    def go():
        return len(fit(toy(STE(lr=1e-12)), 30, callbacks=[FlipRatio(), StopWhenStill(4)], checkpoint_dir=tmp_path))

    assert go() == go() < 30


def test_two_callbacks_of_a_kind_keep_their_own_state(tmp_path):
    def make():
        return [FlipRatio(), StopWhenStill(50), StopWhenStill(60)]

    first = make()
    fit(toy(STE(lr=1e-12)), 3, callbacks=first, checkpoint_dir=tmp_path)
    first[1].still, first[2].still = 7, 9
    trainer = toy(STE(lr=1e-12))
    fit(trainer, 3, checkpoint_dir=tmp_path)
    trainer.save(tmp_path / "x.pt", first)
    second = make()
    toy(STE(lr=1e-12)).load(tmp_path / "x.pt", second)
    assert (second[1].still, second[2].still) == (7, 9)


def test_a_schedule_given_as_a_function_resumes(tmp_path):
    def run(*epochs):
        for e in epochs:
            trainer = toy()
            trainer.scheduler_factory = lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda k: 0.9**k)
            fit(trainer, e, checkpoint_dir=tmp_path / str(len(epochs)))
        return trainer

    whole, cut = run(4), run(2, 4)
    assert whole.history.column("lr") == cut.history.column("lr")
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), cut.model.parameters()))
    with pytest.raises(TypeError, match="ReduceLROnPlateau waits for a measure"):
        trainer = toy()
        trainer.scheduler_factory = torch.optim.lr_scheduler.ReduceLROnPlateau
        fit(trainer)


@pytest.mark.parametrize(
    "method",
    [
        lambda: BayesBiNN(),
        lambda: STE(),
        lambda: Bop(1e-2, 1e-4),
        lambda: PMF(1e-2),
        lambda: LRNet(5e-2),
        lambda: FullPrecision(),
    ],
    ids=["bayesbinn", "ste", "bop", "pmf", "lrnet", "real"],
)
def test_a_frozen_layer_stays_as_it_is(method):
    trainer = toy(method())
    layer = trainer.model[0]
    layer.weight.requires_grad_(False)
    before = layer.weight.clone()
    fit(trainer, 1)
    assert torch.equal(before, trainer.model[0].weight)


@pytest.mark.parametrize(
    "call, error, said",
    [
        (
            lambda t: fit(t, val=blobs(), monitor="val_acc"),
            ValueError,
            "monitor='val_acc' is not measured; there are .*val_accuracy",
        ),
        (lambda t: fit(t, val=blobs(), monitor_mode="maximum"), ValueError, "monitor_mode must be 'max' or 'min'"),
        (lambda t: fit(t).best("accuracy", "maximum"), ValueError, "mode must be 'max' or 'min'"),
        (lambda t: fit(t, evaluate_every=0), ValueError, "evaluate_every must be a positive integer"),
        (lambda t: Progress("line", every=0), ValueError, "every must be a positive integer"),
        (lambda t: fit(t, data=ArrayData(torch.zeros(4, 4), None)), ValueError, "The training data have no targets"),
        (
            lambda t: fit(t) and t.evaluate(ArrayData(torch.zeros(4, 4), None)),
            ValueError,
            "The evaluation data have no targets",
        ),
        (lambda t: fit(t, data=blobs().tensors()), TypeError, r"a pair of arrays: wrap tensors as ArrayData\(x, y\)"),
        (lambda t: fit(t, data=blobs().tensors()[0].numpy()), TypeError, "this is ndarray: wrap tensors as ArrayData"),
        (lambda t: fit(t, data=blobs().tensors()[0]), ValueError, "The training data have no targets"),
        (lambda t: fit(t) and t.evaluate(blobs().tensors()[0]), ValueError, "The evaluation data have no targets"),
        (lambda t: fit(t) and t.evaluate([]), ValueError, "nothing to evaluate"),
        (lambda t: fit(t) and t.predict([]), ValueError, "nothing to predict"),
        (
            lambda t: fit(t.compile(STE(), metrics={"acc": lambda out, y: (out.argmax(1) == y).float().mean()})),
            ValueError,
            r"'acc' must give one value per example, shape \(32,\); it gave \(\)",
        ),
        (
            lambda t: fit(t.compile(STE(), loss="mse", metrics=()), data=[(torch.zeros(6, 4), torch.zeros(6, 3, 1))]),
            ValueError,
            r"outputs have shape \(6, 3\) and targets \(6, 3, 1\)",
        ),
        (lambda t: BayesBiNN(seed=3), TypeError, "give it to the Trainer"),
        (lambda t: BayesBiNN(init_lambda=float("inf")), ValueError, "init_lambda must be finite"),
        (lambda t: BayesBiNN(prior=float("nan")), ValueError, "prior must be finite"),
    ],
)
def test_wrong_calls_say_what_is_wrong(call, error, said):
    with pytest.raises(error, match=said):
        call(toy())


def test_a_stream_without_a_length_trains(tmp_path):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([(x, y) for x, y in zip(*blobs().tensors())])

    seen = []

    class Watch(Callback):
        def on_batch_end(self, trainer, logs):
            seen.append(logs["steps"])

    history = toy().fit(
        DataLoader(Stream(), batch_size=50),
        epochs=1,
        progress="silent",
        callbacks=[Watch(), CSVLogger(tmp_path / "log.csv")],
    )
    assert history[0]["accuracy"] > 0.3 and seen == [None] * 6
    assert (
        float(
            (tmp_path / "log.csv")
            .read_text()
            .splitlines()[-1]
            .split(",")[(tmp_path / "log.csv").read_text().splitlines()[0].split(",").index("seconds")]
        )
        > 0
    )


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, left, right):
        return self.layer(left) + right


def test_a_wrong_number_of_inputs_is_said():
    x, y = blobs().tensors()
    right = torch.zeros(len(x), 3)
    trainer = Trainer(Two(), device="cpu").compile(STE())
    said = r"forward of Two takes 2 inputs \(left, right\), and 1 was given \(1 tensor\)"
    with pytest.raises(TypeError, match=said):
        trainer.fit(x, y, epochs=1, verbose=0)
    with pytest.raises(TypeError, match=said):
        trainer.predict(x)
    with pytest.raises(TypeError, match=r"3 were given \(3 tensors\)"):
        trainer.predict((x, right, right))
    with pytest.raises(TypeError, match=r"1 was given \(left\): give a tuple of tensors in that order"):
        trainer.predict({"left": x})
    trainer = Trainer(Two(), device="cpu").compile(STE())
    trainer.fit((x, right), y, epochs=1, verbose=0)
    assert trainer.predict({"right": right, "left": x}).shape == (len(x), 3)


def test_a_type_error_inside_forward_stays_what_it_was():
    class Broken(nn.Linear):
        def forward(self, x):
            return x + "text"

    with pytest.raises(TypeError) as caught:
        Trainer(Broken(4, 3), device="cpu").compile(STE()).fit(blobs(), epochs=1, verbose=0)
    assert "forward of" not in str(caught.value)


def test_a_checkpoint_of_another_seed_can_be_evaluated_the_way_the_error_says(tmp_path):
    trained = Trainer(nn.Linear(4, 3), device="cpu", seed=3).compile(STE())
    trained.fit(blobs(), epochs=1, verbose=0, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match=r"build Trainer\(…, seed=3\), also to evaluate only"):
        Trainer(nn.Linear(4, 3), device="cpu").compile(STE()).load(tmp_path / "last.pt")
    again = Trainer(nn.Linear(4, 3), device="cpu", seed=3).compile(STE()).load(tmp_path / "last.pt")
    assert again.evaluate(blobs()) == trained.evaluate(blobs())


def test_a_history_has_the_columns_that_keras_has():
    history = toy().fit(blobs(), epochs=2, verbose=0)
    assert history.epoch == [1, 2] and len(history.history["loss"]) == 2 and "epoch" not in history.history
