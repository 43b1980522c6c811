"""What the site takes from the registry of methods; mkdocs calls these functions by their names."""

from __future__ import annotations

from typing import Any

from advprop.config.methods import METHODS


def on_config(config: Any) -> Any:
    """List every method's card in the navigation."""
    (section,) = (entry for entry in config["nav"] if "Methods" in entry)
    section["Methods"] = [{name: f"methods/{name}.md"} for name in METHODS]
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Write the class of every method in place of "::: methods"."""
    classes = (f"::: advprop.{config.builds.__name__}" for config in METHODS.values())
    return markdown.replace("::: methods", "\n".join(classes))
