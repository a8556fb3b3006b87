"""A Dataset from the data sets and loaders of torch."""

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import nin

X, Y = torch.linspace(-1, 1, 48).reshape(12, 4), torch.arange(12) % 3


class Flipped(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        return (X[place].flip(0) if torch.rand(()) < 0.5 else X[place]), int(Y[place])


class Stream(IterableDataset):
    def __iter__(self) -> object:
        return iter(zip(X, Y, strict=True))


def test_samples_and_labels_in_their_order():
    data = nin.Dataset.from_torch(TensorDataset(X, Y), TensorDataset(X[:5], Y[:5]))
    assert torch.equal(data.x_train, X) and torch.equal(data.y_train, Y) and data.classes == 3
    assert torch.equal(data.x_test, X[:5]) and torch.equal(data.y_test, Y[:5])


def test_a_loader_gives_its_data_set_whatever_its_order():
    loader = DataLoader(TensorDataset(X, Y), batch_size=5, shuffle=True, drop_last=True)
    data = nin.Dataset.from_torch(loader, [(x, int(y)) for x, y in zip(X, Y, strict=True)])
    assert torch.equal(data.x_train, X) and torch.equal(data.y_test, Y)


def test_a_loader_collates():
    loader = DataLoader(TensorDataset(X, Y), collate_fn=lambda pairs: tuple(map(torch.stack, zip(*pairs, strict=True))))
    assert torch.equal(nin.Dataset.from_torch(loader, loader).x_train, X)


def test_targets_that_are_numbers():
    target = X[:, :2]
    assert nin.Dataset.from_torch(TensorDataset(X, target), TensorDataset(X, target)).classes == 2
    assert nin.Dataset.from_torch(TensorDataset(X, X[:, 0]), TensorDataset(X, X[:, 0])).classes == 1


def test_it_trains_as_the_same_tensors_do():
    config = nin.RunConfig(steps=3, batch_size=4, widths=(5,), sigma=1.0)
    data = nin.Dataset.from_torch(TensorDataset(X, Y), TensorDataset(X, Y))
    same = nin.Dataset(X, Y, X, Y, classes=3, source="tensors")
    frames = [nin.train(config, data=d).frame() for d in (data, same)]
    assert data.hash == same.hash and frames[0].equals(frames[1])


@pytest.mark.parametrize(
    "samples, message",
    [
        (Flipped(), r"train: its samples differ when they are read again; .*augment="),
        (Stream(), "train is a Stream; it needs a length"),
        (DataLoader(Stream()), "train is a Stream; it needs a length"),
        (TensorDataset(X[:0], Y[:0]), "train has no samples"),
        (TensorDataset(X), r"train: a sample must be a pair \(x, y\)"),
        ([(X[0], 0), (X[0, :2], 1)], "train: its samples are no tensors of one shape"),
        ([("a", 0)], r"train: a sample must be a pair \(x, y\)"),
    ],
)
def test_what_cannot_be_a_data_set_is_named(samples, message):
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=message):
        nin.Dataset.from_torch(samples, TensorDataset(X, Y))


@pytest.mark.parametrize(
    "data",
    [TensorDataset(X, Y), DataLoader(TensorDataset(X, Y)), "digits", (X, Y)],
    ids=lambda data: type(data).__name__,
)
@pytest.mark.parametrize("ask", [nin.train, nin.sweep])
def test_other_data_is_refused_before_training(ask, data, tmp_path):
    config = nin.RunConfig(steps=1)
    options = {} if ask is nin.train else {"over": {"seed": [0]}, "store": tmp_path}
    with pytest.raises(ValueError, match=r"data.* must be a nin.Dataset \(nin.Dataset.from_torch makes one"):
        ask(config, data=data, **options)
