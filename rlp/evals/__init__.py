"""Golden tasks: what should come of a wish, asked of whatever model there is, each in a home of its own.

``suite`` reads tasks from a folder, ``homes`` makes the places they run in, ``trial`` plays one, ``facts``
says what came of it, ``checks`` judges that, ``kept`` holds earlier results. Nothing here touches the home of
whoever asks, but for the one file of results.
"""
