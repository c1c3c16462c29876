"""Errors of the storage: what the database refuses, or may or may not have done."""

from aiki_sdk._error import AikiError


class StorageError(AikiError):
    """The storage failed; the driver's own error is the cause.

    Raised when the database refuses in a way that is none of the others.

    What to do: Look at the log of the server, and at the database's own.
    """

    code = "storage"


class StorageCorrupt(StorageError):
    """What was read back is damaged; restore a backup.

    Raised when a journal or a file of the database cannot be read as it was written.

    What to do: Stop the server, run `aiki doctor`, and restore a backup.
    """

    code = "storage-corrupt"


class StorageFull(StorageError):
    """No space is left; nothing of the batch was written.

    Raised when the disk, or the quota of the database, is used up.

    What to do: Make room; runs go on by themselves, and requests can be repeated.
    """

    code = "storage-full"
    retryable = True


class StorageLocked(StorageError):
    """Another process holds the database; nothing was written.

    Raised when a second server or program opens a database that has an owner.

    What to do: Stop the other one, or ask it to do what is to be done.
    """

    code = "storage-locked"
    retryable = True


class StorageReadOnly(StorageError):
    """The database cannot be written to.

    Raised when the file, its folder or the connection permits no writing.

    What to do: Give the server's user the right to write.
    """

    code = "storage-read-only"


class StorageTooNew(StorageError):
    """The schema belongs to a newer release; upgrade this program.

    Raised when an older program opens a database that a newer one has migrated.

    What to do: Upgrade this program; there is no way back but a backup.
    """

    code = "storage-too-new"


class StorageUnavailable(StorageError):
    """The database cannot be reached, or takes no writes now; nothing was written.

    Raised when PostgreSQL restarts, fails over, or is cut off.

    What to do: Try again; the server itself goes on as soon as the database answers.
    """

    code = "storage-unavailable"
    retryable = True


class UnknownOutcome(StorageError):
    """A write may or may not have happened; read the journal back before doing anything else.

    Raised when the connection is lost after a write was sent and before it was answered.

    What to do: Look whether it was done, or repeat it with the same reference id or
    `Idempotency-Key`.
    """

    code = "unknown-outcome"
