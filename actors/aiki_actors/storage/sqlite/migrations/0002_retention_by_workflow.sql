-- A workflow may have a retention of its own: ended runs are found by workflow, then by age.
DROP INDEX runs_by_end;
CREATE INDEX runs_by_workflow_end ON runs (workflow, ended_at, run_id, namespace)
WHERE ended_at IS NOT NULL;
