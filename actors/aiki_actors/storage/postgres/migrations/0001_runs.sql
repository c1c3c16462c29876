-- Runs, their journals, and the commands they owe each other. Times are microseconds since 1970, UTC.
-- Text is compared by code points (COLLATE "C"), as everywhere in this project. Bodies are bytes:
-- they are JSON, but jsonb refuses what JSON allows (\u0000), and nothing ever looks inside.

-- The truth. Two owners of one run can never both write: the primary key is the last fence.
CREATE TABLE journal (
    run_id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    at bigint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    format integer NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (run_id, seq)
);

-- One row per run, derived from its journal and written in the same transaction.
-- reference_current is true while the run holds its reference id.
CREATE TABLE runs (
    run_id text COLLATE "C" NOT NULL PRIMARY KEY,
    namespace text COLLATE "C" NOT NULL,
    workflow text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    pool text COLLATE "C" NOT NULL,
    priority integer NOT NULL,
    reference_id text COLLATE "C",
    input_hash text COLLATE "C" NOT NULL,
    parent_id text COLLATE "C",
    labels text COLLATE "C",
    attempt bigint NOT NULL,
    created_at bigint NOT NULL,
    started_at bigint,
    ended_at bigint,
    ready_at bigint,
    due_at bigint,
    worker_id text COLLATE "C",
    epoch bigint NOT NULL,
    reference_current boolean
);

CREATE UNIQUE INDEX runs_by_current_reference ON runs (namespace, workflow, reference_id)
WHERE reference_current;

-- Listings, newest first. The last two columns of each are what a page is ordered and cut by.
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
CREATE INDEX runs_by_workflow_end ON runs (workflow, ended_at, run_id, namespace)
WHERE ended_at IS NOT NULL;

-- Written only for runs that have labels; they never change.
CREATE TABLE run_labels (
    namespace text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    run_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (namespace, name, value, created_at, run_id)
);

-- Commands that one run owes another. They outlive the run that caused them.
CREATE TABLE notices (
    id text COLLATE "C" NOT NULL PRIMARY KEY,
    source_id text COLLATE "C" NOT NULL,
    target_id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    format integer NOT NULL,
    body bytea NOT NULL
);

-- One row per writing connection of the server that owns this database. `token` is known to that
-- connection alone: to change it shuts everything out that was sent under the old one and has not
-- been executed yet. `batch` and `outcome` are written in the transaction that they tell of.
CREATE TABLE writers (
    slot integer NOT NULL PRIMARY KEY,
    token text COLLATE "C" NOT NULL,
    batch bigint NOT NULL,
    outcome text COLLATE "C" NOT NULL
) WITH (fillfactor = 20);
