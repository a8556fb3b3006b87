"""How much arithmetic a network takes, counted while it runs."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from nin.model.evaluating import evaluating
from nin.support.randomness import kept_randomness


class Operations(TorchDispatchMode):
    """Counts the multiply-adds of products and convolutions; torch's own counter hooks into all modules.

    total, largest  of all of them, and of the largest one
    """

    total = largest = 0

    def __torch_dispatch__(self, call: Any, _: Any, args: tuple = (), keywords: dict[str, Any] | None = None) -> Any:
        result = call(*args, **(keywords or {}))
        if (formula := flop_registry.get(call.overloadpacket)) is not None:
            found = formula(*args, **(keywords or {}), out_val=result) // 2
            self.total, self.largest = self.total + found, max(self.largest, found)
        return result


def operations(network: nn.Module, x: Tensor) -> Operations:
    """The multiply-adds of a pass over samples in eval mode, which leaves the network and the global draws as they are.

    Those of the backward pass are not counted: about twice as many.
    """
    with kept_randomness(), evaluating(network), torch.no_grad(), Operations() as found:
        network(x)
    return found


def largest_product(network: nn.Module, x: Tensor) -> int:
    """The multiply-adds of the largest product or convolution for one sample, from a pass over a few.

    At least one for each number of the largest weight: recurrent layers and fused attention are counted as none.
    """
    weights = max((parameter.numel() for parameter in network.parameters()), default=0)
    return max(operations(network, x).largest // len(x), weights)
