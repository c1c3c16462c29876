"""An actor library on Trio: mailboxes, references, supervision. It knows nothing of workflows.

Start reading at `_actor` (what users write), then `_cell` (how one actor runs) and `_supervisor`
(how the tree lives). Guarantees and non-guarantees: `docs/explanation/kernel.md`.
"""

from aiki_actors.kernel._actor import (
    Actor as Actor,
    BatchActor as BatchActor,
    StopReason as StopReason,
    Terminated as Terminated,
)
from aiki_actors.kernel._context import ActorContext as ActorContext
from aiki_actors.kernel._dead_letters import (
    DeadLetter as DeadLetter,
    DeadLetterReason as DeadLetterReason,
    DeadLetters as DeadLetters,
)
from aiki_actors.kernel._errors import (
    ActorFailed as ActorFailed,
    ActorStopped as ActorStopped,
    AskTimeout as AskTimeout,
    KernelError as KernelError,
    MailboxFull as MailboxFull,
    MessageLost as MessageLost,
    NameTaken as NameTaken,
    NotRegistered as NotRegistered,
    ReplyMisused as ReplyMisused,
    SpecError as SpecError,
    SupervisorFailed as SupervisorFailed,
)
from aiki_actors.kernel._failures import ChildFailure as ChildFailure
from aiki_actors.kernel._mailbox import MailboxPolicy as MailboxPolicy, Overflow as Overflow
from aiki_actors.kernel._refs import ActorRef as ActorRef
from aiki_actors.kernel._registry import Key as Key, Registry as Registry
from aiki_actors.kernel._reply import Reply as Reply
from aiki_actors.kernel._restarts import (
    Backoff as Backoff,
    Restart as Restart,
    Strategy as Strategy,
    add_restart as add_restart,
)
from aiki_actors.kernel._specs import ChildSpec as ChildSpec, SupervisorSpec as SupervisorSpec
from aiki_actors.kernel._supervisor import Supervisor as Supervisor
from aiki_actors.kernel._system import ActorSystem as ActorSystem, open_system as open_system
from aiki_actors.kernel._tree import TreeNode as TreeNode, render_tree as render_tree

__all__ = [
    "Actor",
    "ActorContext",
    "ActorFailed",
    "ActorRef",
    "ActorStopped",
    "ActorSystem",
    "AskTimeout",
    "Backoff",
    "BatchActor",
    "ChildFailure",
    "ChildSpec",
    "DeadLetter",
    "DeadLetterReason",
    "DeadLetters",
    "KernelError",
    "Key",
    "MailboxFull",
    "MailboxPolicy",
    "MessageLost",
    "NameTaken",
    "NotRegistered",
    "Overflow",
    "Registry",
    "Reply",
    "ReplyMisused",
    "Restart",
    "SpecError",
    "StopReason",
    "Strategy",
    "Supervisor",
    "SupervisorFailed",
    "SupervisorSpec",
    "Terminated",
    "TreeNode",
    "add_restart",
    "open_system",
    "render_tree",
]
