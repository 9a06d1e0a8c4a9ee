"""Sphinx configuration."""

import builtins
import sys
from pathlib import Path

from docutils import nodes

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import tinkex

project = "tinkex"
copyright = "the tinkex authors"
release = version = tinkex.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "click_pages", "docstrings"]
exclude_patterns = ["_build", "examples"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"tinkex {release}"

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_class_signature = "mixed"
add_module_names = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# Names of the standard library and of third parties: their inventories would have to be downloaded.
nitpick_ignore_regex = [
    (r"py:.*", rf"({'|'.join(sorted(sys.stdlib_module_names))})(\..*)?"),
    (r"py:.*", r"(attr|attrs|numpy|np|torch|typing_extensions)(\..*)?"),
]


def _link_public_name(app, env, node, contnode):
    """Link ``tinkex.Datum``, and plain ``Datum`` in any module, to the place where it is documented."""
    target, module = node.get("reftarget", ""), node.get("py:module") or ""
    scope, _, name = target.rpartition(".")
    if node.get("refdomain") != "py" or hasattr(builtins, target) or not (scope or module).startswith("tinkex"):
        return None
    documented = env.get_domain("py").objects
    homes = [home for home in documented if home.startswith("tinkex.") and home.rpartition(".")[2] == name]
    if len(homes) == 1:
        uri = app.builder.get_relative_uri(node["refdoc"], documented[homes[0]].docname)
        return nodes.reference("", "", contnode, internal=True, refuri=f"{uri}#{documented[homes[0]].node_id}")
    # A name that is not on a page is internal, or an import from elsewhere; one that no module has is a mistake.
    modules = [one for key, one in sys.modules.items() if key.partition(".")[0] == "tinkex"]
    return contnode if any(hasattr(one, name) for one in modules) else None


def setup(app):
    """Connect the resolver."""
    app.connect("missing-reference", _link_public_name)
