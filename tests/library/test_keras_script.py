"A Keras user's first script runs with the words that Keras has, and what it says is so"

import functools
import inspect

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassF1Score

import bayesbinn_nb
from bayesbinn_nb import (
    STE,
    BayesBiNN,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    StopWhenStill,
    Trainer,
)
from bayesbinn_nb.library.callbacks import Callback, Progress

KERAS_FIT = "x y batch_size epochs verbose callbacks validation_split validation_data class_weight sample_weight"
rng = np.random.default_rng(0)
labels = rng.integers(0, 3, 300).astype(np.uint8)[:, None]  # as Keras' data sets come: a column of bytes
images = rng.normal(size=(300, 4)) + 3 * np.eye(3, 4)[labels[:, 0]]


def net(outputs=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, outputs))


def compiled(method=None, model=None, **settings):
    return Trainer(model or net(), device="cpu").compile(method or STE(lr=0.05), **settings)


def test_the_first_script(capsys):
    model = Trainer(net(), device="cpu")
    method = BayesBiNN(lr=1e-2, temperature=1.0)
    model.compile(optimizer=method, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.summary()
    stop = EarlyStopping(monitor="val_loss", patience=3, restore_best_weights=True)
    history = model.fit(images, labels, batch_size=32, epochs=30, validation_split=0.2, callbacks=[stop], verbose=2)
    loss, accuracy = model.evaluate(images, labels, verbose=0)
    predicted = np.argmax(model.predict(images, verbose=0), axis=1)
    said = capsys.readouterr().out
    assert "Total params: 163" in said.replace(",", "") and "Binary params: 112" in said and "epoch 1/30  loss" in said
    assert set(history.history) >= {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert len(history.history["loss"]) == len(history) and accuracy > 0.8 and loss < 1
    assert float((np.asarray(predicted) == labels[:, 0]).mean()) == pytest.approx(accuracy)
    assert history[-1]["epoch"] == 30 or history[-1]["epoch"] == stop.best_epoch + 3


def test_scores_come_as_keras_gives_them():
    model = compiled(loss="mse", metrics=[])
    targets = images[:, :3]
    assert isinstance(model.evaluate(images, targets), float), "one number, where there is one"
    assert model.evaluate(images, targets, return_dict=True) == {"loss": model.evaluate(images, targets)}
    both = compiled().evaluate(images, labels)
    assert both == list(compiled().evaluate(images, labels, return_dict=True).values()) and len(both) == 2
    assert compiled().evaluate(TensorDataset(torch.tensor(images).float(), torch.tensor(labels[:, 0]).long())).keys()


def test_the_method_has_one_name_at_a_time():
    with pytest.raises(TypeError, match="two words for one thing"):
        Trainer(net()).compile(STE(), optimizer=STE())
    with pytest.raises(TypeError, match="must be a Method such as BayesBiNN.* not str"):
        Trainer(net()).compile(optimizer="adam")
    with pytest.raises(TypeError, match="not NoneType"):
        Trainer(net()).compile(loss="mse")


def test_every_word_of_it_is_one_of_kerass():
    for call, words in (
        (Trainer.compile, "optimizer loss metrics"),
        (Trainer.fit, KERAS_FIT),
        (Trainer.evaluate, "x y batch_size verbose return_dict"),
        (Trainer.predict, "x batch_size verbose"),
        (EarlyStopping, "monitor min_delta patience verbose mode baseline restore_best_weights start_from_epoch"),
        (ModelCheckpoint, "filepath monitor verbose save_best_only save_weights_only mode"),
        (LearningRateScheduler, "schedule verbose"),
        (LambdaCallback, "on_epoch_begin on_epoch_end on_train_begin on_train_end on_train_batch_end"),
    ):
        assert set(words.split()) <= set(inspect.signature(call).parameters), call
    needed = [p.name for p in inspect.signature(Trainer.fit).parameters.values() if p.default is p.empty]
    assert needed == ["self", "x"], "nothing has to be said that Keras does not ask for"


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.last = nn.Linear(2, 8), nn.Linear(2, 8), nn.Linear(8, 3)

    def forward(self, left, right):
        return self.last(torch.relu(self.one(left) + self.two(right)))


class Named(torch.utils.data.Dataset):
    def __len__(self):
        return len(images)

    def __getitem__(self, i):
        x = torch.tensor(images[i], dtype=torch.float32)
        return {"left": x[:2], "right": x[2:], "labels": torch.tensor(int(labels[i, 0]))}


def test_whatever_brings_the_data_the_run_is_the_same():
    x, y = torch.tensor(images, dtype=torch.float32), torch.tensor(labels[:, 0]).long()
    ways = [(images, labels), (x, y), (x.double(), labels[:, 0].astype(np.float32)), (bayesbinn_nb.ArrayData(x, y),)]
    runs = [compiled().fit(*way, epochs=3, verbose=0).column("loss") for way in ways]
    assert all(run == runs[0] for run in runs)
    left, right = images[:, :2], images[:, 2:]
    both = [((left, right), labels), ([left, right], labels), ({"right": right, "left": left}, labels)]
    runs = [compiled(model=Pair()).fit(*way, epochs=3, verbose=0).column("loss") for way in both]
    assert all(run == runs[0] for run in runs)
    for way in (Named(), DataLoader(Named(), batch_size=50), [((x[:, :2], x[:, 2:]), y)]):
        trainer = compiled(model=Pair())
        rows = trainer.fit(way, validation_data=way, epochs=2, verbose=0)
        assert rows[-1]["val_accuracy"] == trainer.evaluate((left, right), labels)[1]
        assert np.allclose(trainer.predict([left, right]), trainer.predict(way), atol=1e-6)
    tensors = TensorDataset(x, y)
    rows = compiled().fit(tensors, validation_data=tensors, test=tensors, epochs=2, verbose=0)
    assert rows[-1]["loss"] < 1.5 and rows[-1]["val_loss"] == rows[-1]["test_loss"]
    assert compiled().evaluate(tensors) == pytest.approx(compiled().evaluate(images, labels, return_dict=True))


def test_words_go_to_an_embedding_whole():
    torch.manual_seed(0)
    texts, good = rng.integers(0, 9, (60, 2)), rng.integers(0, 2, 60)
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 1))
    with pytest.warns(UserWarning, match="stay real"):
        rows = compiled(model=model, loss="binary_crossentropy").fit(texts, good, epochs=2, verbose=0)
    assert 0 <= rows[-1]["accuracy"] <= 1


def test_weights_count_examples_as_often():
    """A weight of 2 is an example that comes twice, a weight of 0 one that is not there, and a class weight is the
    weight of its examples: all in one batch, where nothing else differs."""
    weights = np.where(labels[:, 0] == 1, 2.0, np.where(labels[:, 0] == 2, 0.0, 1.0))
    often = np.repeat(np.arange(300), weights.astype(int))
    by_hand = len(often) / 300

    def first_loss(x, y, **settings):
        model = nn.Linear(4, 3)
        nn.init.constant_(model.bias, 0.1)
        return compiled(model=model).fit(x, y, batch_size=None, epochs=1, verbose=0, **settings)[0]["loss"]

    weighted = first_loss(images, labels, sample_weight=weights)
    assert weighted == pytest.approx(first_loss(images, labels, class_weight={1: 2.0, 2: 0.0}), rel=1e-5)
    torch.manual_seed(0)
    assert weighted == pytest.approx(by_hand * first_loss(images[often], labels[often]), rel=1e-4)


@pytest.mark.parametrize("method", [lambda: STE(lr=0.05), lambda: BayesBiNN(lr=1e-2, temperature=1.0, samples=3)])
def test_gradients_that_accumulate_are_those_of_one_large_batch(method):
    def run(**settings):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
        own = {k: settings.pop(k) for k in ("batch_size",)}
        return compiled(method(), model, **settings).fit(images, labels, epochs=4, verbose=0, **own).column("loss")

    large = run(batch_size=60)
    assert run(batch_size=20, gradient_accumulation_steps=3) == pytest.approx(large, rel=1e-6)
    assert run(batch_size=20) != pytest.approx(large, rel=1e-3)


@pytest.mark.parametrize("rule", [{"clipvalue": 1e-3}, {"global_clipnorm": 1e-3}])
def test_no_pass_hands_over_a_larger_gradient_than_allowed(rule):
    seen = []

    class Watching(STE):
        def take_gradients(self):
            seen.append(torch.cat([p.grad.flatten() for p in self.model.parameters()]))  # the real ones', too
            return super().take_gradients()

    compiled(Watching(), **rule).fit(images, labels, epochs=1, verbose=0)
    largest = max(float(g.abs().max() if "clipvalue" in rule else g.norm()) for g in seen)
    assert 0 < largest <= 1e-3 * (1 + 1e-5)


def test_the_real_parameters_have_a_schedule_of_their_own():
    trainer = compiled(
        BayesBiNN(lr=1e-3),
        real_scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5),
        scheduler_step="epoch_end",
    )
    rows = trainer.fit(images, labels, epochs=3, verbose=0)
    assert rows.column("lr") == [1e-3] * 3
    assert float(trainer.method.real_optimizer.param_groups[0]["lr"]) == pytest.approx(0.01 / 8)
    bare = Trainer(nn.Linear(4, 3, bias=False), device="cpu").compile(STE(), real_scheduler=lambda o: None)
    with pytest.raises(ValueError, match="there are none"):
        bare.fit(images, labels, verbose=0)


def test_metrics_by_name_by_object_and_by_function():
    def margin(outputs, targets):
        best = outputs.topk(2, 1).values
        return best[:, 0] - best[:, 1]

    trainer = compiled(metrics=["accuracy", MulticlassF1Score(num_classes=3), margin])
    rows = trainer.fit(images, labels, epochs=4, validation_split=0.3, verbose=0)
    assert list(rows[0])[2:6] == ["loss", "accuracy", "multiclass_f1_score", "margin"]
    scored, held = trainer.evaluate(images[210:], labels[210:], return_dict=True), labels[210:, 0]
    predicted = trainer.predict(images[210:])
    f1 = MulticlassF1Score(num_classes=3)(torch.tensor(predicted), torch.tensor(held).long())
    assert rows[-1]["val_multiclass_f1_score"] == scored["multiclass_f1_score"] == pytest.approx(float(f1))
    wide = compiled(model=net(8), metrics=["top_5_accuracy"]).fit(images, labels, epochs=1, verbose=0)
    assert wide[0]["top_5_accuracy"] > 0.5


class Cut(Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_begin(self, trainer, logs):
        if logs["epoch"] == self.epoch:
            raise KeyboardInterrupt

    def state_dict(self):
        return {}


RULES = {"global_clipnorm": 0.1, "clipvalue": 0.05, "gradient_accumulation_steps": 2, "scheduler_step": "step"}
HALF = lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)  # noqa: E731


def one_run(folder=None, cut=None, **changed):
    weights = np.linspace(0, 2, 300) if changed.pop("weights", True) else None
    settings = RULES | {"real_scheduler": HALF, "metrics": ["accuracy", MulticlassF1Score(num_classes=3)]} | changed
    trainer = compiled(BayesBiNN(lr=1e-2, temperature=1.0), **settings)
    stop = EarlyStopping("loss", patience=50, restore_best_weights=True)
    calls = [stop, LearningRateScheduler(lambda epoch, rate: rate * 0.9), *([Cut(cut)] if cut else [])]
    class_weight = {0: 2.0, 2: 0.5}
    trainer.fit(
        images,
        labels,
        sample_weight=weights,
        class_weight=class_weight,
        batch_size=32,
        epochs=6,
        callbacks=calls,
        checkpoint_dir=folder,
        verbose=0,
    )
    return trainer


def rows_of(trainer):
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in trainer.history]


def test_a_run_with_all_of_it_goes_on_to_the_same_bit(tmp_path):
    whole = one_run()
    with pytest.raises(KeyboardInterrupt):
        one_run(tmp_path, cut=4)
    resumed = one_run(tmp_path)
    assert rows_of(resumed) == rows_of(whole)
    for a, b in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "changed",
    [{"global_clipnorm": 0.2}, {"clipvalue": None}, {"gradient_accumulation_steps": 3}, {"weights": False}],
)
def test_a_run_with_another_of_it_is_another_run(tmp_path, changed):
    with pytest.raises(KeyboardInterrupt):
        one_run(tmp_path, cut=3)
    with pytest.raises(
        ValueError,
        match=f"belongs to another run: .*{'sample_weight' if 'weights' in changed else next(iter(changed))}",
    ):
        one_run(tmp_path, **changed)
    found = compiled(BayesBiNN(lr=1e-2, temperature=1.0), **RULES)
    with pytest.raises(ValueError, match="another run"):
        found.fit(images, labels, batch_size=32, epochs=6, class_weight={0: 3.0}, checkpoint_dir=tmp_path, verbose=0)


def test_the_best_epoch_is_restored_whole_and_can_go_on():
    stop = EarlyStopping("val_accuracy", patience=2, restore_best_weights=True)
    trainer = compiled(BayesBiNN(lr=1e-2, temperature=1.0))
    rows = trainer.fit(images, labels, epochs=40, validation_split=0.3, callbacks=[stop], verbose=0)
    assert len(rows) == stop.stopped_epoch == stop.best_epoch + 2
    assert trainer.evaluate(images[210:], labels[210:])[1] == stop.best == rows.best("val_accuracy")["val_accuracy"]
    assert len(trainer.fit(images[:210], labels[:210], epochs=len(rows) + 1, verbose=0)) == stop.stopped_epoch + 1


def test_a_saved_epoch_is_one_to_go_on_from(tmp_path):
    keep = ModelCheckpoint(tmp_path / "{epoch}.pt")
    whole = compiled()
    whole.fit(images, labels, epochs=4, callbacks=[keep], verbose=0)
    again = compiled().load(tmp_path / "2.pt")
    assert len(again.history) == 2
    assert rows_of(again)[:2] == rows_of(whole)[:2]
    again.fit(images, labels, epochs=4, verbose=0)
    assert rows_of(again) == rows_of(whole)
    best = ModelCheckpoint(tmp_path / "best.safetensors", "loss", save_best_only=True, save_weights_only=True)
    compiled().fit(images, labels, epochs=2, callbacks=[best], verbose=0)
    loaded = bayesbinn_nb.load_model(tmp_path / "best.safetensors", net())
    assert set(loaded[0].weight.unique().tolist()) == {-1.0, 1.0}


def test_bars_where_somebody_looks_on(capfd, monkeypatch):
    shown = Progress("bar")
    slow = LambdaCallback(on_train_batch_end=lambda step, logs: shown.inner is None or setattr(shown.inner, "delay", 0))
    compiled().fit(images, labels, batch_size=10, epochs=1, callbacks=[slow], progress=shown)
    assert "1/1" in capfd.readouterr().err and shown.inner is None
    told = {"epoch": 2, "step": 3, "steps": 10, "loss": torch.tensor(0.5)}
    shown.on_batch_end(None, told)
    assert shown.inner.n == 4 and shown.inner.total == 10 and "loss 0.5000" in shown.inner.postfix
    shown._close_inner()

    class Kernel:
        kernel = object()

    monkeypatch.setitem(
        __import__("sys").modules, "IPython", type("IPython", (), {"get_ipython": staticmethod(Kernel)})
    )
    for name in ("JPY_SESSION_NAME", "VSCODE_PID", "COLAB_RELEASE_TAG"):
        monkeypatch.delenv(name, raising=False)
    from bayesbinn_nb.library import callbacks

    assert callbacks._shown_as("auto") == "line", "a notebook that a program executes"
    monkeypatch.setenv("JPY_SESSION_NAME", "a.ipynb")
    assert callbacks._shown_as("auto") == "bar"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda t: t.fit(images, labels, validation_split=1.5), "between 0 and 1"),
        (lambda t: t.fit(images, labels, validation_split=0.2, validation_data=(images, labels)), "given twice"),
        (lambda t: t.fit(images, np.eye(3)[labels[:, 0]]), "y.argmax"),
        (lambda t: t.fit(images, labels[:-1]), "as many rows"),
        (lambda t: t.fit(images, labels, class_weight={"a": 1.0}), "class numbers to weights"),
        (lambda t: t.fit(images, labels, verbose=7), "verbose must be"),
        (lambda t: t.fit([(1, 2)], validation_split=0.1), "split it yourself"),
        (lambda t: t.fit(images, labels, callbacks=[EarlyStopping()], verbose=0), "'val_loss', which is not measured"),
        (lambda t: t.compile(STE(), loss="categorical_crossentropy"), "sparse_categorical_crossentropy"),
        (lambda t: t.compile(STE(), clipvalue=0), "clipvalue must be > 0"),
        (lambda t: EarlyStopping(mode="best"), "mode must be"),
        (lambda t: EarlyStopping(min_delta=-1), "min_delta must be"),
    ],
)
def test_what_is_wrong_is_said(call, said):
    with pytest.raises(ValueError, match=said):
        call(compiled())


def test_a_callback_used_again_begins_anew():
    stop = EarlyStopping(patience=3, restore_best_weights=True)
    runs = []
    for callback in (stop, None):
        for seed in range(3):
            trainer = Trainer(net(), device="cpu", seed=seed).compile(BayesBiNN(lr=1e-2, temperature=1.0))
            own = callback or EarlyStopping(patience=3, restore_best_weights=True)
            settings = {"epochs": 8, "validation_split": 0.3, "callbacks": [own], "verbose": 0}
            runs.append((trainer, len(trainer.fit(images, labels, **settings)), own.best_epoch))
    again, alone = runs[:3], runs[3:]
    for (a, *said), (b, *wanted) in zip(again, alone, strict=True):
        assert said[0] == wanted[0]
        assert all(map(torch.equal, a.model.state_dict().values(), b.model.state_dict().values()))
    assert not torch.equal(again[0][0].model[0].weight, again[1][0].model[0].weight)


@pytest.mark.parametrize("make", [lambda: StopWhenStill(2), lambda: ModelCheckpoint("no/{epoch}.pt", "loss")])
def test_every_memory_is_of_one_run(make):
    used, logs = make(), {"epoch": 4, "loss": 0.0, "flipped": 0}
    before = used.state_dict()
    trainer = compiled()
    used.on_train_begin(trainer, {"start": 0, "epochs": 9})
    used.still, used.best, used.best_epoch = 1, 0.0, logs["epoch"]
    used.on_train_begin(trainer, {"start": 4, "epochs": 9})
    assert used.state_dict() != before, "the same run goes on"
    used.on_train_begin(compiled(), {"start": 4, "epochs": 9})
    assert used.state_dict() == before, "another run, of which it has seen nothing"


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    first = compiled(BayesBiNN(lr=1e-2, temperature=1.0))
    first.fit(images, labels, epochs=1, class_weight={0: 2.0}, verbose=0)
    path = first.save(tmp_path / "a.pt")
    for method, said in (
        (BayesBiNN(lr=1e-3, temperature=1.0), "lr was 0.01 there and is 0.001 here"),
        (BayesBiNN(lr=1e-2, temperature=0.5), "temperature was 1.0 there and is 0.5 here"),
    ):
        other = compiled(method).prepare(300)
        before = [p.clone() for p in other.model.parameters()]
        with pytest.raises(ValueError, match=f"a run with other settings: .*{said}.*compile the trainer"):
            other.load(path)
        assert all(map(torch.equal, before, other.model.parameters())), "nothing has changed"
    with pytest.raises(ValueError, match="clipvalue was None there and is 1.0 here"):
        compiled(BayesBiNN(lr=1e-2, temperature=1.0), clipvalue=1.0).load(path)
    same = compiled(BayesBiNN(lr=1e-2, temperature=1.0)).load(path)
    assert same.evaluate(images, labels) == first.evaluate(images, labels)


def test_a_checkpoint_brings_its_number_of_examples(tmp_path):
    trainer = compiled(BayesBiNN(lr=1e-2, temperature=1.0))
    trainer.fit(images[:100], labels[:100], epochs=1, verbose=0)
    path = trainer.save(tmp_path / "a.pt")
    with pytest.warns(UserWarning, match="have 300 examples and had 100"):
        trainer.fit(images, labels, epochs=2, verbose=0)
    trainer.load(path)
    with pytest.warns(UserWarning, match="have 300 examples and had 100"):
        trainer.fit(images, labels, epochs=2, verbose=0)
    assert trainer.method.optimizer.param_groups[0]["train_size"] == 300


@pytest.mark.parametrize("rate", [-0.1, float("nan"), float("inf"), None])
def test_a_schedule_that_gives_no_rate_is_refused(rate):
    with pytest.raises(ValueError, match=f"learning rate {rate} for epoch 0 .*: a rate is a number ≥ 0"):
        compiled().fit(images, labels, callbacks=[LearningRateScheduler(lambda epoch: rate)], verbose=0)


def test_a_file_named_by_what_is_not_measured_is_a_sentence(tmp_path):
    keep = ModelCheckpoint(tmp_path / "{val_loss:.2f}.pt")
    with pytest.raises(ValueError, match="cannot name a file .* in epoch 1: there are .*needs validation data"):
        compiled().fit(images, labels, callbacks=[keep], verbose=0)


SOFT = functools.partial(nn.functional.cross_entropy, label_smoothing=0.1)


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.functional.cross_entropy, SOFT])
def test_cross_entropy_as_a_function_takes_class_numbers(loss):
    numbers = labels[:, 0].astype(np.int64)
    trainer = compiled(loss=loss)
    rows = trainer.fit(images, numbers, epochs=2, validation_data=(images, numbers), verbose=0)
    assert set(rows[0]) >= {"accuracy", "val_accuracy"} and trainer.evaluate(images, numbers)
    if loss is not SOFT:
        named = compiled().fit(images, numbers, epochs=2, verbose=0)
        assert rows.column("loss") == named.column("loss")
    shares = compiled(loss=loss, metrics=[])
    found = shares.fit(images, np.eye(3)[numbers], verbose=0).column("loss")
    assert found == pytest.approx(rows.column("loss")[:1], rel=1e-2), "other roundings, the same mean"


def test_squared_error_has_no_accuracy_and_its_best_is_the_smallest_loss(tmp_path):
    target = images[:, :1] * 2
    settings = {"epochs": 5, "validation_split": 0.3, "verbose": 0, "checkpoint_dir": tmp_path}
    rows = compiled(STE(lr=0.01), net(1), loss="mse").fit(images, target, **settings)
    assert not any("accuracy" in name for name in rows[0])
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert len(best["history"]) == rows.best("val_loss")["epoch"] > 1
    assert "accuracy" in compiled(model=net(1), loss="binary_crossentropy").fit(images, labels > 1, verbose=0)[0]
    assert "accuracy" in compiled(model=net(1), loss="mse", metrics=["accuracy"]).metric_names


def test_a_nan_in_the_data_is_not_the_learning_rate():
    spoilt = images.copy()
    spoilt[7, 2] = np.nan
    with pytest.raises(FloatingPointError, match="x of example 7 holds a NaN or an infinity. Leave such examples out"):
        compiled().fit(spoilt, labels, verbose=0)
    loader = DataLoader(TensorDataset(torch.tensor(spoilt).float(), torch.tensor(labels[:, 0]).long()), 50)
    with pytest.raises(FloatingPointError, match="x of example 7 of batch 0 holds"):
        compiled().fit(loader, verbose=0)


def test_what_is_nearly_right_is_said():
    with pytest.raises(TypeError, match=r"callbacks holds the class EarlyStopping: give an object of it"):
        compiled().fit(images, labels, callbacks=[EarlyStopping], verbose=0)
    stop = EarlyStopping("loss")
    compiled().fit(images, labels, callbacks=stop, verbose=0)
    assert stop.best_epoch == 1
    with pytest.raises(TypeError, match=r"whole DataBundle, which holds several splits: give fit\(bundle.train"):
        compiled().fit(bayesbinn_nb.load_data("digits"), verbose=0)
    with pytest.raises(TypeError, match=r"class_weight must be a dictionary.*not list: give dict\(enumerate"):
        compiled().fit(images, labels, class_weight=[1, 2], verbose=0)


def test_a_step_inside_its_pass_is_refused():
    model = nn.Linear(4, 3, bias=False)
    optimizer = bayesbinn_nb.BayesBiNNOptimizer(model.parameters(), train_size=300)
    with pytest.raises(RuntimeError, match="leave the pass first"), optimizer.sampled_params():
        model(torch.ones(4, 4)).sum().backward()
        optimizer.step()
    with optimizer.sampled_params():
        model(torch.ones(4, 4)).sum().backward()
    optimizer.step()
