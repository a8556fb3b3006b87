"""Notebooks that the tests of the runner write."""

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
