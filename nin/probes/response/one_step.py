"""The training response: how one more step on one sample changes a network's outputs (arXiv 2405.04074)."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nin.model.evaluating import check_whole, evaluating
from nin.model.functional import check_plain_weights, naming_derivatives
from nin.model.views import Forward, Inputs, View, check_model, numbered
from nin.probes.response.tangent_kernel import along, function_of
from nin.support.arguments import check_function, check_kind
from nin.support.randomness import kept_randomness

Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class Response:
    """The response of probe samples to a training step.

    exact    f(x; theta+) - f(x; theta), (probes, ...) like the model's outputs
    linear   grad f(x) . (theta+ - theta), the same to first order in the step
    nonlinearity    |exact - linear| / |linear|, over all probes
    """

    exact: Float[Tensor, "probes ..."]
    linear: Float[Tensor, "probes ..."]

    @property
    def nonlinearity(self) -> float:
        return ((self.exact - self.linear).norm() / self.linear.norm()).item()


def response(
    model: nn.Module,
    x: Inputs,
    y: Inputs,
    probe: Inputs,
    *,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    forward: Forward | None = None,
) -> Response:
    """R(probe | x, y) = f(probe; theta+) - f(probe; theta) for one step of the optimiser on (x, y) (equation (1)).

    x, y     the datum as a batch of one, or a larger batch for the response to a step on all of it; tensors, or
             sequences or mappings of them: model(x), model(*x), model(**x)
    probe    samples, shaped like x, whose change of output is measured
    loss     loss(outputs, y) -> scalar
    optimizer    of the model's parameters; a copy of it, including its state, takes the step on a copy of the model
    forward  forward(model, x) -> outputs, in place of model(x), such as lambda model, x: model(**x).logits
    For plain SGD the linear response is -eta Theta(probe, x) dl/df. The model is in eval mode: batch norm uses its
    running statistics without updating them, and dropout is off. Model, optimiser, gradients, random state and modes
    do not change. Raises ValueError for a probe of another shape, a loss that is not a scalar, an optimiser of
    other parameters, and gradients that are not finite.
    """
    if isinstance(x, Tensor) and isinstance(probe, Tensor) and probe.shape[1:] != x.shape[1:]:
        raise ValueError(f"probe of shape {tuple(probe.shape)} must have samples like x, {tuple(x.shape[1:])} each.")
    return Stepper(model, optimizer, loss, forward).step(x, y, probe)


class Stepper:
    """Takes steps with copies of a model and its optimiser, each from the current state of the originals."""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss, forward: Forward | None = None
    ) -> None:
        check_model(model)
        check_function("loss", loss, "(outputs, y) -> scalar")
        check_kind("optimizer", optimizer, torch.optim.Optimizer, "a torch optimiser of the model's parameters")
        own = {id(p) for p in model.parameters()}
        held = [p for group in optimizer.param_groups for p in group["params"]]
        foreign = [p for p in held if id(p) not in own]
        if foreign or not held:
            raise ValueError(
                f"optimizer holds {len(held)} parameters, of which {len(foreign)} are not the model's; create it from "
                "model.parameters(), after moving or copying the model."
            )
        self.model, self.optimizer, self.loss, self.forward = model, optimizer, loss, forward
        check_plain_weights(model)
        check_whole(model)
        memo: dict[int, object] = {}
        self._copy, self._optimizer = copy.deepcopy(model, memo).eval(), copy.deepcopy(optimizer, memo)
        for name, value in vars(optimizer).items():  # what an optimiser (LBFGS) keeps outside its state
            if name not in vars(self._optimizer) and not callable(value):
                setattr(self._optimizer, name, copy.deepcopy(value, memo))

    def step(self, x: Inputs, y: Inputs, probe: Inputs) -> Response:
        """The response of the probe samples to a step on (x, y)."""
        self._restore()
        (count,), (targets,) = (
            [len(part) for part in numbered(name, value)[1]] for name, value in (("x", x), ("y", y))
        )
        if not count or count != targets:
            raise ValueError(f"x has {count} and y has {targets} samples; pass the same number, at least one.")
        rows, (x, probe) = numbered("x", x, probe)
        model, copied = (View(network, rows, self.forward) for network in (self.model, self._copy))
        with kept_randomness():
            self._optimizer.step(lambda: self._backward(copied, x, y))
        with evaluating(model), torch.no_grad(), naming_derivatives():
            f, before = function_of(model)
            after = dict(self._copy.named_parameters())
            change = {name: after[name].detach() - value for name, value in before.items()}
            shape = model(probe).shape
            quiet, linear = along(lambda p: f(p, probe), before, change)
            exact = f({name: after[name].detach() for name in before}, probe) - quiet
        return Response(exact.view(shape), linear.view(shape))

    @torch.enable_grad()
    def _backward(self, model: nn.Module, x: Tensor, y: Inputs) -> Tensor:
        self._optimizer.zero_grad()
        value = self.loss(model(x), y)
        if not isinstance(value, Tensor) or value.dim() > 0:
            what = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"loss returned {what}; it must return a scalar, for example the mean over the batch.")
        value.backward()
        for name, parameter in self._copy.named_parameters():
            if parameter.grad is not None and not parameter.grad.isfinite().all():
                raise ValueError(
                    f"the gradient of {name!r} is not finite at loss {value.item():g}: the run has diverged, or its "
                    "inputs are not finite. Measure the response earlier in the run."
                )
        return value

    def _restore(self) -> None:
        """Set the copies to the current state of the originals."""
        with torch.no_grad():
            pairs = zip(self._copy.parameters(), self.model.parameters(), strict=True)
            buffers = zip(self._copy.buffers(), self.model.buffers(), strict=True)
            for ours, theirs in (*pairs, *buffers):
                ours.copy_(theirs)
        self._optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))
