"""Options of commands in groups: a frozen dataclass each, and a section of the help."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

from typer.core import TyperCommand


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that are the fields of its parameters' dataclasses.

    typer reads the options from the signature, in which the fields replace the parameter.
    """
    own = inspect.signature(command, eval_str=True).parameters.values()
    kinds: dict[str, Any] = {p.name: p.annotation for p in own if is_dataclass(p.annotation)}

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name, kind in kinds.items():
            chosen = {field.name: values.pop(field.name) for field in fields(kind)}
            values[name] = kind(**chosen)
        command(**values)

    parameters = [parameter for parameter in own if parameter.name not in kinds]
    for kind in kinds.values():
        parameters += inspect.signature(kind, eval_str=True).parameters.values()
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.sections = {  # type: ignore[attr-defined]
        field.name: kind.SECTION
        for kind in kinds.values()
        if hasattr(kind, "SECTION")
        for field in fields(kind)
    }
    return run


class SectionedCommand(TyperCommand):
    """Help with a section for each group of options that has a `SECTION`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        named = getattr(self.callback, "sections", {})
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                usual = "Options" if parameter.param_type_name == "option" else "Arguments"
                sections.setdefault(named.get(parameter.name, usual), []).append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
