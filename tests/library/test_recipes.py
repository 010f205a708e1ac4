"""Recipes: published settings, schedules in closed form, methods by name."""

import inspect
import json
import math

import pytest
import torch
from torch import nn

from bayesbinn_nb.library import models
from bayesbinn_nb.library.data import load_data
from bayesbinn_nb.library.recipes import (
    EXPERIMENTS,
    METHODS,
    check_schedule,
    make_method,
    make_schedule,
    method_class,
    recipe,
    schedule_value,
)

ARMS = [(d, m, e) for e, (sets, methods, _) in EXPERIMENTS.items() for d in sets for m in methods]


def sgd(lr=1.0):
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)


@pytest.mark.parametrize("dataset,method,experiment", ARMS, ids=["-".join(a) for a in ARMS])
def test_every_recipe_can_be_built(dataset, method, experiment):
    r = recipe(dataset, method, experiment)
    assert json.loads(json.dumps(r)) == r
    inspect.signature(load_data).bind(r["dataset"], **r["data"])
    with torch.device("meta"):
        model = models.build_model(r["model"]["name"], **r["model"]["kwargs"])
    made = make_method(r, model, train_size=1000)
    assert isinstance(made, method_class(method)) and made.name == method
    if r["schedule"]:
        check_schedule(r["schedule"])
    if r["train_size_multiplier"] == 10 and method == "bayesbinn":
        assert made.own_train_size == 10_000
    assert r["epochs"] >= 1 and (r["batch_size"] is None or r["batch_size"] >= 1) and r["source"]


def test_published_numbers():
    r = recipe("cifar100", "bayesbinn")
    assert (
        r["method_kwargs"] == dict(lr=3e-4, temperature=1e-8, init_lambda=10.0, momentum=0.0, samples=1, mean="lagged")
        and r["train_size_multiplier"] == 10
    )
    assert (
        r["schedule"] == dict(kind="cosine", start=3e-4, end=1e-16, t_max=500, when="epoch_start")
        and r["batch_size"] == 50
    )
    assert [recipe(d, "adam")["schedule"]["start"] for d in ("mnist", "cifar10", "cifar100")] == [3e-4, 1e-2, 3e-3]
    assert (
        recipe("mnist", "ste")["schedule"]["start"] == 1e-2
        and recipe("mnist", "ste")["method_kwargs"].get("clip_gradients") is None
    )
    bop = recipe("mnist", "bop")["method_kwargs"]
    assert bop["adaptivity_rate"] * bop["decay"] ** 500 == pytest.approx(1e-8)
    c = recipe("cifar10", "bayesbinn", "lrnet_comparison")
    assert (
        c["epochs"] == c["schedule"]["t_max"] == 290
        and c["data"] == dict(validation=0.0)
        and c["model"]["name"] == "lrnet_cifar"
    )
    moons = recipe("two_moons", "bayesbinn")
    assert moons["epochs"] == 3000 and moons["batch_size"] is None and moons["binary_biases"]
    assert [schedule_value(moons["schedule"], t) for t in (0, 1499, 1500, 2499, 2500)] == pytest.approx(
        [1e-3, 1e-3, 1e-4, 1e-4, 1e-5]
    )
    assert schedule_value(recipe("snelson", "bayesbinn")["schedule"], 5000) == pytest.approx(1e-5)


def test_stand_ins_get_the_settings_of_what_they_stand_for():
    a, b = recipe("mnist-standin", "ste"), recipe("mnist", "ste")
    assert a.pop("dataset") == "mnist-standin" and b.pop("dataset") == "mnist" and a == b


def test_recipes_are_copies():
    recipe("mnist", "bayesbinn")["method_kwargs"]["lr"] = 7.0
    assert recipe("mnist", "bayesbinn")["method_kwargs"]["lr"] == 1e-4


def test_authors_order_of_the_cosine():
    "Stepped at the start of each epoch: epoch 1 trains at α(1), epoch T at the end value"
    opt = sgd()
    s = make_schedule(opt, dict(kind="cosine", start=1e-4, end=1e-16, t_max=5, when="epoch_start"))
    assert opt.param_groups[0]["lr"] == 1e-4
    rates = []
    for _ in range(7):
        opt.step()
        s.step()
        rates.append(opt.param_groups[0]["lr"])
    assert (
        rates[:4] == pytest.approx([0.5e-4 * (1 + math.cos(math.pi * k / 5)) for k in (1, 2, 3, 4)])
        and rates[4:] == [1e-16] * 3
    )


@pytest.mark.parametrize(
    "spec,torch_one",
    [
        (
            dict(kind="multistep", start=0.5, milestones=[3, 7], factor=0.1, when="step"),
            lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [3, 7], 0.1),
        ),
        (
            dict(kind="step", start=0.5, every=4, factor=0.2, when="epoch_end"),
            lambda o: torch.optim.lr_scheduler.StepLR(o, 4, 0.2),
        ),
        (
            dict(kind="geometric", start=0.5, end=0.05, t_max=10, when="step"),
            lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.1**0.1),
        ),
        (dict(kind="constant", start=0.5, when="step"), lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0, 1)),
        (
            dict(kind="cosine", start=0.5, end=0.01, t_max=10, when="epoch_end"),
            lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10, 0.01),
        ),
    ],
)
def test_schedules_are_torchs(spec, torch_one):
    a, b = sgd(), sgd(0.5)
    ours, theirs = make_schedule(a, spec), torch_one(b)
    for _ in range(10):
        a.step(), b.step(), ours.step(), theirs.step()
        assert a.param_groups[0]["lr"] == pytest.approx(b.param_groups[0]["lr"], rel=1e-9)


def test_schedule_resumes_exactly():
    spec = dict(kind="cosine", start=1e-4, end=1e-16, t_max=20, when="epoch_start")
    a, b = sgd(), sgd()
    sa, sb = make_schedule(a, spec), make_schedule(b, spec)
    for _ in range(7):
        a.step(), sa.step()
    b.load_state_dict(a.state_dict())
    sb.load_state_dict({k: v for k, v in sa.state_dict().items() if not callable(v)})
    for _ in range(5):
        a.step(), sa.step(), b.step(), sb.step()
        assert a.param_groups[0]["lr"] == b.param_groups[0]["lr"]


def test_epoch_units_with_steps():
    opt = sgd()
    s = make_schedule(
        opt, dict(kind="step", start=1.0, every=2, factor=0.1, when="step", unit="epoch"), steps_per_epoch=3
    )
    rates = []
    for _ in range(8):
        opt.step(), s.step()
        rates.append(opt.param_groups[0]["lr"])
    assert rates == pytest.approx([1.0] * 5 + [0.1] * 3)
    assert make_schedule(opt, None) is None


@pytest.mark.parametrize(
    "spec,text",
    [
        (dict(kind="cosin", start=1.0, when="step"), "schedule kind must be one of constant, cosine"),
        (dict(kind="cosine", start=1.0, when="step"), "end, t_max is missing"),
        (dict(kind="constant", start=1.0, when="now"), "when must be"),
        (dict(kind="constant", start=-1.0, when="step"), "start must be a number ≥ 0"),
        (dict(kind="constant", start=1.0, when="step", gamma=0.1), "has no 'gamma'"),
        (dict(kind="cosine", start=1.0, end=0.0, t_max=0, when="step"), "t_max must be at least 1"),
        (dict(kind="geometric", start=1.0, end=0.0, t_max=5, when="step"), "end > 0"),
    ],
)
def test_wrong_schedules_are_explained(spec, text):
    with pytest.raises(ValueError, match=text):
        make_schedule(sgd(), spec)


def test_wrong_names_are_explained():
    with pytest.raises(ValueError, match="no recipe for the data set 'imagenet'.*mnist"):
        recipe("imagenet", "ste")
    with pytest.raises(ValueError, match="no recipe for 'bop' on 'two_moons'; there are bayesbinn, ste"):
        recipe("two_moons", "bop")
    with pytest.raises(ValueError, match="Unknown experiment 'x'"):
        recipe("mnist", "ste", "x")
    with pytest.raises(ValueError, match="uses isbi2012, not 'mnist'"):
        recipe("mnist", "ste", "segmentation")
    with pytest.raises(ValueError, match="Unknown method 'sgd'. Known: bayesbinn"):
        method_class("sgd")
    with pytest.raises(ValueError, match="cannot be loaded"):
        method_class("bayesbinn_nb.methods.ste:Nothing")
    with pytest.raises(TypeError, match="is not a Method"):
        method_class("torch.nn:Linear")
    assert method_class("bayesbinn_nb.methods.ste:STE") is method_class("ste") and set(METHODS) == {
        "bayesbinn",
        "ste",
        "adam",
        "bop",
        "pmf",
        "lrnet",
    }


@pytest.mark.parametrize(
    "method,how,least",
    [
        ("bayesbinn", "mode", 0.6),
        ("ste", "mode", 0.6),
        ("adam", "mode", 0.6),
        ("bop", "mode", 0.6),
        ("pmf", "mode", 0.6),
        ("lrnet", "mean", 0.35),
    ],
)
def test_a_recipe_trains_through_the_trainer(method, how, least):
    from bayesbinn_nb.library.trainer import Trainer

    r = recipe("mnist-standin", method)
    data = load_data(r["dataset"], **r["data"])
    small = dict(width=8, dense=32, bn_momentum=0.1) if method == "lrnet" else dict(hidden=128)
    model = models.build_model(r["model"]["name"], **{**r["model"]["kwargs"], **small})
    if method == "pmf":
        r["method_kwargs"]["beta_every"] = 5  # 200 steps instead of 100,000
    r["schedule"] = r["schedule"] and dict(r["schedule"], t_max=8)
    trainer = Trainer(model, device="cpu", precision=r["precision"], seed=r["seed_base"])
    when = r["schedule"]["when"] if r["schedule"] else "epoch_start"
    trainer.compile(
        method=make_method(r, model, len(data.train)),
        loss=r["loss"],
        metrics=r["metrics"],
        scheduler=(lambda opt: make_schedule(opt, r["schedule"])) if r["schedule"] else None,
        scheduler_step=when,
    )
    trainer.fit(data.train, epochs=8, batch_size=50, progress="silent")
    assert trainer.evaluate(data.test, how=how, samples=7)["accuracy"] > least > 2 * data.baseline()["value"]
    if method != "adam":
        weights = 8 * 25 + 16 * 8 * 25 + 49 * 16 * 32 if method == "lrnet" else 784 * 128 + 2 * 128 * 128 + 1280
        assert models.assert_binary(trainer.model, list(trainer.method.binary_parameters)) == weights


def test_a_method_of_your_own_gets_the_recipe_of_the_experiment():
    own = recipe("mnist-standin", "bayesbinn_nb.methods.write_your_own:SignEMA")
    assert (
        own["experiment"] == "benchmark"
        and own["method_kwargs"] == {}
        and own["model"] == recipe("mnist", "bayesbinn")["model"]
    )
    assert method_class(own["method"]).name == "sign-ema"
