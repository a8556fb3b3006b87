"""A contact sheet: saved figures in columns on A4 pages, each with its name below."""

import io
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

from nin.companion.papers.export import draw
from nin.figures import Saved
from nin.figures.saving import WITHOUT_DATE
from nin.figures.style import alone

PAGE = (8.27, 11.69)  # A4 in inches
MARGIN, GAP, LINE = 0.5, 0.2, 0.25
COLUMNS = 2


def contact_sheet(figures: Sequence[Saved]) -> bytes:
    """A PDF of the figures in COLUMNS columns; the same bytes for the same figures.

    Shows the saved .png of a figure, or draws the figure from its table if there is none of it.
    Raises ValueError for a figure whose table is not its own.
    """
    width = (PAGE[0] - 2 * MARGIN - (COLUMNS - 1) * GAP) / COLUMNS
    buffer = io.BytesIO()
    with (
        alone({"figure.constrained_layout.use": False}),
        PdfPages(buffer, metadata=WITHOUT_DATE["pdf"]) as pdf,
    ):
        page, top = None, 0.0
        for start in range(0, len(figures), COLUMNS):
            row = figures[start : start + COLUMNS]
            images = [_image(figure) for figure in row]
            height = max(width * image.shape[0] / image.shape[1] for image in images) + LINE
            if page is None or top - height < MARGIN:
                _finish(pdf, page)
                page, top = plt.figure(figsize=PAGE), PAGE[1] - MARGIN
            for place, (figure, image) in enumerate(zip(row, images, strict=True)):
                _place(page, image, f"{figure.name} ({figure.profile})", MARGIN + place * (width + GAP), top, width)
            top -= height + GAP
        _finish(pdf, page)
    return buffer.getvalue()


def _image(figure: Saved) -> np.ndarray:
    figure.table()  # refused if it is not the figure's
    if (picture := figure.picture("png")) is not None:
        return plt.imread(io.BytesIO(picture))
    buffer, drawn = io.BytesIO(), draw(figure, {})
    drawn.savefig(buffer, format="png", dpi=200)
    plt.close(drawn)
    return plt.imread(io.BytesIO(buffer.getvalue()))


def _place(page: Figure, image: np.ndarray, name: str, left: float, top: float, width: float) -> None:
    height = width * image.shape[0] / image.shape[1]
    ax = page.add_axes((left / PAGE[0], (top - height) / PAGE[1], width / PAGE[0], height / PAGE[1]))
    ax.imshow(image, interpolation="none", aspect="auto")
    ax.set_axis_off()
    middle, below = (left + width / 2) / PAGE[0], (top - height - LINE / 4) / PAGE[1]
    page.text(middle, below, name, ha="center", va="top", fontsize=8, parse_math=False)


def _finish(pdf: PdfPages, page: Figure | None) -> None:
    if page is not None:
        pdf.savefig(page)
        plt.close(page)
