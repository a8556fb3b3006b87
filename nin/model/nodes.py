"""The noise injection node: noise that enters a layer through trainable weights (arXiv 2210.13599)."""

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nin.model.layer_weights import LayerWeights, by_layer, parameter
from nin.model.noise import LAWS, draw_noise
from nin.model.passing import Noise, split
from nin.model.shift import Passing, Shift
from nin.model.sites import Site, WithNodes
from nin.support.arguments import check_choice, check_count, check_number
from nin.support.precision import matching


class NoisyNetwork(WithNodes):
    """A network with noise injection nodes: z = W x + b + sum_m eps_m W_NI^(m) (eq. (1)), or at an input (eq. (2)).

    network  the wrapped model; its parameters are shared and trained, its structure and hooks do not change
    niw      Parameter (nodes, *shape), the noise injection weights W_NI; for several layers a mapping by layer
    sigma    standard deviation of eps; for several layers a mapping by layer; can be set, also during training:
             `nin.model.schedule.SigmaSchedule`

    `noisy(...)` takes the inputs of the network, draws eps (batch, nodes) in training mode, one number per sample and
    node that all tokens or pixels of the sample share, and uses no noise in eval mode. The number of samples is that of
    the values in the layer. `noisy(x, eps)`, `noisy(x, noise=eps)` and `with noisy.using(eps):` use eps itself, sigma
    included, in either mode; the last cannot be confused with an input. For several layers eps is a mapping by layer.
    A network under gradient checkpointing meets the same noise when backward computes it again. In a process group each
    rank draws its own noise. Other attributes are those of the network.
    The state_dict holds the network's entries under `network.`, `niw`, and the state of the noise generator, so that a
    run that is saved and loaded continues exactly.

    Raises ValueError for noise of the wrong shape, for a layer that a forward pass does not call, or calls twice
    without `calls=` of `nin.inject`, and for one that receives values of a shape that its node does not fit.
    """

    def __init__(
        self,
        network: nn.Module,
        sites: Sequence[Site],
        *,
        niw: Sequence[Float[Tensor, "_ ..."]],
        sigma: Sequence[float],
        law: str | Sequence[str],
        generator: torch.Generator,
        calls: str = "once",
    ) -> None:
        super().__init__()
        self.network = network
        self.sites = tuple(sites)
        self.niw = parameter(niw[0]) if len(sites) == 1 else LayerWeights(dict(zip(self.layers, niw, strict=True)))
        self.sigmas = tuple(float(value) for value in sigma)
        self.laws = (law,) * len(sites) if isinstance(law, str) else tuple(law)
        self.generator = generator
        self.calls = calls
        self._passing = Passing()

    @property
    def layers(self) -> tuple[str, ...]:
        """Dotted names of the layers that have nodes."""
        return tuple(site.layer for site in self.sites)

    @property
    def layer(self) -> str:
        """Dotted name of the first layer that has nodes."""
        return self.sites[0].layer

    @property
    def weights(self) -> dict[str, Float[Tensor, "_ ..."]]:
        """The noise injection weights by layer, alike for one layer and for several."""
        return {self.layer: self.niw} if len(self.sites) == 1 else dict(self.niw)

    @property
    def sigma(self) -> float | dict[str, float]:
        return self.sigmas[0] if len(self.sites) == 1 else dict(zip(self.layers, self.sigmas, strict=True))

    @sigma.setter
    def sigma(self, value: float | Sequence[float] | Mapping[str, float]) -> None:
        values = by_layer("sigma", value, self.layers)
        for one in values:
            check_number("sigma", one)
        self.sigmas = tuple(float(one) for one in values)

    @property
    def law(self) -> str | dict[str, str]:
        return self.laws[0] if len(set(self.laws)) == 1 else dict(zip(self.layers, self.laws, strict=True))

    @law.setter
    def law(self, value: str | Sequence[str] | Mapping[str, str]) -> None:
        laws = by_layer("law", value, self.layers)
        for one in laws:
            check_choice("law", one, LAWS)
        self.laws = tuple(laws)

    def draw(self, count: int) -> Noise:
        """Draw eps (count, nodes) of standard deviation sigma from the node's generator; a mapping for several layers.

        For noise that is fixed or re-drawn every epoch in your own loop: draw once for all samples,
        then call `noisy(x[batch], eps[batch])`.
        """
        check_count("count", count)
        eps = self.draws(count)
        return eps[0] if len(eps) == 1 else dict(zip(self.layers, eps, strict=True))

    def draws(self, count: int) -> list[Float[Tensor, "count _"]]:
        """As `draw`, a list with the noise of each layer."""
        generator = of_rank(self.generator)
        return [
            matching(sigma * draw_noise(count, len(niw), law=law, generator=generator), niw)
            for sigma, law, niw in zip(self.sigmas, self.laws, self.weights.values(), strict=True)
        ]

    @contextlib.contextmanager
    def using(self, noise: Noise | None) -> Iterator["NoisyNetwork"]:
        """Inside the context every call uses this noise as eps, in either mode; a number: for all samples and nodes.

        None ends an outer context for a while: noise is drawn in training mode, and there is none in eval mode.
        """
        before, self._passing.given = self._passing.given, noise
        try:
            yield self
        finally:
            self._passing.given = before

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        nodes = self.niw.shape[0] if len(self.sites) == 1 else len(next(iter(self.niw.values())))
        noise, inputs, keywords = split(self.network, nodes, inputs, keywords)
        noise = self._passing.given if noise is None else noise
        if noise is None and not self.training:
            return self.network(*inputs, **keywords)
        if torch.compiler.is_compiling():
            torch._dynamo.graph_break(
                "a noisy network draws noise, and hooks the layers that receive it, outside the graph, so that "
                "fullgraph=True cannot hold it; torch.compile(noisy) without fullgraph can."
            )
        return Shift(self, noise).call(inputs, keywords)

    @property
    def accepts_loss_kwargs(self) -> bool:
        """Whether the network takes any keyword: Hugging Face's Trainer asks before it adds some."""
        kinds = inspect.signature(self.network.forward).parameters.values()
        return getattr(self.network, "accepts_loss_kwargs", any(p.kind is p.VAR_KEYWORD for p in kinds))

    def without(self, *layers: str) -> "nn.Module":
        """The network without the nodes of these layers; the weights of the others are shared. All: the network.

        Raises ValueError for a layer that has no node.
        """
        if unknown := set(layers) - set(self.layers):
            raise ValueError(f"layers={sorted(unknown)} have no node; layers with nodes: {', '.join(self.layers)}.")
        kept = [place for place, layer in enumerate(self.layers) if layer not in layers]
        if not kept:
            return self.network
        rest = NoisyNetwork(
            self.network,
            [self.sites[place] for place in kept],
            niw=[list(self.weights.values())[place] for place in kept],
            sigma=[self.sigmas[place] for place in kept],
            law=[self.laws[place] for place in kept],
            generator=self.generator,
            calls=self.calls,
        )
        return rest.train(self.training)

    def parameter_groups(self, **options: Any) -> list[dict[str, Any]]:
        """Two groups for an optimiser: the network's trainable parameters, and W_NI without weight decay.

        Weight decay makes |W_NI| fall where the noise does nothing, which looks like the decay phase.
        options   of both groups, such as lr=0.1, weight_decay=0.01
        """
        niw = list(self.weights.values())
        others = [p for p in self.network.parameters() if p.requires_grad]
        return [{"params": others, **options}, {"params": niw, **options, "weight_decay": 0.0}]

    def extra_repr(self) -> str:
        nodes = len(next(iter(self.weights.values())))
        return f"layers={', '.join(self.layers)}, nodes={nodes}, sigma={self.sigma}, law={self.law!r}"

    def get_extra_state(self) -> Tensor:
        """The state of the noise generator, for state_dict."""
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Set the noise generator to a state, from load_state_dict."""
        self.generator.set_state(state.cpu())

    def __getstate__(self) -> dict:
        """Pickle the generator as its state, because neither pickle nor deepcopy copies a torch.Generator."""
        return self.__dict__ | {"_passing": Passing(), "generator": self.generator.get_state()}

    def __setstate__(self, state: dict) -> None:
        generator = torch.Generator()
        generator.set_state(state["generator"])
        laws, sigmas = (state.get("law"),) * len(state["sites"]), state.get("_sigma")  # as earlier versions kept them
        earlier = {"_passing": Passing(), "calls": "once", "laws": laws, "sigmas": sigmas}
        super().__setstate__(earlier | state | {"generator": generator})

    def __getattr__(self, name: str) -> Any:
        """An attribute of the network, such as `config` or `generate`, if the node has none of this name."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            network = self.__dict__.get("_modules", {}).get("network")
            if network is None or name.startswith("__"):
                raise
            return getattr(network, name)


def of_rank(generator: torch.Generator) -> torch.Generator:
    """The generator itself; in a process group one for each rank, from a seed that all ranks draw alike.

    The generators of all ranks stay in the same state, so that one checkpoint resumes all of them.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return generator
    ranks = torch.distributed.get_world_size()
    if ranks == 1:
        return generator
    seeds = torch.randint(2**62, (ranks,), generator=generator)
    return torch.Generator().manual_seed(int(seeds[torch.distributed.get_rank()]))
