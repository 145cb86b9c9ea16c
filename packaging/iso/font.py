"""A console font of 256 signs for the demo image: a given one, and in it the signs of the cockpit.

    python3 packaging/iso/font.py Lat15-Terminus16.psf.gz OUT.psf

Knows: the file form PSF1 (256 glyphs of 8 by 16 dots, a table of characters behind them), and which letters
give their place away. 256 and not 512, since the text screen of a PC shows 16 colours with the first and 8
with the second. Does not know: who loads it (``setfont``).
"""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

MAGIC = b"\x36\x04\x02\x10"
"""PSF1; 256 glyphs with a table; 16 rows."""
GLYPHS, ROWS = 256, 16

# Cards continue a glyph of 0xC0 to 0xDF into the dot between two cells: there go the ones that must join.
JOINING = "ĞğİıŞşŸˆ"
BLOCKS = "▁▂▃▄▅▆▇▔"
DRAWN = {
    "◆♦◈": (
        "♦",
        "........ ........ ........ ........ ...#.... ..###... .#####.. #######. .#####.. ..###... ...#....",
    ),
    "◇": (
        "₧",
        "........ ........ ........ ........ ...#.... ..#.#... .#...#.. #.....#. .#...#.. ..#.#... ...#....",
    ),
    "○◯": (
        "ƒ",
        "........ ........ ........ ........ ..###... .#...#.. #.....#. #.....#. #.....#. .#...#.. ..###...",
    ),
    "◌": (
        "₮",
        "........ ........ ........ ........ ..#.#... ........ #.....#. ........ #.....#. ........ ..#.#...",
    ),
    "◷": (
        "‼",
        "........ ........ ........ ........ ..###... .#.#.#.. #..#..#. #..##.#. #.....#. .#...#.. ..###...",
    ),
    "✔✓": (
        "ⁿ",
        "........ ........ ........ ......#. .....##. .....#.. ....##.. #...#... ##.##... .###.... ..#.....",
    ),
    "✘✗": (
        "№",
        "........ ........ ........ #.....#. ##...##. .##.##.. ..###... ..###... .##.##.. ##...##. #.....#.",
    ),
    "▣": (
        "π",
        "........ ........ ........ #######. #.....#. #.###.#. #.###.#. #.###.#. #.....#. #######. ........",
    ),
    "⊘": (
        "∈",
        "........ ........ ........ ..####.. .#....#. #....#.# #...#..# #..#...# #.#....# .#....#. ..####..",
    ),
    "▌": ("¨", " ".join(["####...."] * ROWS)),
    "▎": ("´", " ".join(["##......"] * ROWS)),
    "▏": ("¸", " ".join(["#......."] * ROWS)),
}
"""Characters, the one whose place they take, rows from above (missing ones are empty)."""


def main(source: Path, target: Path) -> None:
    """Write ``target``; ends with an error where ``source`` is another font than expected."""
    data = gzip.decompress(source.read_bytes())
    if data[:4] != MAGIC:
        raise SystemExit(
            f"font: {source} is no PSF1 font of 256 signs with 16 rows; give Lat15-Terminus16.psf.gz"
        )
    glyphs = [bytearray(data[4 + at * ROWS : 4 + (at + 1) * ROWS]) for at in range(GLYPHS)]
    names = table(data[4 + GLYPHS * ROWS :])
    for place, block in zip(JOINING, BLOCKS, strict=True):
        take(names, glyphs, place, block, bar(block))
    for signs, (place, picture) in DRAWN.items():
        take(names, glyphs, place, signs, dots(picture))
    told = b"".join(struct.pack(f"<{len(one) + 1}H", *map(ord, one), 0xFFFF) for one in names)
    target.write_bytes(MAGIC + b"".join(glyphs) + told)


def table(data: bytes) -> list[list[str]]:
    """The characters that each glyph shows; sequences of several are left out."""
    found: list[list[str]] = [[]]
    sequence = False
    for (code,) in struct.iter_unpack("<H", data):
        if code == 0xFFFF:
            found.append([])
            sequence = False
        elif code == 0xFFFE:
            sequence = True
        elif not sequence:
            found[-1].append(chr(code))
    return found[:GLYPHS]


def take(names: list[list[str]], glyphs: list[bytearray], place: str, signs: str, rows: bytes) -> None:
    """Let ``signs`` have the glyph that shows ``place``."""
    at = next((at for at, shown in enumerate(names) if place in shown), None)
    if at is None:
        raise SystemExit(f"font: the given font has no {place!r} to take the place of")
    for shown in names:
        shown[:] = [one for one in shown if one not in signs]
    names[at], glyphs[at] = list(signs), bytearray(rows)


def bar(block: str) -> bytes:
    """A block that fills its cell from below by eighths, or the upper eighth."""
    if block == "▔":
        return b"\xff\xff" + bytes(ROWS - 2)
    filled = (ord(block) - ord("▁") + 1) * ROWS // 8
    return bytes(ROWS - filled) + b"\xff" * filled


def dots(picture: str) -> bytes:
    """Rows of ``#`` and ``.`` as bits."""
    rows = [int(row.replace("#", "1").replace(".", "0"), 2) for row in picture.split()]
    return bytes(rows + [0] * (ROWS - len(rows)))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
