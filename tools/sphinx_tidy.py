"""A Sphinx extension that takes out of Jupyter Book what this book does not use and what would disturb its pages."""

from __future__ import annotations

from sphinx.application import Sphinx
from sphinx.config import Config


def setup(app: Sphinx) -> dict:
    """Runs after Jupyter Book's own extensions.

    sphinx-thebe fetches a program from another host and declares its constants twice, an error on every page's console;
    it cannot be switched off, so its listeners are removed.
    """
    for listeners in app.events.listeners.values():
        for listener in list(listeners):
            if listener.handler.__module__.split(".")[0] == "sphinx_thebe":
                app.disconnect(listener.id)
    app.registry.css_files = [file for file in app.registry.css_files if file[0] != "sphinx-thebe.css"]
    app.connect("config-inited", follow_the_reader)
    app.connect("autodoc-skip-member", skip_aliases)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def follow_the_reader(app: Sphinx, config: Config) -> None:
    """Light or dark as the reader's system says. Without a default the theme reports an error on the first visit."""
    config.html_context.setdefault("default_mode", "auto")


def skip_aliases(app: Sphinx, what: str, name: str, member: object, skip: bool, options: object) -> bool | None:
    """A named tuple's fields stand in its docstring; Python's own "Alias for field number 0" adds nothing."""
    return True if str(getattr(member, "__doc__", None)).startswith("Alias for field number") else None
