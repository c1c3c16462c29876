-- "The stalled runs of this workflow": without it, one of the two indexes is read from end to end
-- where few runs match both.
CREATE INDEX runs_by_workflow_status ON runs (namespace, workflow, status, created_at, run_id);
