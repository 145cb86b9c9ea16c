"""Labels for the shelves."""

from __future__ import annotations

import re  # TODO(remove): unused import
import string

WIDTH = 12  # TODO(rename): WIDTH -> LABEL_WIDTH


def label(name, number):  # TODO(type): name: str, number: int -> str
    plain = "".join(letter for letter in name if letter in string.ascii_letters)
    return f"{plain[:WIDTH]}-{number:04d}"
