"""The daemon: layers import only downwards (see docs/internals/architecture.md).

``__main__ -> daemon -> assembly -> gateway -> triggers -> runs -> runtime -> broker -> authority``, and below
them all ``bus | journal | observe | cgroups``.
"""
