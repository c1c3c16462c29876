-- Runs, their journals, and the commands they owe each other. Times are microseconds since 1970, UTC.
-- `run_id` has a prefix and a ULID, so that new runs are neighbours in every index.

-- The truth. Two owners of one run can never both write: the primary key is the last fence.
CREATE TABLE journal (
    run_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    format INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (run_id, seq)
) STRICT, WITHOUT ROWID;

-- One row per run, derived from its journal and written in the same transaction.
-- reference_current is 1 while the run holds its reference id.
CREATE TABLE runs (
    run_id TEXT NOT NULL PRIMARY KEY,
    namespace TEXT NOT NULL,
    workflow TEXT NOT NULL,
    version TEXT NOT NULL,
    status TEXT NOT NULL,
    pool TEXT NOT NULL,
    priority INTEGER NOT NULL,
    reference_id TEXT,
    reference_current INTEGER,
    input_hash TEXT NOT NULL,
    parent_id TEXT,
    labels TEXT,
    attempt INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER,
    ready_at INTEGER,
    due_at INTEGER,
    worker_id TEXT,
    epoch INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX runs_by_current_reference ON runs (namespace, workflow, reference_id)
WHERE reference_current = 1;

-- Listings, newest first. The last three columns of each are what a page is ordered and cut by.
CREATE INDEX runs_by_creation ON runs (namespace, created_at, run_id);
CREATE INDEX runs_by_status ON runs (namespace, status, created_at, run_id);
CREATE INDEX runs_by_workflow ON runs (namespace, workflow, created_at, run_id);
CREATE INDEX runs_by_parent ON runs (parent_id, created_at, run_id) WHERE parent_id IS NOT NULL;
CREATE INDEX runs_by_reference ON runs (namespace, reference_id, created_at, run_id)
WHERE reference_id IS NOT NULL;

-- Sweeps. Each holds only the runs that the sweep is about.
CREATE INDEX runs_by_readiness ON runs (priority, ready_at, run_id) WHERE ready_at IS NOT NULL;
CREATE INDEX runs_by_due_time ON runs (due_at, run_id) WHERE due_at IS NOT NULL;
CREATE INDEX runs_by_claim ON runs (run_id) WHERE worker_id IS NOT NULL;
CREATE INDEX runs_by_end ON runs (ended_at, run_id, namespace) WHERE ended_at IS NOT NULL;

-- Written only for runs that have labels; they never change.
CREATE TABLE run_labels (
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    run_id TEXT NOT NULL,
    PRIMARY KEY (namespace, name, value, created_at, run_id)
) STRICT, WITHOUT ROWID;

-- Commands that one run owes another. They outlive the run that caused them.
CREATE TABLE notices (
    id TEXT NOT NULL PRIMARY KEY,
    source_id TEXT NOT NULL,
    target_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    format INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT, WITHOUT ROWID;
