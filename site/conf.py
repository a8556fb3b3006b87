"""Settings of the site. `make site` stages the sources first (pages.py); notebooks are shown as committed, never run.

The repository of the launch buttons is set in one place: README.md, by `make badge`. Without it there are none.
"""

import sys
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import docstrings
import mathml
import pages

_package = tomllib.loads((pages.ROOT / "pyproject.toml").read_text())["project"]

project = "nin"
author = copyright = _package["authors"][0]["name"]
release = version = _package["version"]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_copybutton"]
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
add_module_names = False
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "sphinx_book_theme"
html_title = "nin"
html_static_path = ["static"]
html_css_files = ["style.css"]
html_js_files = ["filter.js"]
html_favicon = "static/icon.svg"
html_sourcelink_suffix = ""
html_context = {"default_mode": "auto"}
html_theme_options = {
    "use_download_button": True,
    "navbar_persistent": [],
    "show_toc_level": 2,
}
if repository := pages.repository():
    html_theme_options |= {
        "repository_url": f"https://github.com/{repository}",
        "repository_branch": "HEAD",
        "path_to_docs": "",
        "launch_buttons": {"binderhub_url": "https://mybinder.org", "notebook_interface": "jupyterlab"},
    }
linkcheck_timeout = 20


def setup(app):
    """Copy figures unchanged, show docstrings as plain text and formulas as MathML."""
    app.config.html_extra_path = [str(Path(app.srcdir) / pages.AS_IT_IS)]
    app.connect("autodoc-process-docstring", docstrings.process)
    app.connect("autodoc-process-signature", docstrings.shorten)
    app.connect("autodoc-skip-member", docstrings.skip)
    mathml.setup(app)
