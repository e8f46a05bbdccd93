"""The wire: bytes to frames, frames to one dialogue, and back, without input or output.

Pure, in the manner of h11: no trio, no clock, no socket. :class:`Connection` is one end;
``fsrep_core.runtime.remote`` moves its bytes. ``docs/reference/wire.md`` says the same
for whoever writes a peer in another language.

============  ========================================================================
module        what it holds
============  ========================================================================
``hello``     the first bytes each way: who speaks, and which versions of the wire
``frames``    kind, length, payload; a limit for every length
``text``      JSON as the wire writes it
``names``     which names may cross the wire
``codec``     the contract's values as JSON, strictly
``messages``  which operations there are; long messages in bounded pieces
``problems``  errors by their kind
``dialogue``  what may be said when: the tables of both sides
``connection``  all of it together: one end of a connection
``watch``     which frames pass, for whoever only carries them
============  ========================================================================
"""

from fsrep_core.wire.connection import Connection, Role
from fsrep_core.wire.dialogue import (
    REQUEST_EVENTS,
    Abort,
    Answer,
    Bye,
    CallRequest,
    Data,
    Done,
    End,
    Event,
    Failure,
    FetchRequest,
    Heartbeat,
    Opened,
    Part,
    PushRequest,
    Request,
)
from fsrep_core.wire.errors import WireError
from fsrep_core.wire.frames import (
    DATA_LIMIT_BYTES,
    HEADER_BYTES,
    DataRun,
    FrameKind,
    encode_header,
)
from fsrep_core.wire.hello import Hello, StorageAsk
from fsrep_core.wire.messages import (
    OPERATIONS,
    CursorAnswer,
    Results,
    SendEnded,
    SendOpened,
    Shape,
    Unpacker,
    pack,
)
from fsrep_core.wire.problems import make_error

__all__ = [
    "DATA_LIMIT_BYTES",
    "HEADER_BYTES",
    "OPERATIONS",
    "REQUEST_EVENTS",
    "Abort",
    "Answer",
    "Bye",
    "CallRequest",
    "Connection",
    "CursorAnswer",
    "Data",
    "DataRun",
    "Done",
    "End",
    "Event",
    "Failure",
    "FetchRequest",
    "FrameKind",
    "Heartbeat",
    "Hello",
    "Opened",
    "Part",
    "PushRequest",
    "Request",
    "Results",
    "Role",
    "SendEnded",
    "SendOpened",
    "Shape",
    "StorageAsk",
    "Unpacker",
    "WireError",
    "encode_header",
    "make_error",
    "pack",
]
