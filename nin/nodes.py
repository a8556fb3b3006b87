"""The noise injection node: noise that enters a layer through trainable weights (arXiv 2210.13599)."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nin.arguments import check_choice, check_count, check_number

LAWS: dict[str, Callable[..., Tensor]] = {
    "gaussian": lambda *shape, generator: torch.randn(*shape, dtype=torch.float64, generator=generator),
    "uniform": lambda *shape, generator: (
        math.sqrt(12) * (torch.rand(*shape, dtype=torch.float64, generator=generator) - 0.5)
    ),
    "rademacher": lambda *shape, generator: (
        2.0 * torch.randint(2, shape, dtype=torch.float64, generator=generator) - 1.0
    ),
}


def draw_noise(count: int, nodes: int, *, law: str, generator: torch.Generator) -> Float[Tensor, "count nodes"]:
    """eps of mean 0 and variance 1 in float64 on the CPU; laws: gaussian, uniform on +-sqrt(3), rademacher (+-1)."""
    return LAWS[law](count, nodes, generator=generator)


class NoisyNetwork(nn.Module):
    """A network with a noise injection node: z = W x + b + sum_m eps_m W_NI^(m) behind one of its layers (eq. (1)).

    network  the wrapped model; its parameters are shared and train, its structure and hooks stay as they were
    niw      Parameter (nodes, d_out), the noise injection weights W_NI
    sigma    standard deviation of eps

    `noisy(x)` draws eps (batch, nodes) in training mode and uses none in eval mode; `noisy(x, noise)` uses
    noise as eps itself, sigma included, in either mode.  eps is one number per sample and node: where the layer
    sees more dimensions (tokens), all positions of a sample share it.
    The state_dict holds the network's entries under `network.` and `niw`; the state of the noise generator is
    `noisy.generator.get_state()`.
    """

    def __init__(
        self,
        network: nn.Module,
        layer: str,
        *,
        niw: Tensor,
        sigma: float,
        law: str,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.network = network
        self.layer = layer
        self.niw = nn.Parameter(niw)
        self.sigma = float(sigma)
        self.law = law
        self.generator = generator

    def draw(self, count: int) -> Float[Tensor, "count nodes"]:
        """Draw eps of standard deviation sigma for count samples from the node's own generator.

        For noise that is fixed or re-drawn every epoch in a loop of one's own: draw once for all samples,
        then call `noisy(x[batch], eps[batch])`.
        """
        check_count("count", count)
        eps = draw_noise(count, len(self.niw), law=self.law, generator=self.generator)
        return (self.sigma * eps).to(self.niw)

    def forward(self, x: Tensor, noise: Float[Tensor, "batch nodes"] | None = None) -> Tensor:
        if noise is None:
            if not self.training:
                return self.network(x)
            noise = self.draw(len(x))
        elif noise.shape != (len(x), len(self.niw)):
            raise ValueError(
                f"noise has shape {tuple(noise.shape)}, expected (batch, nodes) = {(len(x), len(self.niw))}."
            )
        shift = noise.to(self.niw) @ self.niw  # (batch, d_out)

        def add_noise(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
            return output + shift.reshape(len(x), *[1] * (output.dim() - 2), shift.shape[-1])

        hook = self.network.get_submodule(self.layer).register_forward_hook(add_noise)
        try:
            return self.network(x)
        finally:
            hook.remove()

    def extra_repr(self) -> str:
        return f"layer={self.layer!r}, nodes={len(self.niw)}, sigma={self.sigma:g}, law={self.law!r}"

    def __getstate__(self) -> dict:
        """Pickle the generator as its state, for torch.Generator itself is copied neither by pickle nor by deepcopy."""
        return self.__dict__ | {"generator": self.generator.get_state()}

    def __setstate__(self, state: dict) -> None:
        generator = torch.Generator()
        generator.set_state(state["generator"])
        super().__setstate__(state | {"generator": generator})


def inject(
    model: nn.Module,
    layer: str,
    *,
    sigma: float,
    nodes: int = 1,
    niw_std: float | None = None,
    at: str | None = None,
    example: Tensor | None = None,
    law: str = "gaussian",
    generator: torch.Generator | None = None,
) -> NoisyNetwork:
    """Put a noise injection node into a layer of a model: z = W x + b + W_NI eps, eps ~ (0, sigma^2) (eq. (1)).

    layer      dotted name of an nn.Linear in model (as in model.named_modules())
    sigma      standard deviation of eps, in units of the layer's pre-activation per unit of W_NI
    nodes      number of nodes M; the paper's experiments use 1
    niw_std    standard deviation of the initial NIW entries; None: d_out^(-1/2), so that |W_NI(0)| is about 1
               (our choice: the paper's initialisation is not known)
    at         "preactivation", the only place for an nn.Linear
    example    not needed for an nn.Linear, whose weight tells the shapes
    law        "gaussian" (default), "uniform", "rademacher"; all of standard deviation sigma
    generator  CPU generator of the initial NIW and of all noise; None: a new one, seeded from torch's global generator

    The model is wrapped, not copied or changed, and its optimiser is any: `torch.optim.SGD(noisy.parameters(), lr)`.
    Raises ValueError for an unknown layer (the candidates are listed), a layer that is no nn.Linear, sigma or
    niw_std negative or not finite, nodes < 1, an unknown law.
    """
    check_number("sigma", sigma)
    check_count("nodes", nodes)
    check_choice("law", law, LAWS)
    if at not in (None, "preactivation"):
        raise ValueError(f"at={at!r} is not possible for an nn.Linear; use 'preactivation'.")
    linear = find_linear(model, layer)
    d_out = linear.out_features
    std = d_out**-0.5 if niw_std is None else niw_std
    check_number("niw_std", std)
    if generator is None:
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
    niw = std * torch.randn(nodes, d_out, dtype=torch.float64, generator=generator)
    return NoisyNetwork(model, layer, niw=niw.to(linear.weight), sigma=sigma, law=law, generator=generator)


def linear_layers(model: nn.Module) -> list[str]:
    """Return the dotted names of a model's nn.Linear layers, in the order of model.named_modules()."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def find_linear(model: nn.Module, layer: str) -> nn.Linear:
    """Return the nn.Linear of that dotted name; ValueError with the list of candidates where there is none."""
    candidates = linear_layers(model)
    if layer not in candidates:
        known = dict(model.named_modules())
        what = f"is a {type(known[layer]).__name__}, not an nn.Linear" if layer in known else "is not in the model"
        raise ValueError(f"layer={layer!r} {what}; its linear layers are: {', '.join(candidates) or 'none'}.")
    return model.get_submodule(layer)
