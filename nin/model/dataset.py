"""Training and test samples as one value, checked when it is made."""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate
from torch.utils.data import Dataset as Samples

from nin.support.arguments import check_count
from nin.support.devices import find_device

PARTS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test samples; data sets are compared by identity.

    x_train, x_test  (n, d) floating point; for a network of one's own any shape (n, ...), and integers such as tokens
    y_train, y_test  (n, ...) integer labels 0 to classes - 1, or floating-point targets
    classes          number of classes or outputs
    source           origin of the data, one line
    Raises ValueError for parts that do not fit each other, are empty or not finite, and for labels out of range.
    """

    x_train: Shaped[Tensor, "n ..."] | object  # other types must reach our own errors
    y_train: Shaped[Tensor, "n ..."] | object
    x_test: Shaped[Tensor, "m ..."] | object
    y_test: Shaped[Tensor, "m ..."] | object
    classes: int
    source: str

    def __post_init__(self) -> None:
        for part in PARTS:
            values = getattr(self, part)
            if not isinstance(values, Tensor) or not values.dim() or not len(values):
                what = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
                raise ValueError(f"{part} is {what}; it must be a tensor of at least one sample, (n, ...).")
            if values.layout is not torch.strided or values.is_complex() or values.device.type == "meta":
                what = f"{values.layout}, {values.dtype}, on {values.device}".replace("torch.", "")
                raise ValueError(f"{part} is {what}; it must be a dense tensor of real numbers that are in memory.")
            if not values[0].numel() or values.requires_grad:
                why = "requires a gradient; pass it detached" if values.requires_grad else "has samples without entries"
                raise ValueError(f"{part} of shape {tuple(values.shape)} {why}.")
            if values.is_floating_point() and not values.isfinite().all():
                raise ValueError(f"{part} holds {int((~values.isfinite()).sum())} values that are not finite.")
        for name in ("train", "test"):
            x, y = getattr(self, f"x_{name}"), getattr(self, f"y_{name}")
            if len(x) != len(y):
                raise ValueError(f"x_{name} has {len(x)} samples, but y_{name} has {len(y)}; pass the same number.")
        for name in ("x", "y"):
            train, test = getattr(self, f"{name}_train"), getattr(self, f"{name}_test")
            if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
                raise ValueError(
                    f"{name}_train has samples {train.dtype} {tuple(train.shape[1:])}, but {name}_test "
                    f"{test.dtype} {tuple(test.shape[1:])}; they must be of one kind."
                )
        check_count("classes", self.classes)
        if not isinstance(self.source, str) or "\n" in self.source:
            raise ValueError(f"source={self.source!r} must be one line of text: where the data come from.")
        for part in ("y_train", "y_test"):
            y = getattr(self, part)
            if not y.is_floating_point() and not y.is_complex() and y.dtype != torch.bool:
                low, high = int(y.min()), int(y.max())
                if low < 0 or high >= self.classes:
                    wrong = low if low < 0 else high
                    raise ValueError(
                        f"{part} holds the label {wrong}; classes={self.classes} allows 0 to {self.classes - 1}."
                    )

    @classmethod
    def from_torch(
        cls,
        train: "Samples | DataLoader | Sequence",
        test: "Samples | DataLoader | Sequence",
        *,
        classes: int | None = None,
        source: str = "torch.utils.data",
    ) -> "Dataset":
        """The samples (x, y) of two data sets of torch.utils.data, or of those that two DataLoaders read.

        classes   number of classes or outputs; None: largest label + 1, or the values of a target
        Every sample is read twice, because an instrument needs samples that stay: what is random belongs into
        `nin.train(augment=...)`, batch size and order into the config. A DataLoader gives its data set and collate_fn.
        Raises ValueError for data sets without a length or samples, for samples that are no pairs of tensors or
        numbers of one shape, and for those that differ when they are read again.
        """
        x_train, y_train = _read("train", train)
        x_test, y_test = _read("test", test)
        if classes is None and y_train.is_floating_point():
            classes = 1 if y_train.dim() == 1 else y_train.shape[-1]
        elif classes is None:
            classes = int(max(y_train.max(), y_test.max())) + 1
        return cls(x_train, y_train, x_test, y_test, classes=classes, source=source)

    @cached_property
    def hash(self) -> str:
        """sha256 over type, shape and bytes of the four tensors."""
        digest = hashlib.sha256()
        for part in PARTS:
            tensor = getattr(self, part).detach().cpu().contiguous()
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode() + tensor.numpy().tobytes())
        return digest.hexdigest()

    def trainable(self) -> "Dataset":
        """Itself, or a copy of data that were made in inference mode, which no gradient may pass."""
        if not any(getattr(self, part).is_inference() for part in PARTS):
            return self
        with torch.inference_mode(False):
            return dataclasses.replace(self, **{part: getattr(self, part).clone() for part in PARTS})

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> "Dataset":
        """A copy on a device with floating-point tensors of this dtype; labels stay integers."""
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ValueError(f"dtype={dtype!r} must be torch.float32 or another dtype of real numbers.")
        device = find_device(device)
        parts = {part: getattr(self, part) for part in PARTS}
        cast = {part: t.to(dtype) if t.is_floating_point() else t for part, t in parts.items()}
        moved = {part: t.to(device) for part, t in cast.items()}
        return dataclasses.replace(self, **moved)


def _read(part: str, samples: Samples | DataLoader | Sequence) -> tuple[Tensor, Tensor]:
    """All samples and targets; ValueError if they cannot be a part of a Dataset."""
    collate = default_collate
    if isinstance(samples, DataLoader):
        samples, collate = samples.dataset, samples.collate_fn
    if isinstance(samples, IterableDataset) or not hasattr(samples, "__getitem__") or not hasattr(samples, "__len__"):
        raise ValueError(f"{part} is a {type(samples).__name__}; it needs a length and samples by their number.")
    if not len(samples):
        raise ValueError(f"{part} has no samples; it needs at least one.")
    read = []
    for _ in range(2):
        try:
            pair = collate([samples[place] for place in range(len(samples))])
        except (TypeError, RuntimeError) as error:
            raise ValueError(
                f"{part}: its samples are no tensors of one shape ({' '.join(str(error).split())})."
            ) from None
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(isinstance(p, Tensor) for p in pair):
            raise ValueError(f"{part}: a sample must be a pair (x, y) of tensors or numbers.")
        read.append(tuple(pair))
    if not all(map(torch.equal, *read)):
        raise ValueError(
            f"{part}: its samples differ when they are read again; leave out the random transforms, and pass them as "
            "nin.train(augment=...)."
        )
    return read[0]
