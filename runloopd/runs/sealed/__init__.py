"""Sealed runs, executed again: by a stranger (``source``), and with other values in their places
(``rederive``)."""
