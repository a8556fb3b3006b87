"""All masked versions of one input, through a network once: the games that its layers play."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from nin.probes.interactions.games import LARGEST
from nin.probes.watching import watching
from nin.support.arguments import check_count

OUTPUT = "output"  # the name of the network's own answer


def masked_inputs(
    x: Float[Tensor, "..."],
    patches: Bool[Tensor, "n ..."],
    baseline: Float[Tensor, "..."],
    coalitions: Int[Tensor, " count"],
) -> Float[Tensor, "count ..."]:
    """x_T for some coalitions T (integers, bit i = patch i present): patches that T lacks take the baseline.

    What no patch covers stays as it is in x.
    """
    n = len(patches)
    absent = 1.0 - ((coalitions[:, None] >> torch.arange(n)) & 1).to(x)  # (count, n)
    hidden = (absent.to(x.device) @ patches.flatten(1).to(x)).view(-1, *x.shape)  # (count, ...)
    return torch.lerp(x.expand_as(hidden), baseline.to(x).expand_as(hidden), hidden)


def masked_outputs(
    model: nn.Module,
    x: Float[Tensor, "..."],
    patches: Shaped[Tensor, "n ..."],
    baseline: Float[Tensor, "..."],
    layers: Sequence[str],
    *,
    read: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    chunk: int = 256,
) -> dict[str, Tensor]:
    """Outputs of layers, and of the network as "output", on all 2^n masked versions of one input (arXiv 2409.08712).

    x, baseline    one input without batch dimension, and what takes the place of absent variables (the paper: the mean
                   over samples)
    patches        which pixels each of the n variables covers; they must not overlap
    layers         dotted names; every layer is read from the same single pass
    read           functions by name, features (count, d) -> (count, ...), that reduce a layer's output at once, such as
                   a probe's log-odds; without one the flattened features (2^n, d) themselves are kept
    chunk          masked inputs that go through the network at once: bounds the memory
    Coalition T stands at index T, bit i = patch i present. In eval mode; the model is left as it was.
    Raises ValueError for patches of another shape than x or that overlap or are empty, n > 20, an unknown layer,
    outputs that are not finite.
    """
    check_count("chunk", chunk)
    check_patches(x, patches)
    read = {} if read is None else read
    found: dict[str, list[Tensor]] = {}

    def see(name: str, values: Tensor) -> None:
        values = values.flatten(1)
        values = read[name](values) if name in read else values.clone()
        if not values.isfinite().all():
            raise ValueError(f"{name!r} is not finite on masked inputs: check the network, the baseline and the probe.")
        found.setdefault(name, []).append(values.cpu())

    outputs: list[Tensor] = []
    handle = model.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    try:
        with watching(model, layers, see) as run:
            for coalitions in torch.arange(2 ** len(patches)).split(chunk):
                run(masked_inputs(x, patches, baseline, coalitions))
                see(OUTPUT, outputs.pop())
    finally:
        handle.remove()
    return {name: torch.cat(parts) for name, parts in found.items()}


def check_patches(x: Tensor, patches: Tensor) -> None:
    """ValueError where patches do not fit x, overlap, are empty or too many."""
    if patches.dtype != torch.bool or patches.shape[1:] != x.shape or len(patches) < 1:
        raise ValueError(
            f"patches {tuple(patches.shape)} of {patches.dtype} must be boolean, (n, {', '.join(map(str, x.shape))}): "
            "which entries of x each variable covers. A patch that leaves the image cannot be written so; cut it off."
        )
    if len(patches) > LARGEST:
        raise ValueError(
            f"patches: n = {len(patches)} variables have 2^{len(patches)} masked inputs; at most {LARGEST}."
        )
    covered = patches.sum(0)
    if (covered > 1).any():
        raise ValueError(
            f"patches overlap on {int((covered > 1).sum())} entries of x; each may belong to one variable only."
        )
    empty = (~patches.flatten(1).any(1)).nonzero()[:, 0].tolist()
    if empty:
        raise ValueError(f"patches {empty} cover nothing; leave them out.")


def log_odds(logits: Float[Tensor, "count classes"], label: int) -> Float[Tensor, " count"]:
    """v = log(p_y / (1 - p_y)) = z_y - logsumexp of the other logits (arXiv 2409.08712), without ever forming p."""
    others = torch.cat([logits[:, :label], logits[:, label + 1 :]], 1)
    return logits[:, label] - others.logsumexp(1)


def margin(logits: Float[Tensor, "count classes"], label: int, against: int) -> Float[Tensor, " count"]:
    """z_y - z_c: the control that creates no interactions of its own, where log-odds do."""
    return logits[:, label] - logits[:, against]
