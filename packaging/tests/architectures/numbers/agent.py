"""Arithmetic whose last bit is where libraries and processors differ, and long loops for the fuel."""

import cmath
import decimal
import json
import math
import statistics
import struct

from runloop.agent import handler

NAMES = [name for name in dir(math) if not name.startswith("_")]
POINTS = [0.1, 0.5, 0.9999999999999999, 1.0, 1.5, math.e, 10.75, 1e22, 5e-324, 1.7976931348623157e308]


def bits(value):
    """The 64 bits themselves: no formatting between the processor and the record."""
    return struct.pack(">d", value).hex()


def seen(name, point):
    """What a function of one argument gives; the others say that they are no such function."""
    try:
        found = getattr(math, name)(point)
    except (TypeError, ValueError, OverflowError) as error:
        return type(error).__name__
    return bits(found) if isinstance(found, float) else repr(found)


def walk(turns):
    """A logistic map: one different bit, and nothing is alike a hundred steps later."""
    x = 0.123456789
    for _ in range(turns):
        x = 3.9999 * x * (1.0 - x)
    return bits(x)


@handler
def handle(task, host):
    turned = (cmath.exp(1 + 2j), cmath.sqrt(-2 + 1j))
    data = [math.sin(n) * 1e6 for n in range(500)]
    return {
        "out": {
            "functions": {name: [seen(name, point) for point in POINTS] for name in NAMES},
            "walk": walk(200_000),
            "fsum": bits(math.fsum(data)),
            "sum": bits(sum(data)),
            "stdev": bits(statistics.stdev(data)),
            "fma": bits(0.1 * 0.2 + 0.3),
            "pow": [bits(1.1**n) for n in (2, 50, 700)],
            "complex": [bits(part) for z in turned for part in (z.real, z.imag)],
            "decimal": str(decimal.Decimal(2).sqrt(decimal.Context(prec=60))),
            "round": [
                round(2.675, 2),
                round(0.5),
                str(int(1e18)),
                math.floor(-0.5),
                7 // -2,
                -7 % 3,
                2**200 % 97,
            ],
            "text": [repr(n / 7) for n in range(1, 40)],
            "sorted": sorted(["zebra", "Zebra", "éclair", "Äpfel", "😀", "a"]),
            "json": json.dumps({"b": 1e16, "a": [0.1, 1e-7, -0.0]}),
        }
    }
