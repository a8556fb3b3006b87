"""The noise injection node: noise that enters a layer through trainable weights (arXiv 2210.13599)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nin.model.noise import LAWS, draw_noise
from nin.model.sites import Site, find_site
from nin.support.arguments import check_choice, check_count, check_number

Noise = Tensor | Mapping[str, Tensor]


class NoisyNetwork(nn.Module):
    """A network with noise injection nodes: z = W x + b + sum_m eps_m W_NI^(m) (eq. (1)), or at an input (eq. (2)).

    network  the wrapped model; its parameters are shared and trained, its structure and hooks do not change
    niw      Parameter (nodes, *shape), the noise injection weights W_NI; for several layers a mapping by layer
    sigma    standard deviation of eps; for several layers a mapping by layer

    `noisy(x)` draws eps (batch, nodes) in training mode and uses no noise in eval mode; `noisy(x, noise)` uses
    noise as eps itself, sigma included, in either mode. With several layers, each has its own nodes and noise: pass a
    mapping by layer. eps is one number per sample and node, shared by all tokens or pixels of the sample.
    Further keyword arguments go to the network.
    The state_dict holds the network's entries under `network.`, `niw`, and the state of the noise generator, so that a
    run that is saved and loaded continues exactly.

    Raises ValueError for noise of the wrong shape, for a layer that a forward pass does not call exactly once, and for
    one that receives values of a shape that its node does not fit.
    """

    def __init__(
        self,
        network: nn.Module,
        sites: Sequence[Site],
        *,
        niw: Sequence[Float[Tensor, "nodes ..."]],
        sigma: Sequence[float],
        law: str,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.network = network
        self.sites = tuple(sites)
        self.niw = nn.Parameter(niw[0]) if len(sites) == 1 else LayerWeights(dict(zip(self.layers, niw, strict=True)))
        self._sigma = tuple(float(value) for value in sigma)
        self.law = law
        self.generator = generator

    @property
    def layers(self) -> tuple[str, ...]:
        """Dotted names of the layers that have nodes."""
        return tuple(site.layer for site in self.sites)

    @property
    def layer(self) -> str:
        """Dotted name of the first layer that has nodes."""
        return self.sites[0].layer

    @property
    def sigma(self) -> float | dict[str, float]:
        return self._sigma[0] if len(self.sites) == 1 else dict(zip(self.layers, self._sigma, strict=True))

    def draw(self, count: int) -> Noise:
        """Draw eps (count, nodes) of standard deviation sigma from the node's generator; a mapping for several layers.

        For noise that is fixed or re-drawn every epoch in your own loop: draw once for all samples,
        then call `noisy(x[batch], eps[batch])`.
        """
        check_count("count", count)
        eps = [
            (sigma * draw_noise(count, len(niw), law=self.law, generator=self.generator)).to(niw)
            for sigma, niw in zip(self._sigma, self._weights(), strict=True)
        ]
        return eps[0] if len(eps) == 1 else dict(zip(self.layers, eps, strict=True))

    def forward(self, x: Tensor, noise: Noise | None = None, **inputs: Any) -> Any:
        if noise is None:
            if not self.training:
                return self.network(x, **inputs)
            noise = self.draw(len(x))
        noise, weights, calls = self._checked(noise, len(x)), self._weights(), [0] * len(self.sites)
        hooks = [self._hook(index, noise[index], weights[index], calls) for index in range(len(self.sites))]
        try:
            output = self.network(x, **inputs)
        finally:  # the hooks live for one pass: the model itself is not changed
            for hook in hooks:
                hook.remove()
        for site, count in zip(self.sites, calls, strict=True):
            _check_calls(site.layer, count)
        return output

    def extra_repr(self) -> str:
        nodes = len(self._weights()[0])
        return f"layers={', '.join(self.layers)}, nodes={nodes}, sigma={self.sigma}, law={self.law!r}"

    def get_extra_state(self) -> Tensor:
        """The state of the noise generator, for state_dict."""
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Set the noise generator to a state, from load_state_dict."""
        self.generator.set_state(state.cpu())

    def __getstate__(self) -> dict:
        """Pickle the generator as its state, because neither pickle nor deepcopy copies a torch.Generator."""
        return self.__dict__ | {"generator": self.generator.get_state()}

    def __setstate__(self, state: dict) -> None:
        generator = torch.Generator()
        generator.set_state(state["generator"])
        super().__setstate__(state | {"generator": generator})

    def _weights(self) -> list[Float[Tensor, "nodes ..."]]:
        return [self.niw] if len(self.sites) == 1 else [self.niw[layer] for layer in self.layers]

    def _checked(self, noise: Noise, batch: int) -> list[Float[Tensor, "batch nodes"]]:
        """The noise of each layer, checked to have the right shape."""
        if len(self.sites) == 1 and isinstance(noise, Tensor):
            noise = {self.layer: noise}
        if not isinstance(noise, Mapping) or set(noise) != set(self.layers):
            what = sorted(noise) if isinstance(noise, Mapping) else type(noise).__name__
            raise ValueError(f"noise={what} must map each of the layers {', '.join(self.layers)} to (batch, nodes).")
        for layer, niw in zip(self.layers, self._weights(), strict=True):
            if noise[layer].shape != (batch, len(niw)):
                at = f" at {layer!r}" if len(self.sites) > 1 else ""
                found = tuple(noise[layer].shape)
                raise ValueError(f"noise{at} has shape {found}, expected (batch, nodes) = {(batch, len(niw))}.")
        return [noise[layer].to(niw) for layer, niw in zip(self.layers, self._weights(), strict=True)]

    def _hook(
        self, index: int, eps: Float[Tensor, "batch nodes"], niw: Float[Tensor, "nodes ..."], calls: list[int]
    ) -> torch.utils.hooks.RemovableHandle:
        site = self.sites[index]
        module = self.network.get_submodule(site.layer)

        def add(values: Tensor) -> Tensor:
            calls[index] += 1
            if calls[index] > 1:
                _check_calls(site.layer, calls[index])
            return site.add(values, eps, niw)

        if site.at == "preactivation":
            return module.register_forward_hook(lambda _, inputs, output: add(output))
        return module.register_forward_pre_hook(lambda _, inputs: (add(inputs[0]), *inputs[1:]))


class LayerWeights(nn.Module, Mapping):
    """Noise injection weights by the dotted name of their layer."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._layers = tuple(weights)
        for layer, tensor in weights.items():
            self.register_parameter(_entry(layer), nn.Parameter(tensor))

    def __getitem__(self, layer: str) -> Tensor:
        if layer not in self._layers:
            raise KeyError(f"{layer!r} has no node; layers with nodes: {', '.join(self._layers)}")
        return self._parameters[_entry(layer)]  # under functional_call a plain tensor, which get_parameter refuses

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    __eq__ = object.__eq__
    __hash__ = object.__hash__


def inject(
    model: nn.Module,
    layer: str | Sequence[str],
    *,
    sigma: float | Sequence[float],
    nodes: int = 1,
    niw_std: float | None = None,
    at: str | None = None,
    example: Tensor | None = None,
    law: str = "gaussian",
    generator: torch.Generator | None = None,
) -> NoisyNetwork:
    """Put noise injection nodes into a layer of a model, or into several: z = W x + b + W_NI eps, eps ~ (0, sigma^2).

    layer      dotted name of an nn.Linear or a convolution (as in model.named_modules()), or a sequence of names
    sigma      standard deviation of eps, in units of the values it is added to, per unit of W_NI; or one for each layer
    nodes      number of nodes M of each layer; the paper's experiments use 1
    niw_std    standard deviation of the initial NIW entries; None: d^(-1/2) for d entries per node, so that
               |W_NI(0)| is about 1 (our choice: the paper does not state its initialisation)
    at         "preactivation": one weight per output feature (eq. (1)), or per output channel, the same at all pixels;
               "input": one weight per input feature, or per channel and pixel of the representation that enters a
               convolution (eq. (2)); None: "preactivation" for an nn.Linear, "input" for a convolution
    example    a batch of the model's inputs; gives the number of pixels before a convolution, not needed otherwise
    law        "gaussian" (default), "uniform", "rademacher"; all of standard deviation sigma
    generator  CPU generator of the initial NIW and of all noise; None: a new one, seeded from torch's global generator

    The model is wrapped, neither copied nor changed; any optimiser works: `torch.optim.SGD(noisy.parameters(), lr)`.
    Source: arXiv 2210.13599 and 2210.15764, reference equations (1) and (2).
    Raises ValueError for an unknown layer (the candidates are listed), one that cannot take a node, a convolution
    without an example, an example that the model rejects, half precision, several devices, sigma or niw_std
    negative or not finite, a number of sigmas that differs from the number of layers, nodes < 1, an unknown law.
    """
    layers = (layer,) if isinstance(layer, str) else tuple(layer)
    if not layers or len(set(layers)) < len(layers):
        raise ValueError(f"layer={layer!r} must be a name, or a sequence of different names.")
    sigmas = tuple(sigma) if isinstance(sigma, Sequence) and not isinstance(sigma, str) else (sigma,) * len(layers)
    if len(sigmas) != len(layers):
        raise ValueError(f"sigma={sigma!r} has {len(sigmas)} values for {len(layers)} layers; give one, or one each.")
    for value in sigmas:
        check_number("sigma", value)
    check_count("nodes", nodes)
    check_choice("law", law, LAWS)
    if niw_std is not None:
        check_number("niw_std", niw_std)
    sites = [find_site(model, name, at=at, example=example) for name in layers]
    if generator is None:
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
    niw = [_initial(site, nodes, niw_std, generator).to(model.get_submodule(site.layer).weight) for site in sites]
    return NoisyNetwork(model, sites, niw=niw, sigma=sigmas, law=law, generator=generator)


def _initial(site: Site, nodes: int, std: float | None, generator: torch.Generator) -> Float[Tensor, "nodes ..."]:
    entries = math.prod(site.shape)
    scale = entries**-0.5 if std is None else std
    return scale * torch.randn(nodes, *site.shape, dtype=torch.float64, generator=generator)


def _check_calls(layer: str, count: int) -> None:
    if count != 1:
        often = "never called" if not count else f"called {'twice' if count == 2 else f'{count} times'}"
        raise ValueError(
            f"layer={layer!r} was {often} in one forward pass; a node needs exactly one call. A module that is shared, "
            "or whose weight is used without calling it, cannot take a node."
        )


def _entry(layer: str) -> str:
    return layer.replace(".", "/")
