"""The cells of docs/networks.md: each kind of network under each probe, with a verdict that is computed."""

import re
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import attention
import columns
import convolutional
import feedforward
import more_columns
import real
import recurrent
import torch
import wrapped
from columns import Case
from kinds import Kind
from torch import Tensor, nn

STEPS = 10  # whose fastest is the unit of cost
RIGHT, WRONG, REFUSED, CRASHES, NONE = "right", "wrong", "refused", "crashes", "-"
FAMILIES = {
    "Linear layers, norms, embeddings": feedforward.KINDS,
    "Convolutions": convolutional.KINDS,
    "Transformers": attention.KINDS,
    "Recurrent networks": recurrent.KINDS,
    "Wrapped networks": wrapped.KINDS,
}
LIBRARIES = {"torchvision and timm": real.KINDS[:6], "transformers and peft": real.KINDS[6:]}
KINDS = {kind.name: kind for kinds in FAMILIES.values() for kind in kinds}
REAL = {kind.name: kind for kinds in LIBRARIES.values() for kind in kinds}

Column = Callable[[Case], float]
CURVATURE: dict[str, Column] = {
    "inject": columns.inject,
    "local_hessian": columns.local_hessian,
    "extremes": columns.extremes,
    "sharpness": columns.sharpness,
    "noise_averaged": columns.noise_averaged,
    "critical_rate, predict": columns.critical_rate,
    "Thermometer": columns.thermometer_column,
    "memorisation": columns.memorisation_column,
}
OTHERS: dict[str, Column] = {
    "kernel": more_columns.kernel,
    "response": more_columns.response,
    "flips": more_columns.flips,
    "worst_neuron": more_columns.worst_neuron,
    "compare": more_columns.compare,
    "sensitivities": more_columns.sensitivities,
    "masked_outputs": more_columns.masked_outputs,
    "layerwise": more_columns.layerwise,
    "residual_ledger": more_columns.residual_ledger,
}
COLUMNS = CURVATURE | OTHERS


@dataclass(frozen=True)
class Cell:
    """A verdict; the error of a right or wrong number, the sentence of a refusal, the cost in training steps."""

    verdict: str
    error: float = float("nan")
    sentence: str = ""
    cost: float = float("nan")

    @property
    def same(self) -> tuple[str, str]:
        """What a repetition must give again: the verdict and the sentence, whose numbers may be rounded otherwise."""
        return self.verdict, re.sub(r"\d+(\.\d+)?(e[+-]\d+)?", "#", self.sentence)


def applies(column: str, kind: Kind) -> bool:
    """Whether a probe has a meaning for a kind: deformations are of square images, a ledger of a residual stream."""
    labels = kind.y.dim() == 1
    return {
        "sensitivities": kind.images,
        "residual_ledger": bool(kind.blocks),
        "flips": kind.floating and labels,  # noise on the inputs, one label for each sample
        "worst_neuron": labels,
        "masked_outputs": isinstance(kind.x, Tensor),  # patches are of one input
        "layerwise": kind.floating and labels,
        "compare": kind.floating,
    }.get(column, True)


def run(column: str, kind: Kind, *, step: float = float("nan")) -> Cell:
    """Ask one probe about a fresh network of this kind; warnings are errors. step: seconds of one training step."""
    if not applies(column, kind):
        return Cell(NONE)
    with warnings.catch_warnings(), kind.around():
        network = built(kind)
        case = Case(kind, network, kind.twin(network))
        warnings.simplefilter("error")
        network.train()
        before = state(network)
        try:
            error = COLUMNS[column](case)
        except Exception as raised:
            if not from_nin(raised):
                raise
            cell = Cell(REFUSED if _named(raised) else CRASHES, sentence=sentence(raised))
        else:
            cost = sum(case.seconds) / len(case.seconds) / step
            cell = Cell(RIGHT if error < kind.tolerance else WRONG, error=error, cost=cost)
        if changes := differences(before, state(network)):
            return Cell(WRONG, sentence=f"it changes {', '.join(changes)}")
        return cell


def built(kind: Kind) -> nn.Module:
    """A fresh network; warnings of the library that builds it are not ours to judge."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    return kind.build()


def training_step(kind: Kind) -> float:
    """CPU seconds of one step of SGD on the whole batch, the fastest of some."""
    with warnings.catch_warnings(), kind.around():
        network = built(kind).train()
        optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.0)
        seconds = []
        for _ in range(STEPS):
            start = time.process_time()
            optimizer.zero_grad()
            kind.loss(kind.call(network, kind.x), kind.y).backward()
            optimizer.step()
            seconds.append(time.process_time() - start)
        return min(seconds)


def from_nin(raised: Exception) -> bool:
    """Whether the library was running; an error of the page's own code is not a verdict."""
    return any("/nin/" in frame.filename for frame in traceback.extract_tb(raised.__traceback__))


def _named(raised: Exception) -> bool:
    """Whether it is an error of ours: a ValueError that the library raised itself."""
    last = traceback.extract_tb(raised.__traceback__)[-1]
    return isinstance(raised, ValueError) and "/nin/" in last.filename


def sentence(raised: Exception) -> str:
    """The first sentence of an error."""
    text = " ".join(str(raised).split())
    first = re.split(r"(?<=[a-z\])'\d])\. (?=[A-Z])", text)[0].rstrip(".")
    return first if _named(raised) else f"{type(raised).__name__}: {first[:160]}"


def state(network: nn.Module) -> dict[str, Any]:
    """What a probe must leave as it was: tensors and their places, gradients, modes, hooks, the random state."""
    found: dict[str, Any] = {"random state": torch.get_rng_state()}
    for name, module in network.named_modules(remove_duplicate=False):
        hooks = [len(held) for key, held in vars(module).items() if key.endswith("_hooks")]
        found[f"mode or hooks of {name!r}"] = (module.training, tuple(hooks), id(module))
        for key, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                gradient = None if tensor.grad is None else tensor.grad.clone()
                here = f"{name}.{key}".lstrip(".")
                found[here] = (id(tensor), type(tensor), tensor.requires_grad, gradient, tensor.detach().clone())
    return found


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The names of what differs, bit for bit."""

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
        if isinstance(a, tuple) and isinstance(b, tuple):
            return len(a) == len(b) and all(map(same, a, b))
        return type(a) is type(b) and a == b

    names = sorted(before.keys() | after.keys())
    return [name for name in names if name not in before or name not in after or not same(before[name], after[name])]
