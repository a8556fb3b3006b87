"""The commands, their help and what they print: `python -m nin run`, `list`, `runs`, `figures`, `explore`, `predict`.

Each command imports what it needs only when it runs, so that `list` and `--help` respond at once.
"""

import argparse
import difflib
import os
import sys
import time
from collections.abc import Sequence

from nin.companion.parsers import parsers
from nin.companion.tables import print_table
from nin.support import cores


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = _parse(sys.argv[1:] if argv is None else list(argv))
    try:
        return arguments.run(arguments)
    except BrokenPipeError:  # from `... | head`; nothing more may be written, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        print(
            f"nin: error: {error.name} is not installed; run python -m pip install 'nin[companion]'.", file=sys.stderr
        )
        return 2
    except (ValueError, OSError) as error:
        print(f"nin: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nnin: interrupted; what was finished is kept.", file=sys.stderr)
        return 130


def _parse(argv: list[str]) -> argparse.Namespace:
    """Arguments of the command that argv begins with; its options and values may come in any order."""
    parser, commands = _parsers()
    for words in (2, 1):
        if command := commands.get(tuple(argv[:words])):
            return command.parse_intermixed_args(argv[words:])
    if argv and argv[0] not in ("-h", "--help", "--version", "figures"):
        known = list(dict.fromkeys(words[0] for words in commands))
        near = difflib.get_close_matches(argv[0], [*known, "--help", "--version"], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        parser.error(f"COMMAND={argv[0]!r} is unknown; choose one of {', '.join(known)}.{hint}")
    return parser.parse_args(argv)  # the help, or an error that names the commands


def _parsers() -> tuple[argparse.ArgumentParser, dict[tuple[str, ...], argparse.ArgumentParser]]:
    handlers = {
        "run": _run,
        "list": _list,
        "runs": _runs,
        "figures": _figures,
        "explore": _explore,
        "predict": _predict,
    }
    return parsers(handlers)


def _run(arguments: argparse.Namespace) -> int:
    from nin.companion import runner

    targets = arguments.targets
    names = [text for text in targets if "=" not in text or text.endswith(".ipynb")]
    pairs = [text.partition("=") for text in targets if text not in names]
    if unnamed := [sign + value for name, sign, value in pairs if not name.strip()]:
        raise ValueError(f"{unnamed[0]!r} must have the form name=value.")
    overrides = {name.strip(): value.strip() for name, _, value in pairs}
    if len(overrides) < len(pairs):
        raise ValueError(f"{' '.join(n + s + v for n, s, v in pairs)}: a parameter is given twice; give it once.")
    options = {"profile": arguments.profile, "overrides": overrides, "out": arguments.out}
    if arguments.prepare_only:
        for path in runner.prepare(names, **options):
            print(path)
        return 0
    if arguments.why:
        rows = [(name, "up to date" if fresh else "to run", why) for name, fresh, why in runner.why(names, **options)]
        print_table("notebooks", ("notebook", "state", "what decides, or what changed"), rows)
        return 0
    started = time.monotonic()
    outcomes = runner.run(names, **options, jobs=arguments.jobs, force=arguments.force)
    from nin.companion.report import report

    return report(outcomes, seconds=time.monotonic() - started, budget=arguments.profile == "quick" and not names)


def _list(arguments: argparse.Namespace) -> int:
    from nin.companion import notebooks
    from nin.companion.parameters import parameters

    for notebook in notebooks.chosen():
        rows = [(p.name, p.type, repr(p.default), p.range, p.help) for p in parameters(notebook)]
        title = f"{notebook.stem}: {notebooks.heading(notebook)}"
        print_table(title, ("parameter", "type", "default", "range", "meaning"), rows)
    return 0


def _runs(arguments: argparse.Namespace) -> int:
    from nin.companion import stored_runs

    return stored_runs.run(arguments)


def _figures(arguments: argparse.Namespace) -> int:
    from nin.companion.papers import command

    return command.run(arguments)


def _explore(arguments: argparse.Namespace) -> int:
    os.environ.update(cores.variables())  # before torch is loaded
    from nin.companion.explorer import command

    return command.run(arguments.values, arguments.to)


def _predict(arguments: argparse.Namespace) -> int:
    os.environ.update(cores.variables())
    from nin.companion import prediction

    return prediction.run(arguments.values)
