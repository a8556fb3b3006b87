"""The games that a network's layers play: their outputs on all masked versions of one input."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from nin.model.views import Forward, check_tensor, viewed
from nin.probes.interactions.games import LARGEST
from nin.probes.watching import watching
from nin.support.arguments import check_count
from nin.support.memory import check_memory

OUTPUT = "output"  # the name of the network's own output


def masked_inputs(
    x: Shaped[Tensor, "..."],
    patches: Bool[Tensor, "n ..."],
    baseline: Shaped[Tensor, "..."],
    coalitions: Int[Tensor, " count"],
) -> Shaped[Tensor, "count ..."]:
    """x_T for some coalitions T (integers, bit i = patch i present): the patches missing from T take the baseline.

    Pixels, or tokens, that no patch covers keep their value in x.
    """
    n = len(patches)
    if not x.is_floating_point():  # tokens
        absent = ((coalitions[:, None] >> torch.arange(n)) & 1) == 0
        gone = (absent.double() @ patches.cpu().flatten(1).double()).view(-1, *x.shape) > 0
        return torch.where(gone.to(x.device), baseline.to(x), x)
    absent = 1.0 - ((coalitions[:, None] >> torch.arange(n)) & 1).to(x)  # (count, n)
    hidden = (absent.to(x.device) @ patches.flatten(1).to(x)).view(-1, *x.shape)  # (count, ...)
    return torch.lerp(x.expand_as(hidden), baseline.to(x).expand_as(hidden), hidden)


def masked_outputs(
    model: nn.Module,
    x: Shaped[Tensor, "..."],
    patches: Shaped[Tensor, "n ..."],
    baseline: Shaped[Tensor, "..."],
    layers: Sequence[str],
    *,
    read: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    chunk: int = 256,
    forward: Forward | None = None,
) -> dict[str, Tensor]:
    """Outputs of layers, and of the network as "output", on all 2^n masked versions of one input (arXiv 2409.08712).

    x, baseline    one input without batch dimension, and the values that replace absent variables (in the paper, the
                   mean over samples; for tokens, the identifier of a mask)
    patches        which pixels each of the n variables covers; they must not overlap
    layers         dotted names; all layers are read from the same pass
    read           functions by name, features (count, d) -> (count, ...), that reduce a layer's output at once, such as
                   a readout's log-odds; without one, the flattened features (2^n, d) are kept
    chunk          masked inputs per pass, which bounds the memory; 256: ours
    forward        forward(model, x) -> outputs for masked inputs x (count, ...), in place of model(x), such as
                   lambda model, x: model(x).logits
    Costs 2^n forward passes of one sample; keeps 2^n times the values of the layers.
    The row of coalition T has index T, bit i = patch i present. Runs in eval mode; the model is not changed.
    Raises ValueError for patches that overlap, are empty or do not have the shape of x, for n > 20, an unknown layer or
    one named "output", or that some masked inputs call and others do not, outputs that are not finite, and, after the
    first pass, values that do not fit into memory.
    """
    check_count("chunk", chunk)
    check_patches(x, patches)
    model = viewed(model, forward, x)[0]
    if OUTPUT in layers:
        raise ValueError(f"layers names {OUTPUT!r}, which is reserved for the network's own output; leave it out.")
    read = {} if read is None else read
    found: dict[str, list[Tensor]] = {}

    def see(name: str, values: Tensor) -> None:
        values = values.flatten(1)
        values = read[name](values) if name in read else values.clone()
        if not values.isfinite().all():
            raise ValueError(
                f"{name!r} is not finite on masked inputs: check the network, the baseline and the readout."
            )
        found.setdefault(name, []).append(values.cpu())

    outputs: list[Tensor] = []
    handle = model.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    try:
        with watching(model, layers, see) as run:
            for coalitions in torch.arange(2 ** len(patches)).split(chunk):
                run(masked_inputs(x, patches, baseline, coalitions))
                check_tensor(outputs[-1])
                see(OUTPUT, outputs.pop())
                if not int(coalitions[0]):
                    _check_memory(found, 2 ** len(patches))
    finally:
        handle.remove()
    whole = {name: torch.cat(parts) for name, parts in found.items()}
    if some := [name for name, values in whole.items() if len(values) != 2 ** len(patches)]:
        raise ValueError(
            f"layer {some[0]!r} is called for some masked inputs and not for others, so that it has no value for each "
            "coalition: name other layers."
        )
    return whole


def _check_memory(found: Mapping[str, Sequence[Tensor]], coalitions: int) -> None:
    """ValueError if what the first masked inputs gave does not fit into memory for all of them."""
    first = [parts[0] for parts in found.values()]
    check_memory(
        f"keeping {', '.join(found)} on all {coalitions} masked inputs",
        sum(values[0].numel() * values.element_size() for values in first) * coalitions,
        "name fewer layers, reduce them by `read`, or use fewer patches",
    )


def check_patches(x: Tensor, patches: Tensor) -> None:
    """ValueError if patches overlap, are empty, are too many or do not have the shape of x."""
    if patches.dtype != torch.bool or patches.shape[1:] != x.shape or len(patches) < 1:
        raise ValueError(
            f"patches {tuple(patches.shape)} of {patches.dtype} must be boolean, (n, {', '.join(map(str, x.shape))}): "
            "the entries of x that each variable covers. Clip patches that extend beyond the image."
        )
    if len(patches) > LARGEST:
        raise ValueError(
            f"patches: n = {len(patches)} variables have 2^{len(patches)} masked inputs; at most {LARGEST}."
        )
    covered = patches.sum(0)
    if (covered > 1).any():
        raise ValueError(
            f"patches overlap on {int((covered > 1).sum())} entries of x; each entry may belong to one variable only."
        )
    empty = (~patches.flatten(1).any(1)).nonzero()[:, 0].tolist()
    if empty:
        raise ValueError(f"patches {empty} cover nothing; leave them out.")


def log_odds(logits: Float[Tensor, "count classes"], label: int) -> Float[Tensor, " count"]:
    """v = log(p_y / (1 - p_y)) = z_y - logsumexp of the other logits (arXiv 2409.08712), without ever forming p."""
    _check_class("label", label, logits)
    others = torch.cat([logits[:, :label], logits[:, label + 1 :]], 1)
    return logits[:, label] - others.logsumexp(1)


def margin(logits: Float[Tensor, "count classes"], label: int, against: int) -> Float[Tensor, " count"]:
    """v = z_y - z_c, linear in the logits: a control, because log-odds themselves create interactions."""
    _check_class("label", label, logits)
    _check_class("against", against, logits)
    if against == label:
        raise ValueError(f"against={against} is the label itself; the margin is taken against another class.")
    return logits[:, label] - logits[:, against]


def _check_class(name: str, value: int, logits: Tensor) -> None:
    check_count(name, value, minimum=0)
    if value >= logits.shape[1]:
        raise ValueError(f"{name}={value} must be a class from 0 to {logits.shape[1] - 1}.")
