"""A kind of fault, one attempt at it, and what came of it."""

import itertools
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import neighbours  # noqa: F401
import psutil
from forked import in_a_process
from leftovers import GRACE, end, said, strays

KINDS_OF_HARM = ("lost", "doubled", "wrong", "left behind")
PATIENCE = 180  # seconds after which a process counts as hanging, on a machine that others use as well


@dataclass(frozen=True)
class Kind:
    """A row of the table.

    attempt    causes the fault once, and tells the scene what was harmed; an exception is "wrong"
    tries      at scale 1
    rivals     what is broken on purpose -> the function that breaks it, in each process of an attempt
    prepare    what all attempts need, made once
    possible   why this system cannot do it, or ""
    """

    name: str
    fault: str
    attempt: Callable[["Scene"], None]
    tries: int
    rivals: dict[str, Callable[[], None]]
    rival_tries: int = 3
    prepare: Callable[["Scene"], Any] = lambda scene: None
    possible: Callable[[], str] = lambda: ""


@dataclass
class Scene:
    """One attempt: its number, randomness and folder, what is broken on purpose, and the harm that was found."""

    number: int
    of: int
    random: random.Random
    folder: Path
    without: Callable[[], None] | None = None
    ready: Any = None
    times: int = 1  # attempts that this one stands for
    harm: list[tuple[str, str]] = field(default_factory=list)
    children: list["Child"] = field(default_factory=list)

    def found(self, harm: str, what: object) -> None:
        assert harm in KINDS_OF_HARM
        self.harm.append((harm, " ".join(str(what).split())[:500]))

    def start(self, function: Callable, *arguments: Any) -> "Child":
        """Begin a function in a process of its own, in which the guard is removed."""
        child = Child(*in_a_process(guarded, os.getpid(), self.without, function, *arguments))
        self.children.append(child)
        return child

    def call(self, function: Callable, *arguments: Any) -> Any:
        """What a function returns in a process of its own; its error is raised, its warnings are "wrong"."""
        result, warned = self.start(function, *arguments).answer()
        for warning in warned:
            self.found("wrong", f"warned: {warning}")
        if isinstance(result, BaseException):
            raise result
        return result

    def end(self) -> None:
        """End what the attempt started; what is still there of what its processes started is left behind."""
        for child in self.children:
            child.process.kill()
            child.process.join()
        limit = time.monotonic() + GRACE
        while (left := strays()) and time.monotonic() < limit:
            time.sleep(0.05)
        for process in left:
            self.found("left behind", f"process {process.pid}: {said(process)}")
        end(left)


@dataclass
class Child:
    """A process of an attempt."""

    process: Any
    connection: Any

    def answer(self) -> tuple[Any, list[str]]:
        """What its function returned or raised, and its warnings; AssertionError if it hangs or died."""
        if not self.connection.poll(PATIENCE):
            self.process.kill()
            raise AssertionError(f"nothing came of it within {PATIENCE} seconds")
        try:
            found = self.connection.recv()
        except EOFError:
            raise AssertionError(f"the process died ({self.process.exitcode})") from None
        self.process.join()
        return found

    @property
    def running(self) -> bool:
        """Whether it is still at work: one that has an answer waits until that is read."""
        return self.process.is_alive() and not self.connection.poll()

    def kill(self) -> None:
        self.process.kill()
        self.process.join(PATIENCE)


def guarded(soak: int, without: Callable[[], None] | None, function: Callable, *arguments: Any) -> Any:
    """Call a function without a guard, in a process that ends with the soak test."""

    def watch() -> None:
        while psutil.pid_exists(soak):
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="soak", daemon=True).start()
    sys.stderr = open(os.devnull, "w")  # progress, and what the answer says as well
    if without:
        without()
    return function(*arguments)


@dataclass
class Score:
    """What came of the attempts at one kind of fault: a row of the table, and its explanations."""

    kind: Kind
    tried: int = 0
    seconds: float = 0.0
    harm: Counter = field(default_factory=Counter)
    explained: list[str] = field(default_factory=list)
    rivals: dict[str, tuple[int, int]] = field(default_factory=dict)
    impossible: str = ""

    @property
    def cells(self) -> list[object]:
        if self.impossible:
            return [self.kind.fault, self.impossible, *["-"] * 6]
        rivals = "; ".join(f"{name}: {found} of {tried}" for name, (found, tried) in self.rivals.items())
        counts = [self.harm[name] for name in KINDS_OF_HARM]
        return [self.kind.fault, self.tried, *counts, f"{self.seconds:.0f}", rivals]

    @property
    def blind(self) -> list[str]:
        """The rivals that no attempt found."""
        return [name for name, (found, _) in self.rivals.items() if not found]

    def add(self, scene: Scene, command: str) -> None:
        self.tried += scene.times
        self.harm.update(harm for harm, _ in scene.harm)
        for harm, what in itertools.islice(scene.harm, 3):
            self.explained.append(f"{self.kind.fault}: {harm}: {what}\n    {command}")
