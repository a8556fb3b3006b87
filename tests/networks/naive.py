"""What the probes measure, computed again without them: hooks of our own, finite differences, loops over samples."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from kinds import Inputs, Kind, count_of, rows_of
from torch import Tensor, nn

LARGE = 5000  # parameters, with more of which a basis of Lanczos vectors takes too much memory


@contextmanager
def changed(network: nn.Module, layer: str, place: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """The values that leave a layer, or enter it, pass through a function."""
    module = network.get_submodule(layer)
    if place == "input":
        handle = module.register_forward_pre_hook(lambda module, inputs: (change(inputs[0]), *inputs[1:]))
    else:
        handle = module.register_forward_hook(lambda module, inputs, output: change(output))
    try:
        yield
    finally:
        handle.remove()


def add(kind: Kind, network: nn.Module, values: Tensor, shift: Tensor) -> Tensor:
    """Add shift (n, *shape) to values, sample by sample, the same for all tokens or pixels."""
    channels = kind.convolution(network) and kind.place(network) == "preactivation"
    rows = [
        row + (part.view(-1, *[1] * (row.dim() - 1)) if channels else part).to(row)
        for row, part in zip(values.unbind(kind.axis), shift, strict=True)
    ]
    return torch.stack(rows, kind.axis)


def outputs(kind: Kind, network: nn.Module, x: Inputs, shift: Tensor | None = None) -> Tensor:
    """Outputs in eval mode, with a shift (n, *shape) where the node sits."""
    network.eval()
    if shift is None:
        return kind.call(network, x)
    with changed(network, kind.layer, kind.place(network), lambda values: add(kind, network, values, shift)):
        return kind.call(network, x)


def loss(kind: Kind, network: nn.Module, x: Inputs, y: Tensor, shift: Tensor | None = None) -> Tensor:
    return kind.loss(outputs(kind, network, x, shift), y)


def site_shape(kind: Kind, network: nn.Module) -> tuple[int, ...]:
    """The shape of a sample's shift."""
    seen = []
    with changed(network, kind.layer, kind.place(network), lambda values: (seen.append(values), values)[1]):
        with torch.no_grad():
            kind.call(network.eval(), rows_of(kind.exact, slice(0, 2)))
    shape = seen[0].select(kind.axis, 0).shape
    if not kind.convolution(network):
        return (shape[-1],)
    return tuple(shape) if kind.place(network) == "input" else (shape[0],)


def pull(kind: Kind, network: nn.Module, x: Inputs, y: Tensor, eps: Tensor, niw: Tensor) -> Tensor:
    """d loss / d W_NI under the noise eps (n, nodes), W_NI (nodes, *shape)."""
    niw = niw.detach().requires_grad_()
    shift = torch.einsum("nm,m...->n...", eps, niw)
    return torch.autograd.grad(loss(kind, network, x, y, shift), niw)[0]


def difference(f: Callable[[float], Tensor], step: float) -> Tensor:
    """f'(0) from central differences at two steps, extrapolated to step 0: the error is of order step^4."""
    coarse, fine = ((f(h) - f(-h)) / (2 * h) for h in (2 * step, step))
    return (4 * fine - coarse) / 3


def local_hessian(kind: Kind, network: nn.Module, x: Inputs, y: Tensor) -> Tensor:
    """Column by column, differences of the gradient in a shift that all samples share."""
    shape, n = site_shape(kind, network), count_of(x)
    units = torch.eye(int(torch.tensor(shape).prod()), dtype=torch.float64).view(-1, *shape)

    def gradient(shift: Tensor) -> Tensor:
        shift = shift.requires_grad_()
        return torch.autograd.grad(loss(kind, network, x, y, shift.expand(n, *shape)), shift)[0].flatten()

    return torch.stack([difference(lambda h, unit=unit: gradient(h * unit), kind.step) for unit in units])


def parameters(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def flat_gradient(value: Tensor, network: nn.Module, *, keep: bool = False) -> Tensor:
    options = {"retain_graph": keep, "allow_unused": True, "materialize_grads": True}
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, parameters(network), **options)])


@contextmanager
def moved(network: nn.Module, change: Tensor) -> Iterator[nn.Module]:
    """The network with its trainable parameters moved by a flat vector."""
    held = parameters(network)
    before = [parameter.detach().clone() for parameter in held]
    pieces = change.split([parameter.numel() for parameter in held])
    with torch.no_grad():
        for parameter, piece in zip(held, pieces, strict=True):
            parameter.add_(piece.view_as(parameter))
    try:
        yield network
    finally:
        with torch.no_grad():
            for parameter, value in zip(held, before, strict=True):
                parameter.copy_(value)


def product(kind: Kind, network: nn.Module, v: Tensor) -> Tensor:
    """The Hessian in the trainable parameters times v, from differences of the gradient."""

    def gradient(h: float) -> Tensor:
        with moved(network, h * v):
            return flat_gradient(loss(kind, network, kind.exact, kind.y), network)

    return difference(gradient, kind.step / 10)


def sharpness(kind: Kind, network: nn.Module) -> float:
    """The largest eigenvalue of the Hessian in the parameters: Lanczos with full orthogonalisation on differences."""
    fixed = {
        id(module.weight): module.padding_idx
        for module in network.modules()
        if isinstance(module, nn.Embedding) and module.padding_idx is not None
    }
    generator, parts = torch.Generator().manual_seed(0), []
    for parameter in parameters(network):
        parts.append(torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
        if id(parameter) in fixed:
            parts[-1][fixed[id(parameter)]] = 0  # training never moves the row of the padding
    v = torch.cat([part.flatten() for part in parts])
    size = len(v)
    basis, images, tops = [v / v.norm()], [], [torch.inf]
    while True:
        images.append(product(kind, network, basis[-1]))
        small = torch.stack(basis) @ torch.stack(images).T
        tops.append(torch.linalg.eigvalsh((small + small.T) / 2)[-1].item())
        v = images[-1]
        for _ in range(2):
            v = v - sum((v @ b) * b for b in basis)
        settled = len(tops) > 4 and abs(tops[-1] - tops[-4]) < 1e-9 * abs(tops[-1])
        if len(basis) == size or settled or v.norm() < 1e-8:
            return tops[-1]
        basis.append(v / v.norm())


def eigenpair(kind: Kind, network: nn.Module, lam: float, v: Tensor, steps: int = 8) -> float:
    """How far (lam, v) is from the top eigenpair of that Hessian, relative to lam, without a basis of vectors.

    The residual |H v - lam v|, and by how much the Rayleigh quotient of a power iteration exceeds lam.
    """
    residual = (product(kind, network, v) - lam * v).norm().item()
    other = torch.randn(v.shape, dtype=v.dtype, generator=torch.Generator().manual_seed(0))
    for _ in range(steps):
        other = other / other.norm()
        image = product(kind, network, other)
        quotient = (other @ image).item()
        other = image + abs(lam) * other  # shifted, so that the algebraically largest wins
    return max(residual, quotient - lam) / abs(lam)


def jacobian(kind: Kind, network: nn.Module, x: Inputs) -> Tensor:
    """(n, C, parameters), one backward pass for each sample and output."""
    rows = []
    for i in range(count_of(x)):
        found = outputs(kind, network, rows_of(x, slice(i, i + 1))).flatten()
        rows.append(torch.stack([flat_gradient(value, network, keep=True) for value in found]))
    return torch.stack(rows)


def sgd_step(kind: Kind, network: nn.Module, x: Inputs, y: Tensor, lr: float) -> Tensor:
    """The change of the flat parameters in one step of plain SGD."""
    return -lr * flat_gradient(loss(kind, network, x, y), network)


@torch.no_grad()
def layer_outputs(kind: Kind, network: nn.Module, x: Inputs, layers: Sequence[str]) -> dict[str, Tensor]:
    """The outputs of layers, and of the network as "output"."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            found.setdefault(name, output.clone())

        return hook

    hooks = [network.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    result = outputs(kind, network, x)
    for hook in hooks:
        hook.remove()
    return found | {"output": result}


def masked(x: Tensor, baseline: Tensor, patches: Tensor) -> Tensor:
    """All 2^n masked versions of one input, entry by entry; the first patch changes fastest."""
    versions = []
    for present in itertools.product((False, True), repeat=len(patches)):
        version = x.clone()
        for there, patch in zip(reversed(present), patches, strict=True):
            if not there:
                version[patch] = baseline[patch]
        versions.append(version)
    return torch.stack(versions)
