"""Notebooks that the tests of the runner write, and a command that runs them."""

import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output


def notebook(path: Path, parameters: str, *cells: str, title: str = "# Q", outputs: str = "") -> Path:
    """Write a notebook with a title, a cell of parameters and code; outputs: those of the code's first cell."""
    code = [new_code_cell(cell) for cell in cells]
    if outputs:
        code[0].outputs = [new_output("stream", text=outputs)]
    tagged = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    book = new_notebook(cells=[new_markdown_cell(title), tagged, *code])
    for number, cell in enumerate(book.cells):
        cell.id = f"cell-{number}"  # else random, and the file another each time
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, path)
    return path


def command(clone: Path, first: str = "") -> list[str]:
    """Write a script into a folder with notebooks, and return the command `nin run` for it; first: what it begins with.

    What is executed goes into the folder `out`.
    """
    (clone / "notebooks" / "profiles").mkdir(parents=True, exist_ok=True)
    (clone / "notebooks" / "profiles" / "quick.yaml").write_text("{}")
    (clone / "run.py").write_text(
        f"{first}\nimport sys\nfrom pathlib import Path\nfrom nin.support import paths\n"
        "paths.root = lambda: Path(sys.argv[1])\nfrom nin.__main__ import main\n"
        "if __name__ == '__main__':\n    sys.exit(main(['run', *sys.argv[2:], '--out', sys.argv[1] + '/out']))\n"
    )
    return [sys.executable, str(clone / "run.py"), str(clone)]
