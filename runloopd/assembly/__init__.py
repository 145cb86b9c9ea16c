"""How the house is put together: one module for each part of the daemon, each built on those above it.

``ground -> authority -> gate -> work -> methods``

A part is a frozen record of services, and the one function that builds them. Parts know services by name and
nothing of what they do; what they own is closed in reverse. Only the modules of this package are handed a
part whole: a service is given what it needs, by name. When all of it is built, what is restored and what goes
on in the background is :mod:`runloopd.daemon`.
"""
