"""The losses of the papers, per sample; a training or probe loss is their mean over the batch."""

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

Targets = Float[Tensor, "*batch C"] | Int[Tensor, " *batch"]  # regression targets, or labels


def cross_entropy(outputs: Float[Tensor, "*batch classes"], y: Int[Tensor, " *batch"]) -> Float[Tensor, " *batch"]:
    """ell = -ln softmax(f)_y; outputs (..., classes), y (...) integer -> (...), in nats.

    The softmax runs over (..., classes, batch). Over a short last axis torch does not vectorise it, which takes 5 to 20
    times as long. With the classes first, a sample's rounding would depend on the ensemble size, because the samples
    left over from full SIMD vectors take another code path.
    """
    if outputs.dim() == 1:
        return cross_entropy(outputs[None], y[None])[0]
    return -F.log_softmax(outputs.mT, dim=-2).gather(-2, y.unsqueeze(-2)).squeeze(-2)


def mse(outputs: Float[Tensor, "*batch C"], y: Targets) -> Float[Tensor, " *batch"]:
    """ell = 1/2 sum_c (f_c - y_c)^2; outputs (..., C), y (..., C), or labels (...) as one-hot -> (...)."""
    if not y.is_floating_point():
        y = F.one_hot(y, outputs.shape[-1]).to(outputs.dtype)
    return 0.5 * (outputs - y).square().sum(-1)


LOSSES = {"cross_entropy": cross_entropy, "mse": mse}


def cross_entropy_and_gradient(
    outputs: Float[Tensor, "*batch classes"], y: Int[Tensor, " *batch"]
) -> tuple[Float[Tensor, " *batch"], Float[Tensor, "*batch classes"]]:
    """ell as in `cross_entropy`, and d ell / df = softmax(f) - e_y (..., batch, classes)."""
    log_p, label = F.log_softmax(outputs.mT, dim=-2), y.unsqueeze(-2)
    loss = -log_p.gather(-2, label).squeeze(-2)
    return loss, log_p.exp_().scatter_add_(-2, label, log_p.new_tensor(-1.0).expand(label.shape)).mT


def mse_and_gradient(
    outputs: Float[Tensor, "*batch C"], y: Targets
) -> tuple[Float[Tensor, " *batch"], Float[Tensor, "*batch C"]]:
    """ell as in `mse`, and d ell / df = f - y."""
    if not y.is_floating_point():
        y = F.one_hot(y, outputs.shape[-1]).to(outputs.dtype)
    gradient = outputs - y
    return 0.5 * gradient.square().sum(-1), gradient


WITH_GRADIENT = {"cross_entropy": cross_entropy_and_gradient, "mse": mse_and_gradient}


def accuracy(outputs: Float[Tensor, "*batch C"], y: Targets) -> Float[Tensor, " *batch"]:
    """1 where the largest output is the label, else 0; NaN for targets that are not labels. Shapes as cross_entropy."""
    if y.is_floating_point():
        return torch.full(outputs.shape[:-1], float("nan"), dtype=outputs.dtype, device=outputs.device)
    return (outputs.argmax(-1) == y).to(outputs.dtype)


@torch.no_grad()
def score(network: nn.Module, x: Shaped[Tensor, "n ..."], y: Shaped[Tensor, "n ..."]) -> float:
    """The fraction of samples that are classified correctly; 0 if any output is not finite."""
    outputs = network(x)
    return accuracy(outputs, y).mean().item() if outputs.isfinite().all() else 0.0
