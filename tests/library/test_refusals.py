"""Every refusal of the library is met once: its kind, and the words that name the value and the next step."""

import errno
import linecache
import math
import os
import pickle
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from bayesbinn_nb.library import (
    arguments,
    callbacks,
    checkpoint,
    data,
    evaluation,
    feed,
    history,
    inputs,
    loop,
    metrics,
    models,
    packed_loops,
    packing,
    parallel,
    plots,
    recipes,
    rehearsal,
    resume,
    sources,
    targets,
    together,
)
from bayesbinn_nb.library.arrays import ArrayData, Dihedral
from bayesbinn_nb.library.trainer import Callback, FlipRatio, Progress, StopWhenStill, Trainer
from bayesbinn_nb.methods.bayesbinn import BayesBiNN
from bayesbinn_nb.methods.bop import Bop
from bayesbinn_nb.methods.full_precision import FullPrecision
from bayesbinn_nb.methods.lrnet import LRNet
from bayesbinn_nb.methods.ste import STE

x, y = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
blobs = ArrayData(x, y)


def net(*extra):
    return nn.Sequential(nn.Linear(4, 3), *extra)


def new(method=None, model=None, **settings):
    return Trainer(model or net(), device="cpu").compile(method or STE(), **settings)


def fit(trainer, train=blobs, epochs=1, **settings):
    return trainer.fit(train, epochs=epochs, progress="silent", **{"batch_size": 4} | settings)


def logits_of(model):
    return {name: tuple(t.shape) for name, t in model.state_dict().items()}


pair_ = [new(), new()]
toys = [new(model=models.build_model("toy_mlp", hidden=2), loss="mse", metrics=()) for _ in range(2)]

others = parallel.Cut(4, 2, rank=1, processes=2)


def constant(optimizer):
    return torch.optim.lr_scheduler.ConstantLR(optimizer)


def with_loss_of_a_batch():
    trainer = new()
    trainer.losses = lambda outputs, targets: outputs.sum()
    return trainer


REFUSED = {
    # arrays
    "one feature without its dimension": (lambda: ArrayData(torch.zeros(3)), ValueError, r"Use x\[:, None\]"),
    "no example": (lambda: ArrayData(torch.zeros(0, 2)), ValueError, "at least one example"),
    "more targets than inputs": (lambda: ArrayData(x, y[:3]), ValueError, "12 examples and y 3"),
    "a spread of nothing": (lambda: ArrayData(x, std=0.0), ValueError, "std must be > 0"),
    "a mean too many": (lambda: ArrayData(x, mean=(0.0, 1.0)), ValueError, "1 or 4 values"),
    "an oblong picture": (
        lambda: Dihedral()(torch.zeros(1, 1, 2, 3), None, torch.zeros(1, 3)),
        ValueError,
        "needs square images, got 2×3",
    ),
    "half a batch": (lambda: blobs.batches(2.5), TypeError, "batch_size must be an int or None"),
    "an empty batch": (lambda: blobs.batches(0), ValueError, "at least 1, got 0"),
    "no full batch": (lambda: blobs.batches(13, drop_last=True), ValueError, "13 > 12 examples"),
    # history
    "a column that is not there": (
        lambda: history.History([{"loss": 1}]).best(),
        ValueError,
        "no 'val_accuracy'; it has",
    ),
    "a column of NaN": (
        lambda: history.History([{"f": math.nan}]).best("f"),
        ValueError,
        "not a number in any of the 1",
    ),
    "a third mode": (lambda: history.History([{"f": 1}]).best("f", "mean"), ValueError, "mode must be 'max' or 'min'"),
    # callbacks
    "a style of progress": (lambda: Progress("dots"), ValueError, "style must be"),
    "every zeroth epoch": (lambda: Progress(every=0), ValueError, "every must be a positive integer"),
    "stillness without flips": (
        lambda: fit(new(), callbacks=[StopWhenStill()]),
        RuntimeError,
        "needs FlipRatio before it",
    ),
    # feed
    "a pair of arrays": (lambda: fit(new(), (x, y)), TypeError, "a pair of arrays: wrap tensors as ArrayData"),
    "a Dataset": (lambda: feed.need_batches(TensorDataset(x, y), "data"), TypeError, "this is TensorDataset"),
    "no targets": (lambda: fit(new(), ArrayData(x)), ValueError, "training data have no targets"),
    "a triple": (lambda: fit(new(), [(x, y, y)]), TypeError, "a tuple of 3"),
    "a dictionary": (lambda: fit(new(), [{"image": x, "answer": y}]), TypeError, "a dict with 'image', 'answer'"),
    "a text": (lambda: feed.pair("ab"), TypeError, "this is a str"),
    "wide inputs": (lambda: fit(new(), [(x.double(), y)]), TypeError, r"give x.float\(\)"),
    "narrow inputs": (lambda: fit(new(model=net().double()), [(x, y)]), TypeError, r"give x.double\(\)"),
    "short class numbers": (lambda: fit(new(), [(x, y.int())]), TypeError, r"give y.long\(\)"),
    "one example": (lambda: fit(new(model=net(nn.BatchNorm1d(3))), [(x[:1], y[:1])]), ValueError, "drop_last=True"),
    "a layer without a shape": (lambda: new(model=nn.Sequential(nn.LazyLinear(3))), ValueError, "call the model once"),
    "sparse gradients": (
        lambda: fit(new(STE(binary=["1.weight"]), nn.Sequential(nn.Embedding(3, 4, sparse=True), nn.Linear(4, 3)))),
        ValueError,
        "build the layer with sparse=False",
    ),
    # loop
    "half precision": (lambda: Trainer(net(), precision="float16"), ValueError, "precision must be"),
    "no method": (lambda: fit(Trainer(net(), device="cpu")), RuntimeError, "Call compile"),
    "a method by name": (lambda: new("ste"), TypeError, r"method must be a Method such as BayesBiNN\(\)"),
    "an unknown loss": (lambda: new(loss="hinge"), ValueError, "Unknown loss 'hinge'"),
    "an unknown metric": (lambda: new(metrics=["f1"]), ValueError, "Unknown metric 'f1'"),
    "a schedule's time": (lambda: new(scheduler_step="batch"), ValueError, "scheduler_step must be"),
    "a schedule that waits": (
        lambda: fit(new(scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau)),
        TypeError,
        "drive it from a Callback",
    ),
    "no batch": (lambda: fit(new().prepare(12), [(x[:0], y[:0])]), ValueError, "gave no batch"),
    "nothing counts": (lambda: fit(new(), [(x, y * 0 - 100)]), ValueError, "all of them are -100"),
    "a loss that is NaN": (
        lambda: fit(new(), [(x * math.nan, y)]),
        FloatingPointError,
        "training loss is not finite in epoch 1, and neither are the data: x of example 0 of batch 0",
    ),
    # evaluation
    "a mean of nothing": (lambda: Trainer(net(), "cpu").predict(x, "mean", 2), RuntimeError, "needs a trained method"),
    "a score of samples": (
        lambda: new().prepare(12).evaluate(blobs, how="sample"),
        ValueError,
        "how must be 'mode' or 'mean'",
    ),
    "nothing to predict": (lambda: new().prepare(12).predict([]), ValueError, "nothing to predict"),
    "nothing to evaluate": (lambda: new().prepare(12).evaluate([]), ValueError, "nothing to evaluate"),
    # metrics
    "a row and a column": (lambda: metrics.as_columns(x, y), ValueError, "they must match"),
    "a mean of a metric": (lambda: metrics.total("f1", torch.zeros(()), y), ValueError, "one value per example"),
    "classes of one logit": (lambda: metrics.accuracy(x[:, 0], y), ValueError, "use 'binary_accuracy'"),
    "labels that are missing": (lambda: metrics.calibration(x.softmax(1), y, x.softmax(1)), ValueError, "None"),
    "logits": (lambda: metrics.calibration(x, y), ValueError, "rows of probs must sum to 1"),
    # models
    "an unknown model": (lambda: models.build_model("resnet"), ValueError, "Unknown model 'resnet'. Known: toy_mlp"),
    "an unknown argument": (lambda: models.build_model("toy_mlp", width=3), TypeError, "library.models.toy_mlp"),
    "half a unit": (lambda: models.toy_mlp(hidden=2.5), TypeError, "hidden must be an int"),
    "a deep U-Net": (lambda: models.unet(depth=9), ValueError, r"depth must be in 1 … 6, got 9"),
    "no such variant": (lambda: models.lrnet_mnist("paper"), ValueError, "variant must be 'comparison' or 'lrnet'"),
    "no such code": (lambda: models.bop_binarynet("larq"), ValueError, "variant must be 'original' or 'report'"),
    "an odd picture": (lambda: models.unet(width=2, depth=2)(torch.zeros(1, 1, 6, 8)), ValueError, "divisible by 4"),
    "a layer by a wrong name": (
        lambda: models.binary_names(net(), models.BinaryExcept(["fc9"])),
        ValueError,
        "no layer 'fc9' to keep real; the layers with weights are 0",
    ),
    "a parameter by a wrong name": (lambda: models.binary_names(net(), ["fc9"]), ValueError, "no parameter 'fc9'"),
    "weights that are not ±1": (lambda: models.assert_binary(net()), ValueError, "0.weight is not binary: 12 of 12"),
    # checkpoints and files
    "no checkpoint": (lambda: checkpoint.load_checkpoint("no.pt"), FileNotFoundError, "Trainer.save"),
    "no model file": (lambda: checkpoint.load_model("no.st"), FileNotFoundError, "save_model"),
    "another shape": (
        lambda: checkpoint.check_shapes("f", logits_of(nn.Linear(5, 3)), nn.Linear(4, 3)),
        ValueError,
        "weight",
    ),
    "half a description": (lambda: checkpoint.described("f", "[1", 9), ValueError, "nobody understands"),
    "a model nobody knows": (
        lambda: checkpoint.load_state("f", {}, {"name": "resnet", "kwargs": {}}, None),
        ValueError,
        "f describes a model that cannot be built: Unknown model 'resnet'",
    ),
    "no description": (lambda: checkpoint.load_state("f", {}, None, None), ValueError, "pass the model to load into"),
    "nothing to save": (lambda: new().save("no.pt"), RuntimeError, "nothing to save before fit"),
    # data
    "a fraction of one": (lambda: data.split_indices(9, 1.0), ValueError, "fraction in .0, 1., got 1.0"),
    "half a limit": (lambda: data.load_data("digits", limit=2.5), TypeError, "limit must be an int or None"),
    "too high a limit": (lambda: data.load_data("digits", limit=10**6), ValueError, "limit must be 1 … 1294"),
    "a third split": (lambda: data.load_data("digits", split="first"), ValueError, "split must be 'shuffled'"),
    "other inputs": (lambda: data.load_data("digits", inputs="raw"), ValueError, "inputs must be 'standard'"),
    "an unknown set": (lambda: data.load_data("imagenet"), ValueError, "Unknown data set 'imagenet'"),
    "a part of a toy": (lambda: data.load_data("two_moons", limit=9), ValueError, "it is used whole"),
    "a tile that does not fit": (lambda: data.load_data("isbi2012-standin", crop=36), ValueError, "crop must divide"),
    "half a task": (lambda: data.permuted_mnist(1.5), TypeError, "task must be an int"),
    "task zero": (lambda: data.permuted_mnist(0), ValueError, "counts from 1"),
    "a task with validation": (
        lambda: data.permuted_mnist(1, base=data.load_data("digits")),
        ValueError,
        "validation=0",
    ),
    "options of a bundle": (
        lambda: data.permuted_mnist(1, base=data.load_data("digits", validation=0.0), limit=9),
        TypeError,
        "limit: arguments of load_data have no effect",
    ),
    "a baseline of nothing": (
        lambda: data.DataBundle("rows", ArrayData(x), None, None, 1, (4,), "").baseline(),
        ValueError,
        "rows has no targets",
    ),
    "a download of digits": (lambda: data.fetch("digits"), ValueError, "needs no files"),
    "a download of nothing": (lambda: data.fetch("imagenet"), ValueError, "can be one of: mnist, cifar10, cifar100"),
    "a download behind a form": (lambda: data.fetch("isbi2012"), RuntimeError, "cannot be downloaded automatically"),
    # plots
    "rows of two": (lambda: plots.training_curves({}, {"STE": [(1, 2)]}), ValueError, "rows of 2 numbers"),
    "a curve of a scalar": (lambda: plots.flip_ratio_curve({"STE": 0.5}), ValueError, "dimension"),
    "flips beyond one": (lambda: plots.flip_ratio_curve({"STE": [2.0]}), ValueError, r"must lie in \[0,1\]"),
    "no seed": (lambda: plots.accuracy_bars({"STE": []}), ValueError, "is empty"),
    "a surface of logits": (lambda: plots.decision_surface(lambda p: 9 * p[:, 0], x[:, :2], y), ValueError, "sigmoid"),
    "a short band": (lambda: plots.regression_band([1, 2], [1, 2], [1]), ValueError, "equally many"),
    "a band that turns back": (lambda: plots.regression_band([2, 1], [1, 2], [1, 1]), ValueError, "sort x"),
    "a negative spread": (lambda: plots.regression_band([1, 2], [1, 2], [1, -1]), ValueError, "are ≥ 0"),
    "beliefs of λ": (lambda: plots.probability_histogram(torch.tensor([3.0])), ValueError, "not λ"),
    "a table without names": (
        lambda: plots.heat_map(np.eye(2), ["a"], ["b", "c"]),
        ValueError,
        "1 row and 2 column names",
    ),
    # together
    "a layer without a rule": (
        lambda: together.SideBySide([net(nn.LayerNorm(3)) for _ in range(2)]),
        TypeError,
        "LayerNorm cannot be laid side by side",
    ),
    "networks without an order": (
        lambda: together.SideBySide([models.UNet(width=1, depth=1)] * 2),
        TypeError,
        "must be nn.Sequential, not UNet",
    ),
    "one trainer twice": (lambda: fit_two(pair_[0], pair_[0]), ValueError, "share a model or a method"),
    "no method at all": (
        lambda: fit_two(*[Trainer(net(), "cpu") for _ in range(2)]),
        RuntimeError,
        "every trainer first",
    ),
    "another rate": (lambda: fit_two(new(STE(lr=0.1)), new(STE(lr=0.2))), ValueError, "only equal ones"),
    "layers of its own": (lambda: fit_two(new(LRNet()), new(LRNet())), ValueError, "replaces the layers"),
    "a number per layer": (lambda: fit_two(new(Bop()), new(Bop())), ValueError, "numbers for each layer"),
    # the trainer and rehearsals
    "no epoch": (lambda: fit(new(), epochs=0), ValueError, "epochs must be a positive integer, not 0"),
    "half an interval": (lambda: fit(new(), evaluate_every=0.5), ValueError, "evaluate_every must be"),
    "a third kind of best": (lambda: fit(new(), monitor_mode="mean"), ValueError, "monitor_mode must be"),
    "a monitor nobody measures": (
        lambda: fit(new(), val=blobs, monitor="val_f1"),
        ValueError,
        "'val_f1' is not measured",
    ),
    "no step": (lambda: rehearsal.Rehearsal(steps=0), ValueError, "steps must be positive integers"),
    "no example to look at": (lambda: rehearsal.Rehearsal(examples=0), ValueError, "cannot be evaluated"),
    "two rehearsals": (lambda: two_rehearsals(), RuntimeError, "A rehearsal is on already"),
    # inputs
    "words for an input": (lambda: inputs.as_tensor(np.array(["a"]), "x"), TypeError, "x holds <U1, not numbers"),
    "one feature, flat": (lambda: inputs.as_input(torch.zeros(3), torch.float32, False), ValueError, r"x\[:, None\]"),
    "half a class": (lambda: inputs.as_targets(torch.tensor([0.5]), torch.float32, True), ValueError, "are not whole"),
    "arrays of nothing": (lambda: inputs.Handed(torch.zeros(0, 2)), ValueError, "no example in x"),
    "weights beside a loader": (lambda: inputs.as_data([(x, y)], None, y, net()), ValueError, "belongs to arrays"),
    "a negative weight": (lambda: inputs.as_data(x, y, y - 1.0, net()), ValueError, "one number ≥ 0 per example"),
    "nothing to train on": (lambda: inputs.split_off(blobs.subset(slice(2)), 0.9), ValueError, "leaves nothing to"),
    "classes in a grid": (
        lambda: inputs.weights_by_class(torch.zeros(3, 2), torch.ones(2)),
        ValueError,
        r"one class per example; the targets have shape \(3, 2\)",
    ),
    # steps and schedules
    "no batch to a step": (
        lambda: loop.StepRules(gradient_accumulation_steps=0),
        ValueError,
        "positive integer, not 0",
    ),
    "two schedules of one optimiser": (
        lambda: fit(new(FullPrecision(), scheduler=constant, real_scheduler=constant)),
        ValueError,
        "give scheduler or real_scheduler, not both",
    ),
    "a rate twice": (
        lambda: fit(new(scheduler=constant), callbacks=[callbacks.LearningRateScheduler(lambda epoch: 0.1)]),
        ValueError,
        "both set the learning rate",
    ),
    "a schedule's unit": (
        lambda: recipes.check_schedule(dict(kind="cosine", start=1.0, end=0.0, t_max=3, when="step", unit="year")),
        ValueError,
        "unit must be 'epoch' or 'step', got 'year'",
    ),
    "an optimiser's kind": (lambda: recipes.make_optimizer_factory({"kind": "lion"}), ValueError, "got 'lion'"),
    "a loss of a batch": (lambda: with_loss_of_a_batch()._mean_loss(x, y, torch.ones(12)), ValueError, r"gave \(\)"),
    "clipping together": (
        lambda: together.check_alike([new(global_clipnorm=1.0), new()]),
        ValueError,
        "are of one network alone",
    ),
    # metrics and history
    "five of three": (lambda: metrics.top_5_accuracy(torch.zeros(2, 3), y[:2]), ValueError, r"K > 5 classes"),
    "a metric of two": (
        lambda: metrics.collected({"two": SimpleNamespace(compute=lambda: torch.zeros(2))}),
        ValueError,
        r"'two' gave \(2,\) numbers",
    ),
    "every zeroth row": (lambda: history.History([{"epoch": 1}]).table(every=0), ValueError, "positive integer, not 0"),
    "a picture of nothing": (lambda: history._figure(history.History(), {}), ValueError, "There is nothing to draw"),
    "a way in place of targets": (
        lambda: new().prepare(12).evaluate(x, "mean"),
        TypeError,
        "give how='mean' by its name",
    ),
    # processes
    "no time to wait": (lambda: parallel.join_group(timeout=0), ValueError, "timeout must be > 0 seconds, not 0"),
    "a share of others": (
        lambda: parallel._need_shares(SimpleNamespace(batch_sampler=parallel.ShareSampler(4, 2, cut=others))),
        ValueError,
        "the share of rank 1 of 2, and this is rank 0 of 1",
    ),
}


def fit_two(*trainers):
    together.fit_together(trainers, blobs, epochs=1, progress="silent")


def two_rehearsals():
    with rehearsal.rehearsing(steps=1), rehearsal.rehearsing(steps=1):
        pass


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_a_sentence(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, kind, words = REFUSED[name]
    with pytest.raises(kind, match=words) as e:
        call()
    assert str(e.value).rstrip(")")[-1] in ".?", "a whole sentence"
    assert not [*tmp_path.iterdir()]


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="PyTorch sees no GPU"):
        Trainer(net(), device="cuda")
    assert Trainer(net()).device.type == "cpu"


def test_a_trained_trainer_does_not_train_with_others():
    one, other = new(), new()
    fit(one)
    with pytest.raises(ValueError, match="has been trained already"):
        fit_two(one, other)


def test_a_state_that_is_no_longer_finite_is_named():
    for broken, name in (
        (lambda t: t.model[1].running_mean.fill_(math.inf), "1.running_mean"),
        (lambda t: t.method.optimizer.natural_parameters()[0].fill_(math.nan), "lam of 0.weight"),
    ):
        trainer = new(BayesBiNN(), net(nn.BatchNorm1d(3)))

        class Break(Callback):
            def on_batch_end(self, trainer, logs, broken=broken):
                broken(trainer)

        with torch.no_grad(), pytest.raises(FloatingPointError, match=f"After epoch 1, .*{name} is no longer finite"):
            with torch.enable_grad():
                fit(trainer, callbacks=[Break()], batch_size=12)
    method = STE()
    model = method.prepare(net(), train_size=12)
    with torch.no_grad():
        method.optimizers()[0].param_groups[0]["params"][0].fill_(math.nan)
    assert loop.first_infinite(model, method) == "the number behind 0.weight"


@pytest.mark.parametrize("module, make", [("torch.utils.tensorboard", "TensorBoardLogger"), ("wandb", "WandbLogger")])
def test_a_logger_without_its_package(module, make, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{make} needs the package (tensorboard|wandb): pip install"):
        getattr(callbacks, make)("folder") if make.startswith("Tensor") else callbacks.WandbLogger()


def test_weights_and_biases_is_told_each_epoch(monkeypatch):
    told = []
    run = SimpleNamespace(log=lambda row, step: told.append((step, row["loss"])), finish=lambda: told.append("end"))
    monkeypatch.setitem(
        sys.modules, "wandb", SimpleNamespace(init=lambda **init: run if init == {"project": "p"} else None)
    )
    rows = fit(new(), epochs=2, callbacks=[callbacks.WandbLogger(project="p")])
    assert told == [(1, rows[0]["loss"]), (2, rows[1]["loss"]), "end"]


def test_a_bar_on_a_terminal_and_lines_elsewhere(capfd, monkeypatch):
    new().fit(blobs, epochs=2, progress="bar")
    assert "2/2" in capfd.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    new().fit(blobs, epochs=1, progress="auto")
    assert "1/1" in capfd.readouterr().err
    monkeypatch.setattr(sys, "stderr", None)
    new().fit(blobs, epochs=1, progress="auto")
    assert "epoch 1/1  loss" in capfd.readouterr().out


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX permissions")
def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    path.touch()

    def forbidden(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(checkpoint.zipfile, "ZipFile", forbidden)
    with pytest.raises(PermissionError):
        checkpoint.load_checkpoint(path)
    monkeypatch.setattr("safetensors.safe_open", forbidden)
    with pytest.raises(PermissionError):
        checkpoint.load_model(path)


def test_files_of_another_kind(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"neither a zip nor safetensors")
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        checkpoint.load_checkpoint(path)
    with pytest.raises(ValueError, match="not a readable model file"):
        checkpoint.load_model(path)
    checkpoint.save_checkpoint({"format": "other", "seed": 0}, path)
    with pytest.raises(ValueError, match="not a training checkpoint of this package"):
        new().load(path)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        checkpoint.load_checkpoint(path)
    checkpoint.write_tensors(path, {"w": torch.ones(2)}, {"format": "bayesbinn_nb.packed.2"})
    with pytest.raises(ValueError, match="is a packed model"):
        checkpoint.load_model(path)
    checkpoint.write_tensors(path, {"w": torch.ones(2)}, {"format": "bayesbinn_nb.model.1"})
    with pytest.raises(ValueError, match="is no model file of this version"):
        checkpoint.load_model(path)


def test_a_file_whose_writing_is_broken_off_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), checkpoint.atomic_write(tmp_path / "f", "w") as f:
        f.write("half")
        raise KeyboardInterrupt
    assert not [*tmp_path.iterdir()]


def test_a_model_file_names_its_factory(tmp_path):
    model = nn.DataParallel(models.build_model("toy_mlp", hidden=3))
    checkpoint.save_model(model, tmp_path / "f", name="toy_mlp", kwargs={"hidden": 3})
    assert checkpoint.load_model(tmp_path / "f").fc1.out_features == 3
    assert checkpoint.architecture(model, "toy_mlp") == {"name": "toy_mlp", "kwargs": {}}
    prefixed = {f"module.{name}": t for name, t in model.module.state_dict().items()}
    loaded = checkpoint.load_state("f", prefixed, {"name": "toy_mlp", "kwargs": {"hidden": 3}}, None)
    assert torch.equal(loaded.fc1.weight, model.module.fc1.weight)


def test_a_checkpoint_of_other_data_and_one_that_is_behind(tmp_path):
    first = new()
    fit(first, epochs=2, checkpoint_dir=tmp_path / "run")
    other = new(STE(lr=0.3))
    with pytest.raises(ValueError, match="belongs to another run: .*lr was .* there and is 0.3 here"):
        fit(other, epochs=3, checkpoint_dir=tmp_path / "run")
    fit(first, epochs=3)  # farther than the folder
    fit(first, epochs=4, checkpoint_dir=tmp_path / "run")
    assert len(checkpoint.load_checkpoint(tmp_path / "run" / "last.pt")["history"]) == 4
    stranger = new()
    stranger.history.append({"epoch": 1, "loss": -1.0})
    assert stranger.prepare(12)._go_on(tmp_path / "run", ()) is False, "a run of its own writes over it"


def test_rates_that_are_tensors_are_taken_back(tmp_path):
    method = STE(optimizer=lambda p: torch.optim.Adam(p, torch.tensor(0.1), capturable=False, foreach=False))
    trainer = new(method)
    trainer.prepare(12).save(tmp_path / "c.pt")
    again = new(STE(optimizer=lambda p: torch.optim.Adam(p, torch.tensor(0.1), capturable=False, foreach=False)))
    again.load(tmp_path / "c.pt")
    assert again.method.optimizers()[0].param_groups[0]["lr"] == pytest.approx(0.1)


def test_warnings_point_at_the_call_of_fit():
    trainer = new(BayesBiNN())
    fit(trainer, ArrayData(x[:8], y[:8]))
    with pytest.warns(UserWarning, match="have 12 examples and had 8") as heard:
        trainer.fit(blobs, epochs=2, batch_size=4, progress="silent")
    assert heard[0].filename == __file__
    with pytest.warns(UserWarning, match="nothing to do") as heard:
        trainer.fit(blobs, epochs=2, batch_size=4, progress="silent")
    assert heard[0].filename == __file__

    class Stop(Callback):
        def on_batch_end(self, trainer, logs):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(trainer, epochs=3, callbacks=[Stop()])
    with pytest.warns(UserWarning, match="Epoch 3 was broken off") as heard:
        trainer.fit(blobs, epochs=3, batch_size=4, progress="silent")
    assert heard[0].filename == __file__


def test_batch_statistics_are_left_alone_by_an_evaluation_that_uses_them():
    trainer = Trainer(net(nn.BatchNorm1d(3)), "cpu", eval_in_train_mode=True).compile(STE()).prepare(12)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    trainer.evaluate(blobs)
    assert all(torch.equal(v, before[k]) for k, v in trainer.model.state_dict().items())


def test_pictures_in_channels_last():
    pictures = ArrayData(torch.randn(4, 3, 8, 8), torch.arange(4) % 2)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    trainer = Trainer(model, "cpu", channels_last=True).compile(STE())
    assert trainer.model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert math.isfinite(fit(trainer, pictures, batch_size=2)[0]["loss"])


def test_schedules_by_steps_and_at_the_end_of_epochs():
    for when, expected in (("step", [0.1, 0.1 * 0.5**3]), ("epoch_end", [0.1, 0.05]), ("epoch_start", [0.05, 0.025])):
        trainer = new(
            STE(lr=0.1), scheduler=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.5), scheduler_step=when
        )
        assert fit(trainer, epochs=2).column("lr") == pytest.approx(expected)


def test_generators_in_lists_of_sets_are_found():
    own = np.random.default_rng(0)
    inner = TensorDataset(x, y)
    inner.rng = own
    loader = DataLoader(torch.utils.data.ConcatDataset([inner, inner]), batch_size=4)
    assert feed.generators_of(loader) == [own]
    state, first = feed.random_state(torch.device("cpu"), [own]), own.random()
    feed.set_random_state(state, torch.device("cpu"), [own])
    assert own.random() == first


def test_a_state_of_an_older_version_leaves_what_it_does_not_know():
    before = np.random.get_state()[1].tolist()
    feed.set_random_state({"cpu": torch.get_rng_state()}, torch.device("cpu"))
    assert np.random.get_state()[1].tolist() == before


@pytest.mark.parametrize(
    "platform, variable", [("win32", "LOCALAPPDATA"), ("darwin", "HOME"), ("linux", "XDG_CACHE_HOME")]
)
def test_the_cache_of_each_system(platform, variable, tmp_path, monkeypatch):
    monkeypatch.delenv("BAYESBINN_DATA", raising=False)
    monkeypatch.setattr(sources.sys, "platform", platform)
    monkeypatch.setenv(variable, str(tmp_path))
    root = sources.data_root()
    assert root.name == "bayesbinn_nb" and root.is_relative_to(tmp_path)
    assert sources.fingerprint_arrays(None) != sources.fingerprint_arrays()


def test_a_reader_that_finds_nonsense_names_the_file(tmp_path):
    for name in ("mnist", "cifar10", "snelson"):
        folder = tmp_path / sources.SETS[name]["folder"]
        folder.mkdir(parents=True)
        for file in sources.SETS[name]["files"]:
            (folder / file).write_bytes(b"nonsense")
        with pytest.raises(
            ValueError, match=f"{sources.SETS[name]['title']} is damaged: .*{sources.SETS[name]['files'][0]}"
        ):
            data.READERS[name](tmp_path, True)
    (tmp_path / "isbi2012").mkdir()
    (tmp_path / "isbi2012" / "train-volume.tif").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="train-volume.tif cannot be decoded"):
        sources.read_isbi(tmp_path, True)
    states = {row["name"]: row["state"] for row in data.data_status(tmp_path)}
    assert states["mnist"] == states["isbi2012"] == "damaged" and states["cifar100"] == "missing"
    assert {row["state"] for row in data.data_status(tmp_path, decode=False)} == {"present", "missing", "built in"}


def test_a_stack_of_another_size_or_with_other_labels(tmp_path):
    from PIL import Image

    def stack(name, pages):
        first, *others = [Image.fromarray(p) for p in pages]
        first.save(tmp_path / "isbi2012" / name, save_all=True, append_images=others)

    (tmp_path / "isbi2012").mkdir()
    stack("train-volume.tif", [np.zeros((8, 8), np.uint8)] * 2)
    with pytest.raises(ValueError, match="2 image slices of size"):
        sources.read_isbi(tmp_path, False)
    whole = [np.zeros((512, 512), np.uint8)] * 30
    stack("train-volume.tif", whole)
    stack("train-labels.tif", whole)
    with pytest.raises(ValueError, match="labels hold the values .0.…, expected 0"):
        sources.read_isbi(tmp_path, False)


def test_a_download_that_fails_says_what_else_can_be_done(tmp_path, monkeypatch):
    import torchvision

    def fails(root, download):
        raise OSError("no network")

    monkeypatch.setattr(torchvision.datasets, "MNIST", fails)
    with pytest.raises(RuntimeError, match="could not be downloaded .OSError: no network.*or copy the files into"):
        data.fetch("mnist", tmp_path)
    monkeypatch.setattr(torchvision.datasets, "MNIST", lambda root, download: None)
    monkeypatch.setitem(data.READERS, "mnist", lambda root, verify: ())
    assert data.fetch("mnist", tmp_path) == tmp_path / "MNIST/raw"


def test_figures_need_their_packages_and_notebooks_only_if_there_is_one(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib_inline.backend_inline", None)
    plots.use_house_style()
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    monkeypatch.setattr("matplotlib.pyplot", None, raising=False)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        plots.flip_ratio_curve({"STE": [0.1]})


def test_a_prediction_may_come_without_targets_and_a_gradient_breaks_off_cleanly():
    trainer = new().prepare(12)
    torch.testing.assert_close(trainer.predict(iter([x[:6], (x[6:],)])), trainer.predict(x))  # products of other sizes

    def breaks(out, y):
        F.cross_entropy(out, y).backward(retain_graph=True)
        raise KeyboardInterrupt

    trainer.loss = breaks
    with pytest.raises(KeyboardInterrupt):
        fit(trainer)
    assert all(p.grad is None for p in trainer.model.parameters())


def test_a_layer_without_a_recorder_does_not_replay():
    trainer = evaluation.Evaluation(net(), "cpu")
    assert not trainer._replays(blobs, ())
    with pytest.raises(NotImplementedError):
        trainer._replay(blobs, blobs.batches(4), torch.zeros(2))


def test_nobody_has_nothing_to_train():
    assert together.fit_together([], blobs, epochs=1) == []
    assert evaluation.Evaluation(net(), "cpu").evaluate(blobs)["accuracy"] <= 1
    assert resume.newest(Path("no such folder")) is None
    assert isinstance(FlipRatio().state_dict(), dict)


@pytest.mark.parametrize("loss, metric", [("binary_cross_entropy", "binary_accuracy"), ("mse", "mse")])
def test_a_compiled_trainer_can_be_pickled(loss, metric):
    model, yes = nn.Linear(4, 1), ArrayData(x, (y > 0).float())
    trainer = Trainer(model, "cpu").compile(STE(), loss=loss, metrics=[metric])
    again = pickle.loads(pickle.dumps(trainer))
    assert again.evaluate(yes) == trainer.evaluate(yes)
    for one in (trainer, again):
        fit(one, yes, epochs=2)
    assert again.history.column("loss") == trainer.history.column("loss")


def test_what_data_and_models_say_of_themselves_can_be_pickled():
    summary, bundle = models.model_summary(models.toy_mlp()), data.load_data("digits")
    assert str(pickle.loads(pickle.dumps(summary))) == str(summary)
    assert pickle.loads(pickle.dumps(bundle)).fingerprint == bundle.fingerprint


def test_what_cannot_be_measured_says_why():
    huge = targets.outcome("optimiser", targets.optimiser_target(10**15, "paper"))
    assert not huge.met and re.search("not measured: 1,000,000.* GB of memory, .* GB are free", huge.note)
    with pytest.raises(targets.NotHere, match="OSError: no$"):
        targets._first_steps("raise OSError('no')", 1)


def test_no_bound_of_memory_without_compiled_loops(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    targets._compiled_walk.cache_clear()
    assert (
        targets._said({"memory": lambda: targets.memory_floor("STE", 10), "other": lambda: 0.5}) == "bounds: other 0.50"
    )


def test_loops_where_no_folder_can_be_written(monkeypatch):
    def no_folder(loop):
        raise RuntimeError("no locator available")

    monkeypatch.setattr(packed_loops, "named_by_key", no_folder)
    assert packed_loops._compiled(abs_of)(np.float32(-2)) == 2


def abs_of(x):
    return abs(x)


def test_a_source_that_is_no_python_names_no_argument():
    linecache.cache["<cut>"] = (12, None, ["def f(a,  # a number\n"], "<cut>")
    scope = {}
    exec(compile("def f(a): pass", "<cut>", "exec"), scope)
    assert arguments._definition(scope["f"]) == ([], "")


def test_a_convolution_that_pads_with_its_picture(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular", bias=False))
    nn.init.ones_(model[0].weight)
    path = packing.pack_model(model, tmp_path / "m")
    with pytest.raises(ValueError, match="0 pads with 'circular'; packed convolutions pad with zeros only"):
        packing.load_packed(path, model)


def test_a_checkpoint_of_something_else(tmp_path):
    path = checkpoint.save_checkpoint({"model": 3}, tmp_path / "c.pt")
    with pytest.raises(ValueError, match="c.pt is a torch file but not a training checkpoint of this package"):
        packing.inspect_file(path)


def test_a_checkpoint_of_two_processes_in_one(tmp_path):
    path = checkpoint.save_checkpoint({"random_state": {"ranks": [0, 0]}}, tmp_path / "c.pt")
    trainer = parallel.ParallelTrainer(net(), device="cpu")  # a group of one
    try:
        with pytest.raises(ValueError, match="belongs to a run of 2 processes, and these are 1: start as many"):
            trainer._read(path)
    finally:
        parallel.leave_group()
