"""Columns of docs/networks.md: response, stability, interactions."""

from itertools import product

import naive
import torch
from columns import Case, apart, seeded
from kinds import rows_of
from torch import Tensor
from torch.nn import functional as F

from nin.probes.interactions import by_layer, ledger, masking
from nin.probes.interactions.sparsest import split
from nin.probes.response import fragility, one_step, tangent_kernel
from nin.probes.stability import images, two_changes

RATE, LARGE_RATE = 0.05, 0.5  # of the step whose response is measured; large beside a rounding to 8 bits


def kernel(case: Case) -> float:
    """Against one backward pass for each sample and output."""
    few = slice(0, 3)
    found = case.ask(tangent_kernel.kernel, case.network, rows_of(case.kind.x, few))
    jacobian = naive.jacobian(case.kind, case.twin, rows_of(case.x, few))
    return apart(found, torch.einsum("icp,jcp->ij", jacobian, jacobian))


def response(case: Case) -> float:
    """Against a step by hand, and a difference of outputs along it."""
    kind, one, probe = case.kind, slice(0, 1), slice(2, 5)
    lr = RATE if kind.tolerance < 0.01 else LARGE_RATE
    optimizer = torch.optim.SGD([p for p in case.network.parameters() if p.requires_grad], lr=lr)
    found = case.ask(
        one_step.response, case.network, rows_of(kind.x, one), kind.y[one], rows_of(kind.x, probe),
        loss=kind.loss, optimizer=optimizer,
    )  # fmt: skip
    change = naive.sgd_step(kind, case.twin, rows_of(case.x, one), kind.y[one], lr)

    @torch.no_grad()
    def after(h: float) -> Tensor:
        with naive.moved(case.twin, h * change):
            return naive.outputs(kind, case.twin, rows_of(case.x, probe))

    return max(apart(found.exact, after(1) - after(0)), apart(found.linear, naive.difference(after, kind.step)))


def wrong(outputs: Tensor, y: Tensor) -> float:
    """The fraction of samples whose largest output is not the label."""
    return (outputs.argmax(1) != y).double().mean().item()


@torch.no_grad()
def flips(case: Case) -> float:
    """Against the same noise, draw by draw."""
    kind, draws = case.kind, 6
    found = case.ask(fragility.flips, case.network, kind.x, noise=3.0, draws=draws, generator=seeded(0))
    quiet, generator, changed = naive.outputs(kind, case.twin, case.x).argmax(1), seeded(0), []
    for _ in range(draws):
        eta = torch.randn(kind.x.shape, dtype=kind.x.dtype, generator=generator)
        changed.append(naive.outputs(kind, case.twin, case.x + 3 * eta.double()).argmax(1) != quiet)
    return apart(found, torch.stack(changed).double().mean())


@torch.no_grad()
def worst_neuron(case: Case) -> float:
    """Against our own hooks."""
    kind, y = case.kind, case.kind.y
    found = case.ask(
        fragility.worst_neuron, case.network, kind.x, y, layer=kind.neurons, axis=kind.neuron_axis
    )  # fmt: skip
    axis = kind.neuron_axis
    if axis is None:
        axis = -1 if type(case.twin.get_submodule(kind.neurons)).__name__ in ("Linear", "LoRA") else 1
    (shape,) = {values.shape for name, values in naive.layer_outputs(kind, case.twin, case.x, [kind.neurons]).items()
                if name == kind.neurons}  # fmt: skip
    errors = []
    for neuron in range(shape[axis]):
        kept = (torch.arange(shape[axis]) != neuron).double()
        kept = kept.view([-1 if place == axis % len(shape) else 1 for place in range(len(shape))])
        with naive.changed(case.twin, kind.neurons, "preactivation", lambda values, kept=kept: values * kept):
            errors.append(wrong(naive.outputs(kind, case.twin, case.x), y))
    return apart(found, max(errors))


def stability(case: Case, found, x: Tensor, moved: Tensor, noisy: Tensor) -> float:
    """D, G and R of the layer of neurons and the output, from all pairs of samples."""
    kind, layers = case.kind, [case.kind.neurons]
    clean = naive.layer_outputs(kind, case.twin, x, layers)
    changed = [[naive.layer_outputs(kind, case.twin, part, layers) for part in parts] for parts in (moved, noisy)]
    errors = []
    for name in layers:
        f = clean[name].flatten(1)
        pair = torch.stack([(a - b).square().sum() for a, b in product(f, f)]).mean()
        D, G = (torch.stack([(p[name].flatten(1) - f).square().sum(1) for p in parts]).mean() for parts in changed)
        (row,) = found[found["layer"] == name].itertuples()
        errors.append(apart([row.D, row.G, row.R], torch.stack([D / pair, G / pair, D / G])))
    return max(errors)


def compare(case: Case) -> float:
    """Two random changes of the samples, two draws of each."""
    kind = case.kind
    x = kind.x
    moved, noisy = (x + 0.3 * torch.randn(2, *x.shape, dtype=x.dtype, generator=seeded(seed)) for seed in (1, 2))
    found = case.ask(two_changes.compare, case.network, x, moved, noisy, layers=[kind.neurons], batch_norm="running")
    return stability(case, found, case.x, moved.double(), noisy.double())


def sensitivities(case: Case) -> float:
    """The deformations and noises that the probe draws, through our own hooks."""
    kind = case.kind
    options = {"draws": 2, "layers": [kind.neurons], "batch_norm": "running", "delta": 0.1, "c": 3.0}
    found = case.ask(images.sensitivities, case.network, kind.x, **options)
    seed = int(torch.randint(2**62, (), generator=seeded(0)))
    T = images.temperature(0.1, kind.x.shape[-1], 3.0, exact=False, modes="published")
    ((part, moved),) = images._deformed(kind.x, 3.0, T, 2, "published", 64, seed)
    noisy = part + images.matched_noise(moved - part, generator=seeded(seed + 1))
    return stability(case, found, case.x, moved.double(), noisy.double())


def patches_of(x: Tensor, n: int = 3) -> Tensor:
    """n patches that cover one input, entry by entry in turn."""
    return torch.stack([(torch.arange(x.numel()) % n == i).view(x.shape) for i in range(n)])


def masked_outputs(case: Case) -> float:
    """Against all versions, masked one by one, at a layer and at the output."""
    kind = case.kind
    x, baseline = kind.x[0], kind.x[1]
    found = case.ask(masking.masked_outputs, case.network, x, patches_of(x), baseline, [kind.neurons])
    versions = naive.masked(case.x[0], case.x[1], patches_of(x))
    expected = naive.layer_outputs(kind, case.twin, versions, [kind.neurons])
    return max(apart(found[name], values.flatten(1)) for name, values in expected.items())


def log_odds(outputs: Tensor, label: int) -> Tensor:
    """ln p / (1 - p), from ln(1 - p) as the sum over the other classes: p can be 1 to rounding."""
    logs = F.log_softmax(outputs, -1)
    return logs[:, label] - logs[:, [c for c in range(outputs.shape[1]) if c != label]].exp().sum(1).log()


FEW = 10  # iterations of the split, which ends later if other games are split with it


def layerwise(case: Case) -> float:
    """The strength of the output's interactions, from games that we play by hand (the split is that of the library)."""
    kind, n = case.kind, 3
    x, y, patches = kind.x[:3], kind.y[:3], patches_of(kind.x[0])
    found = case.ask(
        by_layer.layerwise, case.network, x, y, layers=[kind.neurons], patches=patches, untrained=False, resamples=2,
        train=(kind.x, kind.y), noise=by_layer.Noise(draws=0), threshold=0.0, iterations=FEW,
    )  # fmt: skip
    games = []
    for sample, label in zip(case.x[:3], y, strict=True):
        versions = naive.masked(sample, case.x.mean(0), patches)
        with torch.no_grad():
            games.append(log_odds(naive.outputs(kind, case.twin, versions), int(label)))
    games = torch.stack(games)
    parts = split(games, 0.04, accuracy=1e-9, iterations=FEW)
    strength = (parts.and_[:, 1:].abs().sum(1) + parts.or_[:, 1:].abs().sum(1)).mean()
    scale = (games[:, 2**n - 1] - games[:, 0]).abs().mean()
    row = found[(found["layer"] == "output") & (found["kind"] == "both") & (found["order"] == 0)]
    (strong,) = row[row["network"] == "model"]["strength"]
    return apart(strong, strength / scale)


def residual_ledger(case: Case) -> float:
    """Against the blocks' inputs and outputs on each masked version: the margins of stem, blocks and remainder."""
    kind, count = case.kind, 2
    x, y, patches = kind.x[:count], kind.y[:count], patches_of(kind.x[0])
    found = case.ask(
        ledger.residual_ledger, case.network, x, y, blocks=list(kind.blocks), patches=patches, baseline=kind.x[3],
        readout=lambda h: kind.readout(case.network, h), stem=kind.stem, adds="output" if kind.stem else "difference",
    )  # fmt: skip
    games = []
    for i in range(count):
        label = int(y[i])
        logits = naive.outputs(kind, case.twin, case.x[i : i + 1])[0].tolist()
        rival = max((value, c) for c, value in enumerate(logits) if c != label)[1]
        versions = naive.masked(case.x[i], case.x[3], patches)
        games.append(torch.stack([entry[:, label] - entry[:, rival] for entry in _entries(case, versions)]))
    return apart(found.games, torch.stack(games, 1))


@torch.no_grad()
def _entries(case: Case, versions: Tensor) -> list[Tensor]:
    """Logits of the stem, of each block, and of the remainder."""
    kind, twin = case.kind, case.twin
    entered: dict[str, Tensor] = {}
    hooks = [
        twin.get_submodule(name).register_forward_pre_hook(
            lambda module, inputs, name=name: entered.update({name: inputs[0].clone()})
        )
        for name in kind.blocks
    ]
    left = naive.layer_outputs(kind, twin, versions, [*kind.blocks, *([kind.stem] if kind.stem else [])])
    for hook in hooks:
        hook.remove()
    parts = [left[name] if kind.stem else left[name] - entered[name] for name in kind.blocks]
    stem = left[kind.stem] if kind.stem else entered[kind.blocks[0]]
    constant = kind.readout(twin, torch.zeros_like(stem))
    entries = [kind.readout(twin, stem), *(kind.readout(twin, part) - constant for part in parts)]
    return [*entries, left["output"] - sum(entries)]
