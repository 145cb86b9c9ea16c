"""How quantities are written for people: bytes, moments, lengths of time and money.

Knows units. Knows nothing of where a figure came from or where it is shown.
"""

from __future__ import annotations

__all__ = ["ago", "brief_moment", "dollars", "moment", "size"]


def size(count: int) -> str:
    """Bytes for people: ``312 B``, ``4.1 KiB``, ``2.0 MiB``, ``7.3 GiB``."""
    if count < 1024:
        return f"{count} B"
    power = 1 if count < 1024**2 else 2 if count < 1024**3 else 3
    return f"{count / 1024**power:.1f} {('KiB', 'MiB', 'GiB')[power - 1]}"


def dollars(micro_usd: int, *, digits: int = 2) -> str:
    """Millionths of a US dollar for people, exactly: ``$0.50``, ``$0.0021``, ``-$1.000001``. At least
    ``digits`` digits behind the point and no more than there are; 6 keeps a column of sums in line."""
    whole, rest = divmod(abs(micro_usd), 1_000_000)
    part = f"{rest:06}".rstrip("0").ljust(min(digits, 6), "0")
    return f"{'-' if micro_usd < 0 else ''}${whole}{'.' if part else ''}{part}"


def moment(ms: int) -> str:
    """Unix milliseconds as local date and time."""
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ms / 1000))


def brief_moment(ms: int, now_ms: int) -> str:
    """The same, as short as it is clear: ``14:03:09`` today, ``11-20 14:03`` this year, ``2025-12-31``."""
    import time

    then, now = time.localtime(ms / 1000), time.localtime(now_ms / 1000)
    same = "%H:%M:%S" if then[:3] == now[:3] else "%m-%d %H:%M" if then[0] == now[0] else "%Y-%m-%d"
    return time.strftime(same, then)


def ago(ms: int) -> str:
    """A length of time for people: ``340 ms``, ``12.0 s``, ``5 min``, ``3 h``, ``2 days``."""
    if ms < 1_000:
        return f"{ms} ms"
    if ms < 90_000:
        return f"{ms / 1000:.1f} s"
    if ms < 5_400_000:
        return f"{ms // 60_000} min"
    return f"{ms // 3_600_000} h" if ms < 172_800_000 else f"{ms // 86_400_000} days"
