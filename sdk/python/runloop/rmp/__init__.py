"""RMP v0, the wire (spec/rmp.md), without I/O: bytes in, records out, named errors.

``frame`` cuts the byte stream, ``envelope`` reads the body, ``registry`` (generated) names the schemas,
``topics`` names the addresses, ``hello`` proves who speaks, ``payloads`` types what is inside. Sockets are
``runloop.client``'s and ``runloopd.bus.socket``'s matter. Kept free of imports.
"""
