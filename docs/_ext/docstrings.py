"""Small changes to how Napoleon and autodoc read our docstrings.

- Types stand in the annotations, so a colon in a sentence is a colon. Napoleon reads ``Returns:`` and the docstring
  of a property as ``type: description``; here they are plain sentences.
- The arguments of a class are described in its ``__init__``, and belong on the page of the class.
- What Sphinx calls variables are attributes.
"""

import inspect

from sphinx.domains.python import PyObject
from sphinx.ext.napoleon import GoogleDocstring


def _returns(self, preprocess_types=False):  # noqa: ARG001 - the signature is Napoleon's
    lines = self._dedent(self._consume_to_next_section())
    return [("", "", type(self)(lines, self._config).lines())] if lines else []


def _property(self):
    lines = [self._lines.next(), *self._dedent(self._consume_to_end())]
    return "", type(self)(lines, self._config).lines()


def _add_arguments(app, what, name, obj, options, lines):  # noqa: ARG001 - the signature is autodoc's
    text = inspect.cleandoc(obj.__init__.__doc__ or "") if what == "class" else ""
    if "\nArgs:" in text:
        lines += ["", *text[text.index("\nArgs:") + 1 :].splitlines(), ""]


def setup(app):
    """Make the changes."""
    GoogleDocstring._consume_returns_section = _returns
    GoogleDocstring._consume_inline_attribute = _property
    next(field for field in PyObject.doc_field_types if field.name == "variable").label = "Attributes"
    app.connect("autodoc-process-docstring", _add_arguments, priority=400)  # before Napoleon's 500
    return {"parallel_read_safe": True}
