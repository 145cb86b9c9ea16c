"""Which model answers, and what it may cost: the nouns that ``broker.models`` puts together.

``prices``: tokens to money. ``patience``: how often, how soon, when to rest. ``route``: one way to a model.
``found``: which models a server on this machine has. ``catalogue``: every route there is now. ``call``: one
completion on its way along them. Nothing here knows who asks, or speaks a protocol.
"""
