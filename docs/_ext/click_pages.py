"""The directive ``click-help``: the help of a command and all its subcommands, as the program itself prints it."""

import importlib

import click
from docutils import nodes
from docutils.parsers.rst import Directive


def walk(command, name, parent=None):
    """Yield each command that does something, with its full name and its help."""
    settings = {**command.context_settings, "terminal_width": 90, "max_content_width": 90}
    context = click.Context(command, info_name=name, parent=parent, **settings)
    yield context.command_path, context.get_help()
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            yield from walk(command.get_command(context, child), child, context)


class ClickHelp(Directive):
    """``click-help:: package.module:command`` makes a section for each command."""

    required_arguments = 1

    def run(self):
        """Return the sections."""
        module, _, attribute = self.arguments[0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        sections = []
        for path, text in walk(command, module.split(".")[0]):
            section = nodes.section(ids=[path.replace(" ", "-")], names=[path])
            section += nodes.title(text=path)
            section += nodes.literal_block(text, text, language="text")
            sections.append(section)
        return sections


def setup(app):
    """Register the directive."""
    app.add_directive("click-help", ClickHelp)
    return {"parallel_read_safe": True}
