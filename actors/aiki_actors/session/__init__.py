"""Worker sessions without a socket: what server and worker say, and how it survives the network.

`Link` numbers messages, keeps them until they are acknowledged and sends them again on the next
connection; `Connection` and `carry` move its frames over a `Transport`. The rest is words: the
first ones (`Hello`, `Welcome`), the messages, and their form as JSON.
"""

from . import _codec as codec, _messages as messages
from ._claims import CLAIM_ENDS as CLAIM_ENDS
from ._connection import (
    Connection as Connection,
    Transport as Transport,
    carry as carry,
    receive_worker as receive_worker,
)
from ._errors import (
    KeptTooMuch as KeptTooMuch,
    ProtocolError as ProtocolError,
    SessionClosed as SessionClosed,
    close_reason as close_reason,
)
from ._hello import (
    WORKER_ID as WORKER_ID,
    Hello as Hello,
    Welcome as Welcome,
    encode_hello as encode_hello,
    encode_refusal as encode_refusal,
    encode_welcome as encode_welcome,
    negotiate as negotiate,
    read_hello as read_hello,
    read_welcome as read_welcome,
)
from ._limits import (
    FATAL as FATAL,
    FRAME_BYTES_MAX as FRAME_BYTES_MAX,
    MESSAGE_BYTES_MAX as MESSAGE_BYTES_MAX,
    PROTOCOL_VERSIONS as PROTOCOL_VERSIONS,
    CloseCode as CloseCode,
    SessionLimits as SessionLimits,
)
from ._link import Link as Link, Taken as Taken

__all__ = [
    "CLAIM_ENDS",
    "FATAL",
    "FRAME_BYTES_MAX",
    "MESSAGE_BYTES_MAX",
    "PROTOCOL_VERSIONS",
    "WORKER_ID",
    "CloseCode",
    "Connection",
    "Hello",
    "KeptTooMuch",
    "Link",
    "ProtocolError",
    "SessionClosed",
    "SessionLimits",
    "Taken",
    "Transport",
    "Welcome",
    "carry",
    "close_reason",
    "codec",
    "encode_hello",
    "encode_refusal",
    "encode_welcome",
    "messages",
    "negotiate",
    "read_hello",
    "read_welcome",
    "receive_worker",
]
