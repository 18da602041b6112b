"""Sphinx: MyST pages, furo's looks, the reference from docstrings; no network, every warning an error."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import attrs
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.napoleon import Config
from sphinx.ext.napoleon.docstring import GoogleDocstring

import kling_async
from kling_async import _calls, batch_result, client, emulator, errors, events, jobs, journal, notebook, types
from kling_async._field_docs import HEADING
from kling_async.requests import RequestLike
from kling_async.types import ObjectUrl, OnAmbiguous, Prices, Progress, Requests, Transport

# The client imports these for the type checker alone, to be quick to import; the reference shows them.
vars(client).update(
    Progress=Progress,
    RequestLike=RequestLike,
    Requests=Requests,
    Transport=Transport,
    Listener=events.Listener,
    Decimal=Decimal,
    Journal=journal.Journal,
    ObjectUrl=ObjectUrl,
    OnAmbiguous=OnAmbiguous,
    Prices=Prices,
)
# autodoc looks up the names of an overload where the function was decorated.
vars(_calls).update(vars(client) | vars(_calls))
vars(errors).update(Job=jobs.Job)
vars(batch_result).update(BatchHistory=kling_async.BatchHistory)

project = "kling_async"
author = "The kling_async maintainers"
release = version = kling_async.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "changelog.d", "images"]

# Notebooks are kept without outputs; a page shows what a run of it, here and now, put out.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 120

html_theme = "furo"
pygments_dark_style = "github-dark"
toc_object_entries_show_parents = "hide"
html_title = "kling_async"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["house.css"]
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#0a6b5e",
        "color-brand-content": "#0a6b5e",
        "color-api-name": "var(--color-foreground-primary)",
        "color-api-pre-name": "var(--color-foreground-muted)",
    },
    "dark_css_variables": {"color-brand-primary": "#4fd1bd", "color-brand-content": "#4fd1bd"},
}

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
maximum_signature_line_length = 300
python_use_unqualified_type_names = True

# No inventory is fetched, so names from outside have nowhere to link to.
nitpick_ignore_regex = [
    ("py:.*", r"(asyncio|collections|contextlib|datetime|decimal|enum|os|pathlib|random|types|typing)\..*"),
    # The engine's own names for what a page describes in words.
    ("py:.*", r"kling_async\.(_display|_engine|_transport)\..*"),
]


def _public_names() -> dict[str, str]:
    """The name that the reference uses, by the place where a thing is defined."""
    return {
        f"{value.__module__}.{value.__qualname__}": f"{module.__name__}.{name}"
        for module in (types, emulator, events, errors, journal, notebook, kling_async)
        for name, value in vars(module).items()
        if hasattr(value, "__qualname__") and not name.startswith("_")
    }


_PUBLIC = _public_names()
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_EXAMPLE = re.compile(r"\n\n(?= {4}\S)")
_SHORT = 40


def resolve_by_public_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.Element
) -> nodes.Element | None:
    """A link for a name that a signature spells by the room in which it lives."""
    public = _PUBLIC.get(node.get("reftarget", ""))
    if node.get("refdomain") != "py" or public is None:
        return None
    python = env.domains.python_domain
    return python.resolve_xref(env, node["refdoc"], app.builder, "obj", public, node, contnode)


def read_docstring(  # noqa: PLR0917 - Sphinx calls it
    app: Sphinx, what: str, name: str, value: object, options: Any, lines: list[str]
) -> None:
    """Google style with Markdown's single backticks; a field's docstring is prose, colons and all."""
    own = "\n".join(lines).partition(f"\n{HEADING}\n")[0]  # the page shows each field by itself
    text = _EXAMPLE.sub(r"\n\n::\n\n", own)
    lines[:] = _CODE.sub(r"``\1``\\ ", text).split("\n")
    if what != "attribute":
        lines[:] = GoogleDocstring(lines, Config(), app, what, name, value, options).lines()


def shorten_signature(
    _app: Sphinx, _what: str, _name: str, value: object, _options: Any, _signature: str, returns: str
) -> tuple[str, str] | None:
    """Fields and their defaults; the types stand beside each field below."""
    if not (isinstance(value, type) and attrs.has(value)):
        return None
    fields = [field for field in attrs.fields(value) if field.init]
    shown = [field.alias + _default(field.default) for field in fields]
    first_keyword = next((place for place, field in enumerate(fields) if field.kw_only), None)
    if first_keyword is not None:
        shown.insert(first_keyword, "*")
    return f"({', '.join(shown)})", returns


def _default(default: Any) -> str:
    if default is attrs.NOTHING:
        return ""
    value = default.factory() if hasattr(default, "factory") else default
    shown = repr(value)
    return f"={shown}" if len(shown) <= _SHORT else f"={type(value).__name__}()"


def setup(app: Sphinx) -> None:
    """Connect the handlers above."""
    app.connect("missing-reference", resolve_by_public_name)
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("autodoc-process-signature", shorten_signature)
