"""One file per notebook: plain functions draw(data, ...) -> Figure for `nin.figures.save`."""
