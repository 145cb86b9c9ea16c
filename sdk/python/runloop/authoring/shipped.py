"""Where the parts of this distribution lie that authors need: templates, and the SDKs of other languages.

Knows: the places in an installed wheel and in a checkout. Does not know: what is in them.
"""

from __future__ import annotations

from pathlib import Path

from runloop.errors import NotFoundError

__all__ = ["shipped_sdk", "templates"]


def templates() -> Path:
    """The folder with one template for each language. Raises :class:`NotFoundError`."""
    return _shipped("templates", "templates")


def shipped_sdk(language: str) -> Path:
    """The SDK's own files of a language (``c``, ``rust``, ``js``). Raises :class:`NotFoundError`."""
    return _shipped(f"sdk/{language}", language)


def _shipped(installed: str, checkout: str) -> Path:
    package = Path(__file__).parents[1]
    places = (package / "_shipped" / installed, package.parents[1] / checkout)
    for place in places:
        if place.is_dir():
            return place
    raise NotFoundError(
        f"{places[0]} is missing from this installation",
        hint="install runloop again",
        code="config.shipped",
    )
