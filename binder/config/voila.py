"""Voila's configuration, for `make explore` and for the server of Binder: the explorer, and nothing else."""

from tornado.web import HTTPError

c = get_config()  # noqa: F821


def only_the_explorer(handler, notebook, cwd):
    """Refuse notebooks of another template; let the page end its kernel.

    The page's request to end its kernel must bring the cookie against cross-site requests, which tornado sets when it
    is first read, and which Voila does not read.
    """
    if notebook.metadata.get("voila", {}).get("template") != "nin":
        raise HTTPError(404, "This server shows notebooks/explore.ipynb alone.")
    assert handler.xsrf_token


def no_lists(page_config, *, notebook_path, **_):
    """Refuse Voila's lists of files."""
    if not notebook_path.endswith(".ipynb"):
        raise HTTPError(404, "This server lists no files.")
    return page_config


c.VoilaConfiguration.prelaunch_hook = only_the_explorer
c.VoilaConfiguration.page_config_hook = no_lists
c.VoilaConfiguration.file_allowlist = []  # of the files in the notebook's folder, none
c.VoilaConfiguration.strip_sources = True
c.VoilaConfiguration.show_tracebacks = False
c.VoilaConfiguration.allow_template_override = "NOTEBOOK"
c.VoilaConfiguration.allow_theme_override = "NO"

# A second net, for pages that end without a word, or before their kernel has begun: kernels that have no page and are
# idle for half a minute are ended.
c.MappingKernelManager.cull_interval = 10  # seconds
c.MappingKernelManager.cull_idle_timeout = 30
c.MappingKernelManager.cull_connected = False
