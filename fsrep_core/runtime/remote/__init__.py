"""Endpoints elsewhere: the hooks over any ``trio.abc.Stream``, and their server.

=============  =======================================================================
module         what it holds
=============  =======================================================================
``carrier``    the seam for streams that can do more than trio asks of them
``timing``     every deadline and interval
``link``       one connection: frames, heartbeats, silence
``streams``    streams of steps over a link
``pool``       a client's connections, used again and again
``endpoint``   the hooks over a pool
``policy``     what a client may ask a server for
``server``     the serving side of one connection
``transport``  the easy way to write a transport
=============  =======================================================================

What the bytes mean is :mod:`fsrep_core.wire`'s business; nothing is parsed here.
"""
