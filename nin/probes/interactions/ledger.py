"""What each block of a residual network adds to the interactions of its output, exactly and without probes.

Interactions are linear in the game. Where the output is a linear readout w of a stream to which blocks add,
I(S | output) = I(S | w.stem) + sum_l I(S | w.block_l) for every S that is not empty; what comes between the last
addition and the readout and is not linear (a normalisation, an activation) is the remainder.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor, nn

from nin.model.evaluating import evaluating
from nin.probes.interactions.games import by_order, moebius, or_interactions
from nin.probes.interactions.games_of_layers import image_patches, rival_classes
from nin.probes.interactions.masking import check_patches, masked_inputs
from nin.probes.watching import watched_layers
from nin.support.arguments import check_choice, check_count
from nin.support.progress import ProgressBar

VALUES = ("margin", "logit")
ADDS = ("difference", "output")


@dataclass(frozen=True)
class Ledger:
    """games (entries, images, 2^n) of "stem", each block, and "remainder": they add up to `output` (images, 2^n)."""

    entries: tuple[str, ...]
    games: Float[Tensor, "entries images coalitions"]
    output: Float[Tensor, "images coalitions"]

    def interactions(
        self, kind: str = "and"
    ) -> tuple[Float[Tensor, "entries images coalitions"], Float[Tensor, "images coalitions"]]:
        """I(S) of the entries (entries, images, 2^n) and of the output (images, 2^n): all AND, or all OR."""
        check_choice("kind", kind, ("and", "or"))
        transform = moebius if kind == "and" else or_interactions
        parts = [transform(games) for games in (self.games, self.output)]
        for part in parts:
            part[..., 0] = 0
        return parts[0], parts[1]

    def frame(self) -> pd.DataFrame:
        """One row for each entry (the output last), kind and order: strength, share.

        strength   E_x sum_S |I(S | entry)|
        share      E_x sum_S sign(I(S | output)) I(S | entry), what the entry adds to the strength of the output, or
                   takes away (< 0); the shares of all entries add up to it exactly
        """
        tables = []
        for kind in ("and", "or"):
            entries, output = self.interactions(kind)
            every = torch.cat([entries, output[None]])
            strength, share = (by_order(part).mean(1) for part in (every.abs(), every * output.sign()))
            count, n = strength.shape
            tables.append(
                pd.DataFrame(
                    {
                        "entry": np.repeat([*self.entries, "output"], n),
                        "depth": np.repeat(np.arange(count), n),
                        "kind": kind,
                        "order": np.tile(np.arange(1, n + 1), count),
                        "strength": strength.flatten().numpy(),
                        "share": share.flatten().numpy(),
                    }
                )
            )
        return pd.concat(tables, ignore_index=True)


def residual_ledger(
    model: nn.Module,
    x: Float[Tensor, "images ..."],
    y: Num[Tensor, " images"],
    *,
    blocks: Sequence[str],
    readout: Callable[[Tensor], Tensor],
    adds: str = "difference",
    stem: str | None = None,
    value: str = "margin",
    patches: Bool[Tensor, "..."] | None = None,
    baseline: Float[Tensor, "..."] | None = None,
    chunk: int = 256,
    progress: bool = False,
) -> Ledger:
    """Interactions that the stem and each residual block add to the output, on all 2^n masked versions of each image.

    blocks     dotted names in the order of the stream
    adds       "difference": a block's module returns stream + what it adds; its output minus its (first) input counts,
               and the stem is the input of the first block. "output": the modules named are the branches alone, whose
               outputs are added elsewhere; `stem` names the module whose output the first is added to
    readout    stream (batch, ...) -> logits (batch, classes): the model's own last part, such as
               lambda h: model.head(h.mean((2, 3))). Its constant is the stem's
    value      "margin" z_y - z_c over the class the network likes best beside y, or the "logit" z_y: log-odds are not
               linear in the logits
    patches, baseline    as in `layerwise`; baseline None: the mean of x
    A ReLU behind the addition, as in the usual ResNet, makes the branches ("output") miss what it does: it is in the
    remainder, as is every normalisation before the readout.
    Raises ValueError for unknown names, a block that is not called once or whose output is not of its input's shape, a
    stem that does not fit `adds`, a readout that does not give the model's classes.
    """
    check_choice("value", value, VALUES)
    check_choice("adds", adds, ADDS)
    check_count("chunk", chunk)
    if not blocks:
        raise ValueError("blocks=[] names no block.")
    if (stem is None) != (adds == "difference"):
        raise ValueError(f"stem={stem!r} with adds={adds!r}: name the stem where, and only where, adds='output'.")
    baseline = x.mean(0) if baseline is None else baseline
    patches = image_patches(x, patches, baseline, 10)
    names = list(blocks) if stem is None else [stem, *blocks]
    entries = ("stem", *blocks, "remainder")
    games, outputs = [], []
    with evaluating(model), torch.no_grad():
        rivals = rival_classes(model(x), y)
        added = Additions(model, names, adds)
        try:
            for i in ProgressBar(range(len(x)), progress=progress, desc="ledger", unit="image"):
                check_patches(x[i], patches[i])
                chunks = []
                for coalitions in torch.arange(2 ** patches.shape[1]).split(chunk):
                    logits = model(masked_inputs(x[i], patches[i], baseline, coalitions))
                    read = torch.stack([*_read(readout, added.parts(), logits), logits])  # (parts + 1, chunk, classes)
                    read = read.double().cpu()
                    against = read[..., rivals[i]] if value == "margin" else 0
                    chunks.append(read[..., int(y[i])] - against)
                game = torch.cat(chunks, 1)  # (parts + 1, 2^n), the output last
                games.append(torch.cat([game[:-1], game[-1:] - game[:-1].sum(0)]))
                outputs.append(game[-1])
        finally:
            added.remove()
    return Ledger(entries, torch.stack(games, 1), torch.stack(outputs))


def _read(readout: Callable[[Tensor], Tensor], parts: Sequence[Tensor], logits: Tensor) -> list[Tensor]:
    """The readout of each part, its constant with the stem; ValueError where it is not linear, or of other classes."""
    if len({part.shape for part in parts}) > 1:
        shapes = ", ".join(str(tuple(part.shape)) for part in parts)
        raise ValueError(f"stem and blocks add {shapes}: parts of one stream are of one shape.")
    constant = readout(torch.zeros_like(parts[0][:1]))
    if constant.shape[1:] != logits.shape[1:]:
        raise ValueError(f"readout gives {tuple(constant.shape)} for one sample, the model {tuple(logits[:1].shape)}.")
    read = [readout(parts[0]), *(readout(part) - constant for part in parts[1:])]
    whole, total = readout(torch.stack(parts).sum(0)), torch.stack(read).sum(0)
    size = torch.stack(read).abs().amax()
    if (whole - total).abs().amax() > 1e-4 * size:
        raise ValueError(
            "readout is not linear: that of the sum is not the sum of those of the parts. Leave norms and activations "
            "out of it; what they do is then in the remainder."
        )
    return read


class Additions:
    """Hooks on the blocks that keep what each adds in a pass: its output minus its input, or its output alone."""

    def __init__(self, model: nn.Module, names: Sequence[str], adds: str) -> None:
        self.names, self.adds = names, adds
        self.inputs: dict[str, Tensor] = {}
        self.found: dict[str, Tensor] = {}
        self.handles = []
        for name, module in watched_layers(model, names).items():
            if adds == "difference":  # the input is kept before a block overwrites it
                self.handles.append(module.register_forward_pre_hook(partial(self._before, name)))
            self.handles.append(module.register_forward_hook(partial(self._after, name)))

    def _before(self, name: str, module: nn.Module, inputs: tuple) -> None:
        if not inputs or not isinstance(inputs[0], Tensor):
            raise ValueError(f"block {name!r} is not given a tensor; name its branch, with adds='output'.")
        self.inputs.setdefault(name, inputs[0].clone())

    def _after(self, name: str, module: nn.Module, inputs: tuple, output: object) -> None:
        if name in self.found:
            raise ValueError(f"block {name!r} is called twice in a forward pass: what it adds is not one entry.")
        if not isinstance(output, Tensor):
            raise ValueError(f"block {name!r} gives {type(output).__name__}, not a tensor.")
        if self.adds == "output":
            self.found[name] = output.clone()
            return
        before = self.inputs[name]
        if before.shape != output.shape:
            raise ValueError(
                f"block {name!r} turns {tuple(before.shape)} into {tuple(output.shape)}: what it adds is its output "
                "minus its input, of one shape. Leave it to the stem, or name branches (adds='output')."
            )
        self.found[name] = output - before

    def parts(self) -> list[Tensor]:
        """Stem and blocks of the pass, in the order of the names, forgotten here."""
        missing = [name for name in self.names if name not in self.found]
        if missing:
            raise ValueError(f"block {missing[0]!r} is not called in a forward pass: it adds nothing.")
        parts = [self.found[name] for name in self.names]
        if self.adds == "difference":
            parts.insert(0, self.inputs[self.names[0]])
        self.found, self.inputs = {}, {}
        return parts

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()
