"""Put noise injection nodes into a network."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nin.model.layer_weights import by_layer
from nin.model.layers import weight_like
from nin.model.nodes import NoisyNetwork
from nin.model.noise import LAWS
from nin.model.sites import Site, find_site
from nin.model.views import Inputs, check_model
from nin.support.arguments import check_choice, check_count, check_number
from nin.support.precision import matching
from nin.support.randomness import check_generator

CALLS = ("once", "same", "each")


def inject(
    model: nn.Module,
    layer: str | Sequence[str],
    *,
    sigma: float | Sequence[float] | Mapping[str, float],
    nodes: int | Sequence[int] | Mapping[str, int] = 1,
    niw_std: float | Sequence[float] | Mapping[str, float] | None = None,
    at: str | Sequence[str] | Mapping[str, str] | None = None,
    example: Inputs | None = None,
    law: str | Sequence[str] | Mapping[str, str] = "gaussian",
    calls: str = "once",
    batch_axis: int | None = None,
    generator: torch.Generator | None = None,
) -> NoisyNetwork:
    """Put noise injection nodes into a layer of a model, or into several: z = W x + b + W_NI eps, eps ~ (0, sigma^2).

    layer      dotted name of a linear layer, a convolution or an embedding (as in model.named_modules()), or a sequence
    sigma      standard deviation of eps, in units of the values it is added to, per unit of W_NI
    nodes      number of nodes M of each layer; the paper's experiments use 1
    niw_std    standard deviation of the initial NIW entries; None: d^(-1/2) for d entries per node, so that
               |W_NI(0)| is about 1 (our choice: the paper does not state its initialisation)
    at         "preactivation": one weight per output feature (eq. (1)), or per output channel, the same at all pixels;
               "input": one weight per input feature, or per channel and pixel of the representation that enters a
               convolution (eq. (2)); None: "input" for a convolution, else "preactivation"
    example    a batch of the model's inputs (a sequence or mapping for several): the number of pixels before a
               convolution; not needed otherwise
    law        "gaussian" (default), "uniform", "rademacher"; all of standard deviation sigma
    calls      for a layer that a forward pass calls several times: "same" noise in all its calls, or new noise in
               "each" (noise that is given then has shape (calls, batch, nodes)); "once" (default) refuses it
    batch_axis the axis of the layer's values that counts the samples; None: 0, unless a module has batch_first=False
    generator  CPU generator of the initial NIW and of all noise; None: a new one, seeded from torch's global generator

    For several layers sigma, nodes, niw_std, at and law can be sequences in their order, or mappings by layer.
    The model is wrapped, neither copied nor changed; any optimiser works: `torch.optim.SGD(noisy.parameters(), lr)`.
    `noisy.network` is the model without nodes.
    Source: arXiv 2210.13599 and 2210.15764, reference equations (1) and (2).
    Raises ValueError for an unknown layer (the candidates are listed), one that cannot take a node, a convolution
    without an example, an example that the model rejects, half precision, several devices, a model that is compiled,
    scripted or distributed, sigma or niw_std negative or not finite, a number of values that differs from the number of
    layers, nodes < 1, an unknown law, and for a model with batch_first=False without batch_axis.
    """
    check_model(model)
    layers = (layer,) if isinstance(layer, str) else tuple(layer) if isinstance(layer, Iterable) else None
    if layers is None:
        raise ValueError(
            f"layer={layer!r} must be the dotted name of a layer, as in model.named_modules(), or several."
        )
    if generator is not None:
        check_generator(generator)
    if not layers or len(set(layers)) < len(layers):
        raise ValueError(f"layer={layer!r} must be a name, or a sequence of different names.")
    sigmas, counts, scales, places, laws = (
        by_layer(name, value, layers)
        for name, value in (("sigma", sigma), ("nodes", nodes), ("niw_std", niw_std), ("at", at), ("law", law))
    )
    check_choice("calls", calls, CALLS)
    for one, count, scale, drawn in zip(sigmas, counts, scales, laws, strict=True):
        check_number("sigma", one)
        check_count("nodes", count)
        check_choice("law", drawn, LAWS)
        if scale is not None:
            check_number("niw_std", scale)
    sites = [
        find_site(model, name, at=place, example=example, batch_axis=batch_axis)
        for name, place in zip(layers, places, strict=True)
    ]
    if generator is None:
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
    niw = [
        matching(_initial(site, count, scale, generator), weight_like(model, site.layer))
        for site, count, scale in zip(sites, counts, scales, strict=True)
    ]
    return NoisyNetwork(model, sites, niw=niw, sigma=sigmas, law=laws, generator=generator, calls=calls)


def _initial(site: Site, nodes: int, std: float | None, generator: torch.Generator) -> Float[Tensor, "nodes ..."]:
    entries = math.prod(site.shape)
    scale = entries**-0.5 if std is None else std
    return scale * torch.randn(nodes, *site.shape, dtype=torch.float64, generator=generator)
