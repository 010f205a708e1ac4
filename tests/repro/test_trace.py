"""Rehearsals and traces: true to the real run, the same twice, and a difference named where it is first."""

import copy
import json
import math
import shutil
import sys

import pytest
import torch

from bayesbinn_nb.library.data import load_data
from bayesbinn_nb.library.models import build_model
from bayesbinn_nb.library.recipes import Schedule
from bayesbinn_nb.library.rehearsal import current, digest_of, rehearsing, signs_of, thinned
from bayesbinn_nb.library.together import fit_together
from bayesbinn_nb.library.trainer import Callback, FlipRatio, Trainer
from bayesbinn_nb.methods.bayesbinn import BayesBiNN
from bayesbinn_nb.methods.bop import Bop
from bayesbinn_nb.methods.full_precision import FullPrecision
from bayesbinn_nb.methods.lrnet import LRNet
from bayesbinn_nb.methods.pmf import PMF
from bayesbinn_nb.methods.ste import STE
from bayesbinn_nb.repro import trace
from bayesbinn_nb.repro.suites import experiments_dir, package_dir
from bayesbinn_nb.repro.trace import (
    Executed,
    TraceError,
    agrees,
    bounds,
    compiled_functions,
    first_difference,
    largest_difference,
    levels_here,
    module_of,
    rehearse,
    same_kind,
    seeds_to_rehearse,
)

METHODS = {
    "bayesbinn": lambda: BayesBiNN(lr=1e-3, temperature=1e-2, momentum=0.9, samples=2, mean="lagged"),
    "ste": lambda: STE(lr=1e-2),
    "adam": lambda: FullPrecision(),
    "bop": lambda: Bop(adaptivity_rate=1e-2, threshold=1e-6, decay=0.5, decay_every=2),
    "pmf": lambda: PMF(beta_every=7, lr_every=11, lr_decay=0.5),
    "lrnet": lambda: LRNet(lr=1e-2),
}


@pytest.fixture(scope="module")
def digits():
    data = load_data("digits")
    data.train = data.train.subset(slice(200))
    return data


def new_trainer(method, precision="float32", **settings):
    torch.manual_seed(0)
    model = build_model("mnist_mlp", in_features=64, hidden=16, layers=1)
    return Trainer(model, device="cpu", precision=precision).compile(METHODS[method](), **settings)


def numbers(trainer):
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in trainer.history]


def state(trainer):
    return digest_of(list(trainer.model.state_dict().values()))


# -- a rehearsal


@pytest.mark.parametrize(
    ("method", "precision"), [*((name, "float32") for name in METHODS), ("bayesbinn", "bfloat16"), ("pmf", "bfloat16")]
)
def test_a_rehearsal_is_the_real_run_as_far_as_it_goes(method, precision, digits):
    def falling(optimizer):
        return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)

    def fitted(epochs):
        trainer = new_trainer(method, precision, scheduler=None if method == "bop" else falling)
        trainer.fit(
            digits.train,
            digits.val,
            digits.test,
            epochs=epochs,
            batch_size=50,
            callbacks=[FlipRatio()],
            progress="silent",
        )
        return trainer

    real, whole = fitted(1), fitted(6)
    with rehearsing(steps=4) as rehearsal:  # all steps of an epoch
        rehearsed = fitted(6)
    fit = rehearsal.notes()[0]
    assert numbers(rehearsed) == numbers(real) and state(rehearsed) == state(real)
    assert fit["row"] == numbers(real)[0] and fit["epochs"] == [1, 6]
    assert [len(passes) for passes in fit["losses"]] == [2 if method == "bayesbinn" else 1] * 4
    assert column(fit, "rate at the start") == [row["lr"] for row in whole.history]
    how = rehearsed.method.predictions[-1]
    assert torch.equal(rehearsed.predict(digits.test, how, 2), real.predict(digits.test, how, 2))
    real.fit(digits.train, epochs=2, batch_size=50, progress="silent")  # nor is what would come next disturbed
    rehearsed.fit(digits.train, epochs=2, batch_size=50, progress="silent")
    assert state(rehearsed) == state(real)


def column(fit, name):
    "A column of constants, epoch by epoch"
    found = fit["constants"][name]
    return found["values"] * found["of"] if found["every"] == found["of"] and found["of"] > 1 else found["values"]


@pytest.mark.parametrize(("method", "name", "logged"), [("pmf", "beta", "beta"), ("bop", None, "adaptivity_rate")])
def test_constants_that_move_by_themselves_are_those_of_the_real_run(method, name, logged, digits):
    whole = new_trainer(method)
    whole.fit(digits.train, epochs=6, batch_size=50, progress="silent")
    with rehearsing(steps=3) as rehearsal:
        new_trainer(method).fit(digits.train, epochs=6, batch_size=50, progress="silent")
    fit = rehearsal.notes()[0]
    if method == "bop":
        rates = zip(column(fit, "optimizer 0: lr"), column(fit, "optimizer 0: adaptivity_rate"), strict=True)
        found = [a * b for a, b in rates]
    else:
        found = column(fit, name)
        assert len(set(column(fit, "optimizer 0: lr"))) > 1  # falls with the iterations, too
    real = whole.history.column(logged)
    assert len(set(real)) > 2 and found == real


def test_a_schedule_by_steps_and_rates_set_by_a_callback(digits):
    class ByHand(Callback):
        def on_batch_end(self, trainer, logs):
            trainer.method.optimizers()[0].param_groups[0]["lr"] = 1 / (10 * logs["epoch"] + logs["step"])

    class Listen(Callback):
        def __init__(self):
            self.rates = []

        def on_epoch_end(self, trainer, logs):
            self.rates.append(trainer.method.optimizers()[0].param_groups[0]["lr"])

    falling = {"kind": "geometric", "start": 0.1, "end": 1e-4, "t_max": 20, "when": "step"}
    for settings, callbacks in (
        ({"scheduler": lambda o: Schedule(o, falling), "scheduler_step": "step"}, []),
        ({}, [ByHand()]),
    ):
        listen = Listen()
        run = {"epochs": 5, "batch_size": 50, "progress": "silent"}
        new_trainer("ste", **settings).fit(digits.train, callbacks=[*callbacks, listen], **run)
        with rehearsing(steps=2) as rehearsal:
            new_trainer("ste", **settings).fit(digits.train, callbacks=callbacks, **run)
        assert len(set(listen.rates)) == 5 and column(rehearsal.notes()[0], "optimizer 0: lr") == listen.rates


@pytest.mark.parametrize("when", ["epoch_start", "epoch_end", "step"])
@pytest.mark.parametrize("own", [True, False])
def test_a_schedule_of_the_real_parameters_is_played_through(when, own):
    "Bias and weight have an optimiser each; both rates are those of the real run, epoch by epoch"

    class Noting(Callback):
        "The rates with which an epoch ends, before a schedule of epochs moves on"

        def on_epoch_begin(self, trainer, logs):
            self.rates = [o.param_groups[0]["lr"] for o in trainer.method.optimizers()]

        def on_epoch_end(self, trainer, logs):
            if when == "step":
                self.on_epoch_begin(trainer, logs)
            logs |= {"own": self.rates[0], "real": self.rates[1]}

    def fitted():
        torch.manual_seed(0)
        settings = {"real_scheduler": lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9)}
        if own:
            settings["scheduler"] = lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.1, 20)
        trainer = Trainer(torch.nn.Linear(4, 3), device="cpu")
        trainer.compile(STE(lr=0.01), scheduler_step=when, **settings)
        x, y = torch.randn(40, 4), torch.arange(40) % 3
        trainer.fit(x, y, epochs=5, batch_size=10, callbacks=[Noting()], progress="silent")
        return trainer

    with rehearsing(steps=2) as rehearsal:
        rehearsed = fitted()
    noted, real = rehearsal.notes()[0]["constants"], fitted()
    for name, place in (("own", "optimizer 0: lr"), ("real", "optimizer 1: lr")):
        column = noted[place]["values"]
        assert (column * 5 if noted[place]["every"] == 5 else column) == real.history.column(name), name
    assert len(set(real.history.column("real"))) == 5 and ("rates of the steps" in noted) == (when == "step")
    assert rehearsed.real_scheduler.last_epoch == {"epoch_start": 1, "epoch_end": 1, "step": 2}[when]


def test_several_fits_the_steps_of_each_and_one_that_breaks_off(digits):
    class Explode(Callback):
        def on_batch_end(self, trainer, logs):
            raise ArithmeticError

    run = {"epochs": 3, "batch_size": 50, "progress": "silent"}
    with rehearsing(steps=[3, 1]) as rehearsal:
        first = new_trainer("ste")
        first.fit(digits.train, **run)
        first.fit(digits.train, **run)  # goes on: its second epoch
        with pytest.raises(ArithmeticError):
            new_trainer("bop").fit(digits.train, callbacks=[Explode()], **run)
        new_trainer("pmf").fit(digits.train, **run)
    notes = rehearsal.notes()
    assert [fit["steps"] for fit in notes][:2] == [3, 1] and [fit["epochs"] for fit in notes][:2] == [[1, 3], [2, 3]]
    assert "row" not in notes[2] and notes[2]["steps"] == 0
    assert 2 <= notes[3]["steps"] <= 4 and all(len(passes) == 1 for passes in notes[3]["losses"])
    assert current() is None and json.loads(json.dumps(notes)) == notes


def test_seeds_that_train_together_are_one_fit_with_the_losses_of_each(digits):
    def trainers():
        return [new_trainer("ste") for _ in range(3)]

    with rehearsing(steps=2) as rehearsal:
        fit_together(trainers(), digits.train, digits.val, epochs=5, batch_size=50, progress="silent")
    (fit,) = rehearsal.notes()
    assert len(fit["each"]) == 2 and fit["steps"] == 2 and fit["signs"]["weights"] == 3 * (64 * 16 + 16 * 10)


def test_data_is_short_in_a_rehearsal_only(digits):
    with rehearsing(examples=20):
        short = load_data("mnist-standin")
    whole = load_data("mnist-standin")
    assert len(short.val) == len(short.test) == 20 < len(whole.val) and len(short.train) == len(whole.train)
    assert (short.fingerprint, short.options) == (whole.fingerprint, whole.options)
    assert short.baseline() == whole.baseline()
    assert torch.equal(short.test.x, whole.test.x[:20])


def test_what_is_noted_is_exact():
    ones = torch.ones(3000)
    other = ones.clone()
    other[1] = -1
    assert signs_of([ones])["digest"] != signs_of([other])["digest"] and signs_of([other])["positive"] == 2999
    assert digest_of([torch.zeros(2)]) != digest_of([-torch.zeros(2)])  # the sign of a zero is a bit, too
    values = [0.1 * i for i in range(1000)]
    changed = values[:777] + [math.nextafter(values[777], 0)] + values[778:]
    assert thinned(values)["values"] == thinned(changed)["values"]
    assert thinned(values)["digest"] != thinned(changed)["digest"] and len(thinned(values)["values"]) <= 20


def test_wrong_requests_are_refused():
    for settings, words in (
        ({"steps": 0}, "positive"),
        ({"steps": [2, -1]}, "positive"),
        ({"examples": 0}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=words), rehearsing(**settings):
            pass
    with rehearsing(), pytest.raises(RuntimeError, match="already"), rehearsing():
        pass
    assert current() is None


# -- traces

CONTINUAL = {
    "dataset": "mnist-standin",
    "tasks": 2,
    "epochs": 6,
    "means": ["lagged"],
    "mean_samples": 2,
    "limit": 200,
    "batch_size": 20,
}
PRETRAINED = {
    "dataset": "mnist-standin",
    "method": "lrnet",
    "recipe_of": "lrnet_comparison",
    "epochs": 6,
    "batch_size": 20,
    "model_kwargs": {"width": 4, "dense": 16},
    "method_kwargs": {"init": "pretrained"},
    "pretrain_steps": 10,
    "limit": 200,
    "precision": "float32",
}


@pytest.fixture(scope="module")
def moons():
    return rehearse("two_moons", {"mean_samples": 2}, [0, 1], threads=1, seconds=120)


@pytest.mark.parametrize(
    ("template", "params", "fits"),
    [
        ("two_moons", {"mean_samples": 2}, ["bayesbinn", "ste"]),
        ("continual", CONTINUAL, ["bayesbinn"] * 4),
        ("benchmark", PRETRAINED, ["adam", "lrnet"]),
    ],
)
def test_the_same_twice(template, params, fits, moons):
    seeds = [0, 1]
    first = moons if template == "two_moons" else rehearse(template, params, seeds, threads=1)
    second = rehearse(template, params, seeds, threads=1, steps=first["steps"])
    assert first_difference(first, second) == "" and agrees(first, second, template) == (True, "the same")
    assert set(second["executed"]) <= set(first["executed"])  # what the first compiled, the second takes from the disk
    assert first["machine"] == second["machine"]
    assert [fit["method"] for fit in first["fits"]] == fits and all("row" in fit for fit in first["fits"])
    assert first["seeds"] == (seeds if template == "two_moons" else [0])
    if template == "continual":  # the change of task was rehearsed, with a prior and without
        assert any(name.endswith(".set_prior_to_posterior") for name in first["executed"])
        assert [len(r["extra"]["tasks"]) for r in first["records"]] == [2, 2]


def test_changed_code_is_found_and_rewritten_code_is_not(moons, tmp_path):
    "The package is copied; in one copy a line is another way to say the same, in the other it computes something else"
    source = (package_dir() / "methods" / "method.py").read_text()
    line = "    return out.copy_(hit).mul_(2).sub_(1)\n"
    assert source.count(line) == 1
    found = []
    for name, new in (
        ("same", line.replace("mul_(2).sub_(1)", "sub_(1).mul_(2).add_(1)")),
        ("other", line.replace("hit", "~hit")),
    ):
        shutil.copytree(package_dir(), tmp_path / name / "bayesbinn_nb", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(experiments_dir(), tmp_path / name / "nbs" / "experiments")
        (tmp_path / name / "bayesbinn_nb" / "methods" / "method.py").write_text(source.replace(line, new))
        trace = rehearse(
            "two_moons", {"mean_samples": 2}, [0, 1], threads=1, steps=moons["steps"], root=tmp_path / name
        )
        assert "bayesbinn_nb.methods.method:binary_sign" in trace["executed"]
        found.append(first_difference(moons, trace))
    assert found[0] == "" and "fit " in found[1] and "(ste)" in found[1]


def test_a_failure_names_the_cell():
    with pytest.raises(TraceError, match=r"code cell 2 of two_moons .*'bop'"):
        rehearse("two_moons", {"methods": ["bop"]}, threads=1)
    with pytest.raises(TraceError, match="did not end within 1 second"):
        rehearse("two_moons", threads=1, timeout=1)


def test_one_seed_unless_they_train_together():
    assert seeds_to_rehearse("two_moons", [3, 4]) == [3, 4] and seeds_to_rehearse("benchmark", [3, 4]) == [3]


# -- differences


def mutated(trace, how):
    other = copy.deepcopy(trace)
    how(other)
    return other


def nudge(number):
    return math.nextafter(number, math.inf)


def loss_of_step(trace, step, fit=0, factor=None):
    losses = trace["fits"][fit]["losses"][step - 1]
    value = float.fromhex(losses[-1])
    losses[-1] = (nudge(value) if factor is None else value * factor).hex()


@pytest.mark.parametrize("part", ["row", "signs", "constants", "losses", "fits", "records", "machine"])
def test_a_damaged_trace_is_said_to_be_damaged(moons, part):
    damaged = copy.deepcopy(moons)
    (damaged if part in damaged else damaged["fits"][0])[part] = 5
    with pytest.raises(TraceError, match="a trace is damaged"):
        first_difference(moons, damaged)


def test_the_first_difference_is_the_first_in_time(moons):
    def both(t):
        t["fits"][0]["row"]["loss"] = nudge(t["fits"][0]["row"]["loss"])
        loss_of_step(t, 3, fit=1)

    for how, words in (
        (lambda t: loss_of_step(t, 2), "fit 1 (bayesbinn), step 2"),
        (both, "fit 1 (bayesbinn), epoch 1: loss"),
        (lambda t: t["fits"][1]["signs"].update(digest="0"), "fit 2 (ste), after epoch 1: binary weights"),
        (lambda t: t["fits"][1].update(real="0"), "fit 2 (ste), after epoch 1: real parameters"),
        (lambda t: t["fits"][0]["constants"].pop("optimizer 0: momentum"), "momentum"),
        (lambda t: t["fits"][0]["constants"]["optimizer 0: lr"].update(digest="0"), "one of the epochs between"),
        (lambda t: t["records"][1]["history"]["train_loss"].__setitem__(0, 7.0), "record of seed 0, ste: history"),
        (lambda t: t["records"][0].update(data="other"), "record of seed 0, bayesbinn: data"),
        (lambda t: t["records"].pop(), "is missing"),
        (lambda t: t["fits"].append(t["fits"][0]), "is new"),
        (lambda t: t.update(seeds=[0]), "the seeds were [0, 1] and are [0]"),
    ):
        assert words in first_difference(moons, mutated(moons, how)), words
    nan = mutated(moons, lambda t: t["fits"][0]["row"].update(loss=math.nan))
    assert first_difference(nan, copy.deepcopy(nan)) == ""
    assert first_difference(moons, json.loads(json.dumps(moons))) == ""


def test_how_much_is_measured_kind_by_kind(moons):
    def change(t):
        loss_of_step(t, 3, factor=1.5)
        bits = len(t["fits"][0]["signs"]["sample"]) * 4
        t["fits"][0]["signs"]["sample"] = f"{int(t['fits'][0]['signs']['sample'], 16) ^ 0b111:0{bits // 4}x}"
        t["fits"][1]["row"]["accuracy"] = abs(t["fits"][1]["row"]["accuracy"] - 0.1)
        t["fits"][0]["constants"]["optimizer 0: lr"]["values"][0] *= 2

    amount = largest_difference(moons, mutated(moons, change))
    first, second = amount["loss"]
    assert first[:2] == [0, 0] and first[2] == first[-1] == pytest.approx(1 / 3) and set(second) == {0}
    assert 0 < amount["signs"] < 0.02 and amount["accuracy"] == pytest.approx(0.1) and amount["rates"] == 0.5
    gone = largest_difference(moons, mutated(moons, lambda t: t["fits"].pop()))
    assert "one of the traces only" in gone["other"]


def test_only_equal_bits_on_one_kind_of_processor_are_the_same(moons):
    bound = {"loss": [[1e-6]], "signs": 0.0, "accuracy": 0.0, "numbers": 0.0, "rates": 0.0}

    def elsewhere(t):
        t["machine"]["processor"] = "another"

    def off_by(factor):
        return mutated(moons, lambda t: (elsewhere(t), loss_of_step(t, 1, factor=factor)))

    def said(new, bound=bound):
        return agrees(moons, new, "two_moons", bound)

    assert said(copy.deepcopy(moons)) == (True, "the same")
    assert said(mutated(moons, elsewhere)) == (True, "agrees, other machine: every bit")
    for factor, wanted in ((1 + 1e-7, True), (1 + 1e-4, False)):
        agreed, sentence = said(off_by(factor))
        assert agreed is wanted and "other machine" in sentence and "the same" not in sentence
    assert said(mutated(moons, lambda t: loss_of_step(t, 1)))[0] is False  # here the last bit decides
    assert said(mutated(moons, lambda t: (elsewhere(t), t["fits"].pop())))[0] is False
    assert agrees(moons, off_by(1 + 1e-7), "no such template")[0] is False
    for change in ({"threads": 7}, {"level": "no such level"}, {"limits": {"MKL_CBWR": "COMPATIBLE"}}):
        assert not same_kind(moons["machine"], moons["machine"] | change)


def test_levels_are_never_above_the_machine():
    assert list(levels_here("AVX512")) == ["native", "avx2", "oldest"]
    assert list(levels_here("AVX2")) == ["native", "oldest"]
    assert list(levels_here("DEFAULT")) == list(levels_here("NO AVX")) == ["native"]
    assert all(not variables for name, variables in levels_here().items() if name == "native")


def test_every_template_that_trains_has_a_bound():
    table = {name: bound for name, bound in bounds().items() if name != "measured"}
    trains = {p.stem for p in experiments_dir().glob("*.ipynb") if p.stem != "speed"}
    assert set(table) == trains
    for bound in table.values():
        assert all(losses == sorted(losses) and len(losses) >= 2 for losses in bound["loss"])
        assert bound["loss"] and len(bound["levels"]) >= 2
        assert 0 <= bound["signs"] < 0.5 and 0 <= bound["accuracy"] < 1 and bound["rates"] == 0


# -- what ran


def test_functions_that_ran_are_named_and_those_of_an_import_are_apart(tmp_path, monkeypatch):
    (tmp_path / "heard_of.py").write_text(
        "def early(): return [i for i in (1, 2)]\n"
        "def both(): return 1\n"
        "TABLE = early(), both()\n"
        "class Thing:\n"
        "    def used(self): return [x for x in map(lambda y: y, TABLE)], both()\n"
        "    def unused(self): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with Executed({str(tmp_path / "heard_of.py"): "heard_of"}) as heard:
        import heard_of

        heard_of.Thing().used()
    ours = {name for name in heard.run if name.startswith("heard_of:")}
    assert ours == {"heard_of:Thing.used", "heard_of:Thing.used.<locals>.<lambda>", "heard_of:both"}
    assert {name for name in heard.at_import if name.startswith("heard_of:")} == {"heard_of:early", "heard_of:Thing"}
    assert sys.gettrace() is None
    del sys.modules["heard_of"]


def test_compiled_functions_count_with_all_that_is_compiled_into_them():
    kernels = pytest.importorskip("bayesbinn_nb.methods.kernels.compiled", exc_type=ImportError)
    kernels.sample_weights_(torch.empty(100), torch.randn(100), 0.5, (1, 2))
    found = {name.partition(":")[2] for name in compiled_functions() if "kernels.compiled:" in name}
    assert {"_sample", "_draw", "_uniform", "_log", "_put", "_put_for"} <= found
    assert module_of(__file__) is None and module_of(kernels.__file__) == "bayesbinn_nb.methods.kernels.compiled"


def test_levels_are_compared_in_one_arithmetic(monkeypatch):
    asked = []

    def rehearsed(template, params, **options):
        asked.append(params)
        return {"steps": [1], "fits": [], "records": []}

    monkeypatch.setattr(trace, "rehearse", rehearsed)
    monkeypatch.setattr(
        trace, "largest_difference", lambda a, b: dict.fromkeys(trace._AMOUNTS, 0.0) | {"loss": [[0.0]], "other": ""}
    )
    two = {"native": {}, "oldest": {}}
    trace.measure_bound("benchmark", [{}, {"precision": "bfloat16"}], levels=two)
    trace.measure_bound("two_moons", [{}], levels=two)
    assert asked == [{"precision": "float32"}] * 2 + [{"precision": "bfloat16"}] * 2 + [{}] * 2
