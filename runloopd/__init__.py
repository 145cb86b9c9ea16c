"""The daemon: layers import only downwards (see docs/internals/architecture.md).

``__main__ -> daemon -> gateway -> runs -> runtime -> broker -> authority -> bus | journal | observe``
"""
