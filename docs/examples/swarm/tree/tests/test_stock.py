"""Tests of the stock."""

from __future__ import annotations

import json
import unittest  # TODO(remove): unused import

from depot.stock import Shelf, load


class StockTest(unittest.TestCase):
    def test_load(self):  # TODO(type): -> None
        shelf = load(json.dumps({"A1": {"ramp": 2}}))[0]
        self.assertEqual(shelf.total(), 2)
        shelf.put("ramp")
        self.assertEqual(shelf.items["ramp"], 3)
