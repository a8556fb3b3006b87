"""What each block of a residual network adds to the interactions of its output, exactly and without fitted readouts.

Interactions are linear in the game. If the output is a linear function w of a stream to which blocks add, then
I(S | output) = I(S | w.stem) + sum_l I(S | w.block_l) for every S that is not empty. Where a shortcut maps the stream
by an affine P, as where a ResNet changes its resolution, all earlier parts pass through P. The effect of any
nonlinearity between the last addition and w (a normalisation, an activation) is the remainder.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Num, Shaped
from torch import Tensor, nn

from nin.model.evaluating import evaluating
from nin.model.views import Forward, check_tensor, viewed
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
    """games (entries, images, 2^n) of "stem", each block and "remainder", which add up to `output` (images, 2^n)."""

    entries: tuple[str, ...]
    games: Float[Tensor, "entries images coalitions"]
    output: Float[Tensor, "images coalitions"]

    def interactions(
        self, kind: str = "and"
    ) -> tuple[Float[Tensor, "entries images coalitions"], Float[Tensor, "images coalitions"]]:
        """I(S) of the entries (entries, images, 2^n) and of the output (images, 2^n): AND alone or OR alone."""
        check_choice("kind", kind, ("and", "or"))
        transform = moebius if kind == "and" else or_interactions
        parts = [transform(games) for games in (self.games, self.output)]
        for part in parts:
            part[..., 0] = 0
        return parts[0], parts[1]

    def frame(self) -> pd.DataFrame:
        """One row for each entry (the output last), kind and order: strength, share.

        strength   E_x sum_S |I(S | entry)|
        share      E_x sum_S sign(I(S | output)) I(S | entry), the entry's contribution to the strength of the output;
                   negative if it reduces it. The shares of all entries add up to that strength exactly
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
    x: Shaped[Tensor, "images ..."],
    y: Num[Tensor, " images"],
    *,
    blocks: Sequence[str],
    readout: Callable[[Tensor], Tensor],
    adds: str = "difference",
    stem: str | None = None,
    shortcuts: Mapping[str, str | Callable[[Tensor], Tensor]] | None = None,
    value: str = "margin",
    patches: Bool[Tensor, "..."] | None = None,
    baseline: Shaped[Tensor, "..."] | None = None,
    chunk: int = 256,
    progress: bool = False,
    forward: Forward | None = None,
) -> Ledger:
    """Interactions that the stem and each residual block add to the output, on all 2^n masked versions of each image.

    blocks     dotted names in the order of the stream
    adds       "difference": each module returns the stream plus its own addition, which is its output minus its (first)
               input; the stem is the input of the first block. "output": each module is a branch whose output is added
               elsewhere; `stem` names the module to whose output the first branch is added
    readout    stream (batch, ...) -> logits (batch, classes): the last part of the model, such as
               lambda h: model.head(h.mean((2, 3))). Its constant is counted with the stem
    shortcuts  for blocks that return P(stream) + their addition: the dotted name of the module P, or a function, as in
               {"layer2.0": "layer2.0.downsample"}. P is affine in eval mode (convolution, batch norm, pooling); its
               constant is counted with the stem
    value      "margin" z_y - z_c over the most likely other class c, or the "logit" z_y. Log-odds are not offered:
               they are not linear in the logits
    patches, baseline, forward    as in `layerwise`; baseline None: the mean of x
    The effect of a ReLU after each addition, as in the usual ResNet, is in the remainder if blocks are named by their
    branches ("output"), as is that of a normalisation before the readout.
    Costs 2^n forward passes for each image. Raises ValueError for unknown names, a block that is not called exactly
    once, one without a shortcut whose output and input differ in shape, a shortcut that is not affine or that does not
    receive the input of its block, a stem that does not fit `adds`, and a readout that is not linear or does not give
    the model's classes.
    """
    check_choice("value", value, VALUES)
    check_choice("adds", adds, ADDS)
    check_count("chunk", chunk)
    if not blocks:
        raise ValueError("blocks=[] names no block; give the dotted names of the residual blocks.")
    if (stem is None) != (adds == "difference"):
        raise ValueError(f"stem={stem!r} with adds={adds!r}: name the stem if, and only if, adds='output'.")
    if baseline is None and not x.is_floating_point():
        raise ValueError(f"x of {x.dtype} has no mean; pass baseline, for example the token of a mask everywhere.")
    model = viewed(model, forward, x)[0]
    if unknown := set(shortcuts or ()) - set(blocks):
        raise ValueError(f"shortcuts names {sorted(unknown)}, which are not among blocks: {', '.join(blocks)}.")
    baseline = x.mean(0) if baseline is None else baseline
    patches = image_patches(x, patches, baseline, 10)
    names = list(blocks) if stem is None else [stem, *blocks]
    entries = ("stem", *blocks, "remainder")
    games, outputs = [], []
    with evaluating(model), torch.no_grad():
        logits = model(x)
        check_tensor(logits)
        rivals = rival_classes(logits, y)
        added = Additions(model, names, adds, shortcuts or {})
        try:
            for i in ProgressBar(range(len(x)), progress=progress, desc="ledger", unit="image"):
                check_patches(x[i], patches[i])
                chunks = []
                for coalitions in torch.arange(2 ** patches.shape[1]).split(chunk):
                    logits = model(masked_inputs(x[i], patches[i], baseline, coalitions))
                    read = torch.stack([*_read(readout, added.parts(), logits), logits])  # (parts + 1, chunk, classes)
                    read = read.cpu().double()
                    against = read[..., rivals[i]] if value == "margin" else 0
                    chunks.append(read[..., int(y[i])] - against)
                game = torch.cat(chunks, 1)  # (parts + 1, 2^n), the output last
                games.append(torch.cat([game[:-1], game[-1:] - game[:-1].sum(0)]))
                outputs.append(game[-1])
        finally:
            added.remove()
    return Ledger(entries, torch.stack(games, 1), torch.stack(outputs))


def _read(readout: Callable[[Tensor], Tensor], parts: Sequence[Tensor], logits: Tensor) -> list[Tensor]:
    """The readout of each part, its constant with the stem; ValueError if it is not linear or has other classes."""
    if len({part.shape for part in parts}) > 1:
        shapes = ", ".join(str(tuple(part.shape)) for part in parts)
        raise ValueError(f"stem and blocks add {shapes}: all parts of one stream must have one shape.")
    constant = readout(torch.zeros_like(parts[0][:1]))
    if constant.shape[1:] != logits.shape[1:]:
        raise ValueError(
            f"readout gives {tuple(constant.shape)} for one sample, not {tuple(logits[:1].shape)} as the model."
        )
    read = [readout(parts[0]), *(readout(part) - constant for part in parts[1:])]
    whole, total = readout(torch.stack(parts).sum(0)), torch.stack(read).sum(0)
    size = torch.stack(read).abs().amax()
    if (whole - total).abs().amax() > 1e-4 * size:
        raise ValueError(
            "readout is not linear: readout(sum of parts) differs from the sum of readout(part). Leave out norms and "
            "activations; their effect is then in the remainder."
        )
    return read


def _through(shortcut: Callable[[Tensor], Tensor], parts: Sequence[Tensor], block: str) -> list[Tensor]:
    """The parts of the stream after an affine map, its constant with the first; ValueError if it is not affine."""
    constant = shortcut(torch.zeros_like(parts[0][:1]))
    mapped = [shortcut(parts[0]), *(shortcut(part) - constant for part in parts[1:])]
    # at -2 times the stream: neither odd nor positively homogeneous functions pass
    whole, size = shortcut(-2 * torch.stack(parts).sum(0)), torch.stack(mapped).abs().amax()
    if (whole + 2 * torch.stack(mapped).sum(0) - 3 * constant).abs().amax() > 1e-4 * size:
        raise ValueError(
            f"the shortcut of block {block!r} is not affine: shortcut(sum of parts) differs from the sum of its "
            "values. Name a module without activations, or begin after this block and leave it in the stem."
        )
    return mapped


class Additions:
    """Hooks that keep the addition of each block in a pass: its output minus its input, or its output alone.

    With a shortcut P, the addition is the output minus P(input), and the parts before it pass through P.
    """

    def __init__(
        self,
        model: nn.Module,
        names: Sequence[str],
        adds: str,
        shortcuts: Mapping[str, str | Callable[[Tensor], Tensor]],
    ) -> None:
        self.names, self.adds = names, adds
        self.inputs: dict[str, Tensor] = {}
        self.found: dict[str, Tensor] = {}
        self.shortcuts = {b: watched_layers(model, [s])[s] if isinstance(s, str) else s for b, s in shortcuts.items()}
        self.passed: dict[str, tuple[Tensor, Tensor]] = {}  # what entered and left the shortcut of a block in the pass
        self.handles = []
        for name, module in watched_layers(model, names).items():
            if adds == "difference":  # the input is kept before a block overwrites it
                self.handles.append(module.register_forward_pre_hook(partial(self._before, name)))
            self.handles.append(module.register_forward_hook(partial(self._after, name)))
        for name, shortcut in self.shortcuts.items():
            if adds == "difference" and isinstance(shortcut, nn.Module):
                self.handles.append(shortcut.register_forward_hook(partial(self._pass, name)))

    def _before(self, name: str, module: nn.Module, inputs: tuple) -> None:
        if not inputs or not isinstance(inputs[0], Tensor):
            raise ValueError(f"block {name!r} does not take a tensor; name its branch instead, with adds='output'.")
        self.inputs.setdefault(name, inputs[0].clone())

    def _pass(self, name: str, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        if name not in self.found:  # else the parts pass through it
            self.passed[name] = (inputs[0].clone(), output.clone())

    def _after(self, name: str, module: nn.Module, inputs: tuple, output: object) -> None:
        if name in self.found:
            raise ValueError(f"block {name!r} is called twice in a forward pass: its additions cannot be separated.")
        if not isinstance(output, Tensor):
            raise ValueError(f"block {name!r} must return a tensor, not {type(output).__name__}.")
        if self.adds == "output":
            self.found[name] = output.clone()
            return
        before = self._stream(name)
        if before.shape != output.shape:
            raise ValueError(
                f"block {name!r} turns {tuple(before.shape)} into {tuple(output.shape)}: output minus input needs one "
                f"shape. Name the module that maps the stream there, shortcuts={{{name!r}: ...}}, leave the block in "
                "the stem, or name branches (adds='output')."
            )
        self.found[name] = output - before

    def _stream(self, name: str) -> Tensor:
        """The stream to which a block adds: its input, or what its shortcut makes of it."""
        before, shortcut = self.inputs[name], self.shortcuts.get(name)
        if shortcut is None:
            return before
        if not isinstance(shortcut, nn.Module):
            return shortcut(before)
        entered, left = self.passed.get(name, (None, None))
        if entered is None or entered.shape != before.shape or not torch.equal(entered, before):
            what = "is not called in its" if entered is None else "does not receive the input of its"
            raise ValueError(
                f"shortcuts: the module of block {name!r} {what} block, so that it does not map the stream. Name "
                "the one that does, or leave the block in the stem."
            )
        return left

    def parts(self) -> list[Tensor]:
        """Stem and blocks of the last pass, in the order of the names; the hooks then start afresh."""
        missing = [name for name in self.names if name not in self.found]
        if missing:
            raise ValueError(f"block {missing[0]!r} is not called in a forward pass; leave it out.")
        parts = [self.inputs[self.names[0]]] if self.adds == "difference" else []
        for name in self.names:
            if name in self.shortcuts:
                parts = _through(self.shortcuts[name], parts, name)
            parts.append(self.found[name])
        self.found, self.inputs, self.passed = {}, {}, {}
        return parts

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()
