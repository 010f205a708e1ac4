"""What is nearly right goes in with a sentence, never with a traceback from inside PyTorch."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bayesbinn_nb.library.data import ArrayData
from bayesbinn_nb.library.models import BinaryExcept, binary_names
from bayesbinn_nb.library.trainer import Trainer
from bayesbinn_nb.methods.ste import STE

X, Y = torch.randn(40, 4), torch.randint(0, 3, (40,))


class Dicts(torch.utils.data.Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return {"image": X[i], "answer": Y[i]}


def toy(net=None, **settings):
    net = net or nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    return Trainer(net, device="cpu").compile(STE(), **settings)


def words(sparse):
    return nn.Sequential(nn.Embedding(9, 4, sparse=sparse), nn.Flatten(), nn.Linear(8, 3))


WRONG = {
    "dict": (toy, lambda: DataLoader(Dicts(), batch_size=8), r"a dict with 'image', 'answer'.*batch\['image'\]"),
    "three": (toy, lambda: DataLoader(TensorDataset(X, Y, Y), batch_size=8), "a list of 3.*batch.0., batch.1."),
    "three in a list": (toy, lambda: [(X, Y, Y)], "a tuple of 3"),
    "numpy": (toy, lambda: [(X.numpy(), Y.numpy())], "pair of tensors.*ndarray"),
    "int32": (toy, lambda: ArrayData(X, Y.int()), r"int32, and cross-entropy wants .*int64: give y.long\(\)"),
    "float64": (toy, lambda: [(X.double(), Y)], r"inputs are float64 and the network is float32: give x.float\(\)"),
    "wide": (lambda: toy(nn.Linear(4, 3).double()), lambda: ArrayData(X, Y), "ArrayData always gives float32"),
    "last of one": (toy, lambda: ArrayData(X[:33], Y[:33]), "A batch holds 1 example.*drop_last=True"),
    "sparse": (
        lambda: toy(words(True)),
        lambda: [(torch.zeros(4, 2, dtype=torch.long), Y[:4])],
        "0 gives sparse gradients",
    ),
}


STAYS_REAL = "ignore:These weights stay real"  # an embedding, which is what these cases are about


@pytest.mark.filterwarnings(STAYS_REAL)
@pytest.mark.parametrize("case", WRONG)
def test_a_sentence_names_the_thing_and_the_way_out(case):
    trainer, data, said = WRONG[case]
    with pytest.raises((TypeError, ValueError), match=said):
        trainer().fit(data(), epochs=1, batch_size=8, progress="silent")


@pytest.mark.parametrize("case", ["dict", "three", "int32", "float64"])
def test_evaluation_says_it_too(case):
    _, data, said = WRONG[case]
    with pytest.raises((TypeError, ValueError), match=said):
        toy().evaluate(data())


def test_a_lazy_layer_is_asked_to_see_a_batch_first():
    net = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(3))
    with pytest.raises(ValueError, match="0.weight of LazyLinear has no shape yet: call the model once on a batch"):
        toy(net)
    net(X)
    assert len(toy(net).fit(ArrayData(X, Y), epochs=1, progress="silent")) == 1


@pytest.mark.filterwarnings(STAYS_REAL)
def test_sparse_gradients_go_where_they_are_understood():
    data = [(torch.randint(0, 9, (8, 2)), Y[:8])]
    net = words(True)
    method = STE(real_optimizer=lambda p: torch.optim.SGD(p, 0.1))
    assert len(Trainer(net, device="cpu").compile(method).fit(data, epochs=1, progress="silent")) == 1
    assert len(toy(words(False)).fit(data, epochs=1, progress="silent")) == 1


def test_a_loader_without_targets_predicts():
    trainer = toy()
    expected = trainer.predict(X)
    for data in (DataLoader(TensorDataset(X), batch_size=40), [(X,)], [(X, Y)]):
        assert torch.equal(trainer.predict(data), expected)


def test_a_misspelt_layer_is_refused_and_a_wrapped_model_keeps_its_names():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(ValueError, match="no layer 'last' to keep real; the layers with weights are 0, 2"):
        Trainer(net, device="cpu").compile(STE(binary=BinaryExcept(["last"]))).prepare(10)
    assert binary_names(net, BinaryExcept(["2"])) == ["0.weight"]
    assert binary_names(nn.DataParallel(net), BinaryExcept(["2"])) == ["module.0.weight"]
    assert binary_names(net, BinaryExcept("2")) == ["0.weight"], "one name alone"
