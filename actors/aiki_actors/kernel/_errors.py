"""Every error that the actor kernel raises, each one sentence.

    KernelError
    ├─ SpecError          a spec, policy or argument is invalid (a bug in the caller)
    ├─ NameTaken          an id or registered name is in use
    ├─ NotRegistered      nothing is registered under that key
    ├─ MailboxFull        the mailbox refused a message
    ├─ ActorStopped       the actor has ended for good, or is ending
    ├─ ActorFailed        the actor failed while it handled this message
    ├─ MessageLost        the message was thrown away by an overflow policy
    ├─ AskTimeout         no answer came within the deadline
    ├─ ReplyMisused       a one-shot reply was used twice
    └─ SupervisorFailed   a supervisor gave up: too many restarts in its period

Invariant: no error carries a message's content, only the names of actors.
"""

from typing import ClassVar


class KernelError(Exception):
    """Root of the kernel's errors.

    Attributes:
        code: A stable string to match on and to show to operators.
        retryable: Whether doing the same thing again later can succeed.
    """

    code: ClassVar[str] = "KERNEL_ERROR"
    retryable: ClassVar[bool] = False


class SpecError(KernelError, ValueError):
    """Say that a spec, policy or argument is invalid; the text names field and value."""

    code: ClassVar[str] = "KERNEL_SPEC_INVALID"


class NameTaken(KernelError):
    """Say that a child id or a registered name is already in use."""

    code: ClassVar[str] = "KERNEL_NAME_TAKEN"


class NotRegistered(KernelError, LookupError):
    """Say that no live actor is registered under a key."""

    code: ClassVar[str] = "KERNEL_NOT_REGISTERED"
    retryable: ClassVar[bool] = True


class MailboxFull(KernelError):
    """Say that a mailbox is at its capacity and its policy is to refuse."""

    code: ClassVar[str] = "KERNEL_MAILBOX_FULL"
    retryable: ClassVar[bool] = True

    def __init__(self, path: str, capacity: int) -> None:
        self.path = path
        self.capacity = capacity
        super().__init__(
            f"the mailbox of {path} is full ({capacity} messages wait); "
            "retry later, or give it a larger MailboxPolicy.capacity"
        )


class ActorStopped(KernelError):
    """Say that an actor has ended for good (or is ending) and takes no message."""

    code: ClassVar[str] = "KERNEL_ACTOR_STOPPED"

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"{path} has stopped and takes no message; look up or start another")


class ActorFailed(KernelError):
    """Say that an actor failed while it handled this message; `__cause__` is the failure.

    Whether the message took effect before the failure is unknown to the kernel.
    """

    code: ClassVar[str] = "KERNEL_ACTOR_FAILED"

    def __init__(self, path: str, cause: BaseException) -> None:
        self.path = path
        super().__init__(f"{path} failed while it handled this message: {cause!r}")
        self.__cause__ = cause


class MessageLost(KernelError):
    """Say that an overflow policy threw this message away before it was handled."""

    code: ClassVar[str] = "KERNEL_MESSAGE_LOST"
    retryable: ClassVar[bool] = True

    def __init__(self, path: str, capacity: int) -> None:
        self.path = path
        self.capacity = capacity
        super().__init__(
            f"the mailbox of {path} overflowed ({capacity} messages) and dropped this message"
        )


class AskTimeout(KernelError):
    """Say that no answer came in time; whether the message was or will be handled is unknown."""

    code: ClassVar[str] = "KERNEL_ASK_TIMEOUT"
    retryable: ClassVar[bool] = True

    def __init__(self, path: str, deadline_s: float) -> None:
        self.path = path
        self.deadline_s = deadline_s
        super().__init__(f"{path} did not answer within {deadline_s:g} s")


class ReplyMisused(KernelError):
    """Say that a one-shot reply was answered, or waited for, more than once."""

    code: ClassVar[str] = "KERNEL_REPLY_MISUSED"


class SupervisorFailed(KernelError):
    """Say that a supervisor gave up; `causes` are the last failures, oldest first."""

    code: ClassVar[str] = "KERNEL_SUPERVISOR_FAILED"

    def __init__(
        self, path: str, intensity: int, period_s: float, causes: tuple[BaseException, ...]
    ) -> None:
        self.path = path
        self.causes = causes
        last = f"; the last failure was {causes[-1]!r}" if causes else ""
        super().__init__(
            f"supervisor {path} gave up: more than {intensity} restarts in {period_s:g} s{last}"
        )
        if causes:
            self.__cause__ = causes[-1]
