"""How quantities are written for people: bytes, moments and lengths of time.

Knows units. Knows nothing of where a figure came from or where it is shown.
"""

from __future__ import annotations

__all__ = ["ago", "moment", "size"]


def size(count: int) -> str:
    """Bytes for people: ``312 B``, ``4.1 KiB``, ``2.0 MiB``, ``7.3 GiB``."""
    if count < 1024:
        return f"{count} B"
    power = 1 if count < 1024**2 else 2 if count < 1024**3 else 3
    return f"{count / 1024**power:.1f} {('KiB', 'MiB', 'GiB')[power - 1]}"


def moment(ms: int) -> str:
    """Unix milliseconds as local date and time."""
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ms / 1000))


def ago(ms: int) -> str:
    """A length of time for people: ``340 ms``, ``12.0 s``, ``5 min``, ``3 h``, ``2 days``."""
    if ms < 1_000:
        return f"{ms} ms"
    if ms < 90_000:
        return f"{ms / 1000:.1f} s"
    if ms < 5_400_000:
        return f"{ms // 60_000} min"
    return f"{ms // 3_600_000} h" if ms < 172_800_000 else f"{ms // 86_400_000} days"
