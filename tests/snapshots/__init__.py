"""What the cockpit looks like: one text for each pane and size, drawn from golden histories.

``frames`` draws and compares, ``cases`` says which views there are, ``golden/`` holds them. A change that is
meant to show: ``python -m tests.snapshots``, then read the difference as a designer would.
"""
