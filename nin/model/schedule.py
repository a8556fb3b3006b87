"""A noise whose standard deviation changes along a run, in the manner of torch.optim.lr_scheduler."""

from collections.abc import Callable
from typing import Any

from nin.model.nodes import NoisyNetwork
from nin.support.arguments import check_function, check_kind, check_number


class SigmaSchedule:
    """sigma(t) = factor(t) sigma(0) after t calls of `step`, alike for all layers of a noisy network.

        schedule = SigmaSchedule(noisy, lambda t: max(0.0, 1 - t / 1000))
        for x, y in loader:
            ...
            optimizer.step()
            schedule.step()

    factor   t -> a number >= 0, t = 0, 1, ...; a factor that jumps makes the control number kappa ~ sigma^2 jump
    sigma(0) is the noisy network's sigma when the schedule is made, which at once becomes factor(0) sigma(0).
    The state_dict holds t and sigma(0), not the factor. Raises ValueError for a factor that is negative or not finite.
    """

    def __init__(self, noisy: NoisyNetwork, factor: Callable[[int], float]) -> None:
        check_kind("noisy", noisy, NoisyNetwork, "a network with a node, from nin.inject")
        check_function("factor", factor, "t -> a number >= 0")
        self.noisy, self.factor = noisy, factor
        self.steps, self.initial = 0, noisy.sigmas
        self._set()

    def step(self) -> None:
        """Advance t by one, usually after each step of the optimiser or after each epoch."""
        self.steps += 1
        self._set()

    def state_dict(self) -> dict[str, Any]:
        """t and the sigma(0) of each layer, for a checkpoint."""
        return {"steps": self.steps, "initial": list(self.initial)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint: sets t, sigma(0) and the sigma of the noisy network.

        Raises ValueError for the state of a network with another number of layers with nodes.
        """
        if len(state["initial"]) != len(self.noisy.layers):
            raise ValueError(
                f"state has sigma(0) of {len(state['initial'])} layers, and the network has nodes at "
                f"{', '.join(self.noisy.layers)}; inject into the same layers first."
            )
        self.steps, self.initial = int(state["steps"]), tuple(float(sigma) for sigma in state["initial"])
        self._set()

    def _set(self) -> None:
        factor = self.factor(self.steps)
        check_number(f"factor({self.steps})", factor)
        self.noisy.sigma = [factor * sigma for sigma in self.initial]
