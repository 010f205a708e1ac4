"""Data: what a batch is, where randomness comes from, what a missing or damaged file says."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF

from bayesbinn_nb.library import data as D
from bayesbinn_nb.library.data import (
    ArrayData,
    CropFlip,
    DataBundle,
    Dihedral,
    crop_flip,
    data_root,
    load_data,
    split_indices,
)


def need(name):
    try:
        D.require(name, None)
    except FileNotFoundError as e:
        pytest.skip(str(e))


def images(n=50, c=3, size=32):
    return torch.randint(0, 256, (n, c, size, size), dtype=torch.uint8)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# --- ArrayData


def test_normalisation_is_torchvisions():
    x = images()
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    batch, _ = ArrayData(x, mean=mean, std=std).batch(slice(0, 10))
    assert batch.dtype == torch.float32
    assert torch.allclose(batch, TF.normalize(x[:10].float() / 255, mean, std), atol=1e-5)


def test_per_image_standardisation():
    x, _ = ArrayData(images(), per_image=True).tensors()
    flat = x.flatten(1)
    assert torch.allclose(flat.mean(1), torch.zeros(50), atol=1e-5) and torch.allclose(
        flat.std(1, correction=0), torch.ones(50), atol=1e-4
    )
    grey, _ = ArrayData(torch.full((1, 3, 4, 4), 9, dtype=torch.uint8), per_image=True).tensors()
    assert torch.equal(grey, torch.zeros(1, 3, 4, 4))  # a constant image does not divide by zero


def test_float_data_is_not_changed_in_place():
    x = torch.randn(6, 2)
    a = ArrayData(x, torch.arange(6), mean=1.0, std=2.0)
    before = x.clone()
    assert torch.allclose(a.tensors()[0], (x - 1) / 2) and torch.equal(x, before)


def test_batches_cover_once_and_restart_from_the_generator():
    a = ArrayData(images(53), torch.arange(53), augmentation=CropFlip())
    g = generator(3)
    state = g.get_state()
    first = list(a.batches(10, shuffle=True, generator=g, augment=True))
    assert [len(y) for _, y in first] == [10] * 5 + [3]
    assert torch.equal(torch.cat([y for _, y in first]).sort()[0], torch.arange(53))
    second = list(a.batches(10, shuffle=True, generator=g, augment=True))
    assert not torch.equal(first[0][1], second[0][1])
    g.set_state(state)
    again = a.batches(10, shuffle=True, generator=g, augment=True)
    for (x1, y1), (x2, y2) in zip(first, again, strict=True):
        assert torch.equal(x1, x2) and torch.equal(y1, y2)
    assert all(torch.equal(x1, x2) for (x1, _), (x2, _) in zip(again, again))  # the pass itself can be repeated
    assert len(again) == 6 and len(a.batches(10, drop_last=True)) == 5 and len(a.batches()) == 1


def test_order_does_not_touch_other_generators():
    a = ArrayData(images(20), torch.arange(20), augmentation=CropFlip())
    before, np_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    list(a.batches(5, shuffle=True, generator=generator(), augment=True))
    assert torch.equal(before, torch.get_rng_state()) and (np_before == np.random.get_state()[1]).all()


def test_whole_epoch_is_drawn_at_the_call():
    "An epoch left half-way consumes as many random numbers as a whole one, so a checkpoint between epochs is exact."
    a = ArrayData(images(20), torch.arange(20), augmentation=CropFlip())
    g1, g2 = generator(), generator()
    next(iter(a.batches(5, shuffle=True, generator=g1, augment=True)))
    list(a.batches(5, shuffle=True, generator=g2, augment=True))
    assert torch.equal(g1.get_state(), g2.get_state())


def test_array_data_errors():
    with pytest.raises(ValueError, match="x holds 3 examples and y 2"):
        ArrayData(torch.zeros(3, 2), torch.zeros(2))
    with pytest.raises(ValueError, match="std must be > 0"):
        ArrayData(torch.zeros(3, 2), std=0.0)
    with pytest.raises(ValueError, match=r"1 or 2 values \(one per channel\), got 3"):
        ArrayData(torch.zeros(3, 2), mean=(1.0, 2.0, 3.0))
    with pytest.raises(ValueError, match="at least one example"):
        ArrayData(torch.zeros(0, 2))
    a = ArrayData(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        a.batches(0)
    with pytest.raises(TypeError, match="batch_size must be an int"):
        a.batches(2.0)
    with pytest.raises(ValueError, match="leaves no batch"):
        a.batches(4, drop_last=True)


# --- augmentation: each draw is torchvision's picture, and the draws have torchvision's distribution


def test_crop_flip_is_torchvisions_for_every_draw():
    x = images(1, 3, 32)
    for dy in range(9):
        for dx in range(9):
            for m in (0, 1):
                expected = TF.crop(TF.pad(x, 4), dy, dx, 32, 32)
                expected = TF.hflip(expected) if m else expected
                assert torch.equal(crop_flip(x, torch.tensor([[dy, dx]]), torch.tensor([m])), expected)


def test_crop_flip_is_per_example():
    x, draws = images(40), CropFlip().draw(40, generator(1))
    together, _ = CropFlip()(x, None, draws)
    single = torch.cat([CropFlip()(x[i : i + 1], None, draws[i : i + 1])[0] for i in range(40)])
    assert torch.equal(together, single) and together.dtype == torch.uint8


def test_crop_flip_draws_are_uniform():
    n = 81 * 2 * 200
    draws = CropFlip(4).draw(n, generator(0))
    cell = (draws[:, 0] * 9 + draws[:, 1]) * 2 + draws[:, 2]
    counts = torch.bincount(cell, minlength=162)
    assert len(counts) == 162
    chi2 = ((counts - 200) ** 2 / 200.0).sum().item()  # 161 degrees of freedom: mean 161, sd 17.9
    assert 161 - 4 * 17.9 < chi2 < 161 + 5 * 17.9
    assert CropFlip(2).draw(1000)[:, :2].max() == 4 and CropFlip(4, flip=False).draw(100)[:, 2].max() == 0


def test_dihedral_moves_labels_with_images():
    x = torch.rand(16, 1, 6, 6)
    draws = Dihedral().draw(16, generator(2))
    moved, labels = Dihedral()(x, x[:, 0], draws)
    assert torch.equal(moved[:, 0], labels) and len(draws.unique(dim=0)) > 4
    assert torch.equal(moved.flatten(1).sort()[0], x.flatten(1).sort()[0])
    with pytest.raises(ValueError, match="square images"):
        Dihedral()(torch.rand(2, 1, 4, 6), None, draws[:2])


# --- splits and roots


def test_split_is_the_authors():
    np.random.seed(7)
    order = list(range(505))
    np.random.shuffle(order)
    train, val = split_indices(505, 0.1, 7)
    assert list(val) == order[:50] and list(train) == order[50:]
    assert len(split_indices(505, 0.0)[1]) == 0 and list(split_indices(3, 0)[0]) == [0, 1, 2]
    with pytest.raises(ValueError, match=r"fraction in \[0, 1\)"):
        split_indices(10, 1.0)


def test_data_root_order(monkeypatch, tmp_path):
    monkeypatch.setenv("BAYESBINN_DATA", str(tmp_path / "env"))
    assert data_root() == tmp_path / "env" and data_root(tmp_path) == tmp_path
    monkeypatch.delenv("BAYESBINN_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if os.name == "posix":
        assert data_root().name == "bayesbinn_nb"


# --- sets that need no files


def test_two_moons():
    b = load_data("two_moons")
    x, y = b.train.tensors()
    assert x.shape == (200, 2) and y.shape == (200, 1) and y.sum() == 100 and b.val is None and b.task == "binary"
    assert torch.allclose(x.mean(0), torch.zeros(2), atol=1e-6) and torch.allclose(
        x.std(0, correction=1), torch.ones(2), atol=1e-6
    )
    mean, sd = b.extras["x_scaler"]
    assert mean.shape == (2,) and sd.shape == (2,)
    assert b.fingerprint == load_data("two_moons").fingerprint


def test_digits_and_its_options():
    b = load_data("digits")
    assert (
        (len(b.train), len(b.val), len(b.test)) == (1437 - 143, 143, 360)
        and b.input_shape == (1, 8, 8)
        and b.stand_in is None
    )
    small = load_data("digits", limit=100, eval_limit=50)
    assert (len(small.train), len(small.val), len(small.test)) == (100, 50, 50)
    assert torch.equal(small.train.x, b.train.x[:100])
    prints = {
        load_data("digits", **kw).fingerprint
        for kw in (dict(), dict(limit=100), dict(split_seed=1), dict(validation=0.0))
    }
    assert len(prints) == 4 and all(p.startswith("digits:") for p in prints)
    assert load_data("digits", validation=0.0).val is None
    base = b.baseline()
    assert base["metric"] == "accuracy" and 0.08 < base["value"] < 0.14
    with pytest.raises(ValueError, match="limit must be 1 … 1294"):
        load_data("digits", limit=5000)


def test_unknown_name():
    with pytest.raises(ValueError, match="Unknown data set 'mist'. Known: mnist"):
        load_data("mist")


# --- missing and damaged files


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
def test_missing_files_say_what_where_and_how(name, tmp_path):
    with pytest.raises(FileNotFoundError) as e:
        load_data(name, root=tmp_path)
    text = str(e.value)
    assert str(tmp_path) in text and f"bayesbinn data --fetch {name}" in text and "BAYESBINN_DATA" in text


def test_missing_snelson_says_where_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="gatsby.ucl.ac.uk/~snelson"):
        load_data("snelson", root=tmp_path)


def write_idx(path, array):
    head = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + array.tobytes())


def fake_mnist(root, train=60000, seed=0):
    rng = np.random.default_rng(seed)
    for stem, n in (("train", train), ("t10k", 10000)):
        write_idx(root / "MNIST/raw" / f"{stem}-images-idx3-ubyte", rng.integers(0, 255, (n, 28, 28), dtype=np.uint8))
        write_idx(root / "MNIST/raw" / f"{stem}-labels-idx1-ubyte", rng.integers(0, 10, n, dtype=np.uint8))


def test_mnist_checks_decoded_content(tmp_path):
    fake_mnist(tmp_path)
    with pytest.raises(ValueError, match="decoded arrays have checksum .*verify=False.*BAYESBINN_DATA"):
        load_data("mnist", root=tmp_path)
    b = load_data("mnist", root=tmp_path, verify=False)
    assert (len(b.train), len(b.val), len(b.test)) == (54000, 6000, 10000)
    path = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
    whole = path.read_bytes()
    path.write_bytes(whole[:1_000_000])
    with pytest.raises(ValueError, match=r"MNIST is damaged: train-images-idx3-ubyte \(1000000 bytes\).*get it again"):
        load_data("mnist", root=tmp_path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"damaged: train-images-idx3-ubyte \(0 bytes\)"):
        load_data("mnist", root=tmp_path)
    write_idx(path, np.zeros((100, 28, 28), np.uint8))
    with pytest.raises(
        ValueError, match=r"train images decodes to shape \(100, 1, 28, 28\), expected \(60000, 1, 28, 28\)"
    ):
        load_data("mnist", root=tmp_path, verify=False)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="lacks train-images-idx3-ubyte"):
        load_data("mnist", root=tmp_path)


def test_cifar_names_the_damaged_file(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for f in D.SETS["cifar10"]["files"]:
        (folder / f).write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match="CIFAR-10 is damaged: data_batch_1"):
        load_data("cifar10", root=tmp_path)


def test_damaged_snelson(tmp_path):
    folder = tmp_path / "snelson"
    folder.mkdir()
    for f, n in (("train_inputs", 200), ("train_outputs", 199), ("test_inputs", 301)):
        (folder / f).write_text("\n".join(["1.0"] * n))
    with pytest.raises(ValueError, match=r"train_outputs decodes to shape \(199,\)"):
        load_data("snelson", root=tmp_path)
    (folder / "train_outputs").write_text("1.0\ntwo\n")
    with pytest.raises(ValueError, match="not a list of numbers"):
        load_data("snelson", root=tmp_path)


# --- the real sets, where they are


def test_real_mnist():
    need("mnist")
    b = load_data("mnist", split_seed=1)
    assert (len(b.train), len(b.val), len(b.test)) == (54000, 6000, 10000) and b.stand_in is None
    x, y = next(iter(b.train.batches(100)))
    assert x.shape == (100, 1, 28, 28) and y.dtype == torch.int64
    whole = load_data("mnist", validation=0.0)
    x, _ = whole.train.tensors()
    assert abs(x.mean()) < 1e-3 and abs(x.std() - 1) < 1e-3
    assert torch.bincount(whole.train.y).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert len({b.fingerprint, whole.fingerprint, load_data("mnist", split_seed=2).fingerprint}) == 3


def test_real_snelson():
    need("snelson")
    b = load_data("snelson")
    x, y = b.train.tensors()
    assert torch.allclose(x.std(0, correction=1), torch.ones(1)) and torch.allclose(
        y.mean(0), torch.zeros(1), atol=1e-6
    )
    assert b.extras["test_inputs"].x.shape == (301, 1) and b.extras["test_inputs"].y is None
    mean, sd = b.extras["x_scaler"]
    raw = x.double().numpy() * sd + mean
    assert abs(raw.min() - 0.0598) < 1e-3 and abs(raw.max() - 5.966) < 1e-2
    assert b.baseline()["value"] == pytest.approx(1 - 1 / 200, rel=1e-4)


def test_real_isbi():
    need("isbi2012")
    b = load_data("isbi2012")
    assert len(b.train) == 24 and len(b.val) == 6 and b.test is None and b.task == "segmentation"
    x, y = b.train.tensors()
    assert (
        x.shape == (24, 1, 512, 512) and y.shape == (24, 512, 512) and abs(x.mean()) < 1e-4 and abs(x.std() - 1) < 1e-3
    )
    assert 0.7 < (y == 1).double().mean() < 0.85
    assert x[:, 0][y == 1].mean() > 0.2 and x[:, 0][y == 0].mean() < -0.5  # aligned: membranes are dark
    tiles = load_data("isbi2012", crop=256)
    assert len(tiles.train) == 96 and tiles.input_shape == (1, 256, 256)
    assert torch.equal(tiles.train.x[1, 0], b.train.x[0, 0, :256, 256:]) and torch.equal(
        tiles.train.y[2], b.train.y[0, 256:, :256]
    )


def test_real_cifar10():
    need("cifar10")
    b = load_data("cifar10", split_seed=10)
    assert (
        (len(b.train), len(b.val), len(b.test)) == (45000, 5000, 10000)
        and isinstance(b.train.augmentation, CropFlip)
        and b.val.augmentation is None
    )
    x, _ = next(iter(b.train.batches(50, shuffle=True, generator=generator(), augment=True)))
    assert x.shape == (50, 3, 32, 32) and x.min() >= -2.5 and x.max() <= 2.8
    assert [(r["name"], r["state"]) for r in D.data_status(decode=False) if r["name"] == "cifar10"] == [
        ("cifar10", "present")
    ]


# --- stand-ins and options of the image sets


@pytest.mark.parametrize(
    "name,sizes,shape,classes",
    [
        ("mnist-standin", (1294, 143, 360), (1, 28, 28), 10),
        ("cifar10-standin", (1800, 200, 500), (3, 32, 32), 10),
        ("cifar100-standin", (4500, 500, 1000), (3, 32, 32), 100),
    ],
)
def test_stand_ins_say_what_they_are(name, sizes, shape, classes):
    b = load_data(name)
    assert (len(b.train), len(b.val), len(b.test)) == sizes and b.input_shape == shape and b.num_classes == classes
    assert b.stand_in.startswith("This is not ") and b.name == name and b.fingerprint == load_data(name).fingerprint
    assert sorted(b.test.y.unique().tolist()) == list(range(classes))
    assert not torch.equal(b.train.x[0], b.test.x[0])


def test_real_names_never_give_a_stand_in(tmp_path):
    for name in D.SETS:
        with pytest.raises(FileNotFoundError):
            load_data(name, root=tmp_path)


def test_isbi_standin_is_aligned_and_can_be_cropped():
    b = load_data("isbi2012-standin")
    x, y = b.train.tensors()
    assert x.shape == (16, 1, 96, 96) and y.shape == (16, 96, 96) and 0.6 < y.double().mean() < 0.9
    assert x[:, 0][y == 1].mean() > 0.2 and x[:, 0][y == 0].mean() < -0.5
    assert isinstance(b.train.augmentation, Dihedral) and b.val.augmentation is None
    base = b.baseline()
    assert base["name"] == "cell everywhere" and base["value"] + base["pixel_error"] == pytest.approx(1)
    tiles = load_data("isbi2012-standin", crop=32)
    assert len(tiles.train) == 144 and torch.equal(tiles.train.x[4], b.train.x[0][:, 32:64, 32:64])
    with pytest.raises(ValueError, match="crop must divide the image side 96"):
        load_data("isbi2012-standin", crop=40)


def test_inputs_and_split_options():
    b = load_data("cifar10-standin", inputs="signed", augment=False)
    x, _ = b.train.tensors()
    assert x.min() >= -1 and x.max() <= 1 and b.train.augmentation is None
    x, _ = load_data("cifar10-standin", inputs="per_image", pad=2).test.tensors()
    assert torch.allclose(x.flatten(1).mean(1), torch.zeros(500), atol=1e-4)
    whole, last = load_data("mnist-standin", validation=0.0), load_data("mnist-standin", split="last")
    assert torch.equal(last.val.x, whole.train.x[-143:]) and torch.equal(last.train.x, whole.train.x[:-143])
    with pytest.raises(ValueError, match="inputs must be"):
        load_data("mnist-standin", inputs="raw")
    with pytest.raises(ValueError, match="split must be"):
        load_data("mnist-standin", split="first")
    with pytest.raises(ValueError, match="two_moons has no limit"):
        load_data("two_moons", limit=10)
    with pytest.raises(TypeError, match="limit must be an int"):
        load_data("digits", limit=10.5)


def test_permuted_mnist():
    base = load_data("mnist-standin", validation=0.0)
    t1, t2 = (D.permuted_mnist(t, seed=3, base=base) for t in (1, 2))
    p1, p2 = t1.extras["permutation"], t2.extras["permutation"]
    assert (
        torch.equal(p1.sort()[0], torch.arange(784))
        and not torch.equal(p1, p2)
        and not torch.equal(p1, torch.arange(784))
    )
    assert torch.equal(t1.train.tensors()[0].flatten(1), base.train.tensors()[0].flatten(1)[:, p1])
    assert torch.equal(t1.extras["permutation"], D.permuted_mnist(1, seed=3, base=base).extras["permutation"])
    assert (
        len({t1.fingerprint, t2.fingerprint, base.fingerprint, D.permuted_mnist(1, seed=4, base=base).fingerprint}) == 4
    )
    assert t1.val is None and t1.stand_in == base.stand_in and t1.name == "permuted-mnist-standin"
    with pytest.raises(ValueError, match="counts from 1, got 0"):
        D.permuted_mnist(0, base=base)
    with pytest.raises(ValueError, match="no validation split"):
        D.permuted_mnist(1, base=load_data("mnist-standin"))


def test_status_and_fetch(tmp_path, monkeypatch):
    states = {r["name"]: r["state"] for r in D.data_status(tmp_path)}
    assert states == dict(
        mnist="missing",
        cifar10="missing",
        cifar100="missing",
        isbi2012="missing",
        snelson="missing",
        two_moons="built in",
        digits="built in",
    )
    (tmp_path / "snelson").mkdir()
    for f in D.SETS["snelson"]["files"]:
        (tmp_path / "snelson" / f).write_text("1.0\n")
    row = next(r for r in D.data_status(tmp_path) if r["name"] == "snelson")
    assert row["state"] == "damaged" and "decodes to shape (1,)" in row["detail"]
    with pytest.raises(RuntimeError, match="cannot be downloaded automatically.*imagej.net"):
        D.fetch("isbi2012", tmp_path)
    with pytest.raises(ValueError, match="needs no files"):
        D.fetch("digits", tmp_path)
    with pytest.raises(ValueError, match="Unknown data set 'x'"):
        D.fetch("x", tmp_path)
    import torchvision

    def no_network(self, root, download):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets.MNIST, "__init__", no_network)
    with pytest.raises(RuntimeError, match="could not be downloaded .*no route to host.*BAYESBINN_DATA"):
        D.fetch("mnist", tmp_path)


def test_isbi_damage_is_named(tmp_path):
    from PIL import Image

    for kind in ("image", "label"):
        (tmp_path / "isbi2012" / kind).mkdir(parents=True)
        for i in range(30):
            Image.fromarray(np.full((512, 512), 255 * (i % 2), np.uint8)).save(
                tmp_path / "isbi2012" / kind / f"{i:02d}.png"
            )
    with pytest.raises(ValueError, match="decoded arrays have checksum"):
        load_data("isbi2012", root=tmp_path)
    assert len(load_data("isbi2012", root=tmp_path, verify=False).val) == 6
    path = tmp_path / "isbi2012" / "label" / "07.png"
    Image.fromarray(np.full((388, 388), 255, np.uint8)).save(path)
    with pytest.raises(ValueError, match="label slices.*388.*aligned"):
        load_data("isbi2012", root=tmp_path)
    Image.fromarray(np.full((512, 512), 128, np.uint8)).save(path)
    with pytest.raises(ValueError, match="labels hold the values .0, 128, 255."):
        load_data("isbi2012", root=tmp_path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match="07.png cannot be decoded"):
        load_data("isbi2012", root=tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match="29 label slices"):
        load_data("isbi2012", root=tmp_path)
    shutil.rmtree(tmp_path / "isbi2012" / "label")
    with pytest.raises(FileNotFoundError, match="neither label/.*png nor train-labels.tif"):
        load_data("isbi2012", root=tmp_path)


def test_snelson_standin_has_the_shape_of_snelson():
    b = load_data("snelson-standin")
    assert b.stand_in.startswith("This is not Snelson") and b.task == "regression" and len(b.train) == 200
    x, y = b.train.tensors()
    assert abs(x.mean()) < 1e-5 and abs(y.std() - 1) < 1e-5
    inputs = b.extras["test_inputs"].tensors()[0]
    assert len(inputs) == 301 and inputs.min() < x.min() and inputs.max() > x.max()
    assert b.fingerprint == load_data("snelson-standin").fingerprint


def test_options_for_loading_mean_nothing_to_a_bundle():
    base = D.load_data("mnist-standin", validation=0.0)
    with pytest.raises(TypeError, match="limit: arguments of load_data have no effect on a bundle"):
        D.permuted_mnist(1, base=base, limit=100)
