-- A batch is one call of one of these functions in a transaction of its own: one round trip.
-- What they raise on purpose: AK001, a change does not continue its run's journal; AK002, another
-- server, or another connection, has taken this writer's place.

-- Leave the mark by which the outcome of this transaction can be found out later. It locks the
-- writer's row: whoever asks waits until this transaction has ended.
CREATE FUNCTION mark_batch(slot_ integer, token_ text, batch_ bigint, outcome_ text)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE writers SET batch = batch_, outcome = outcome_
    WHERE slot = slot_ AND token = token_;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'writer % has been replaced', slot_ USING ERRCODE = 'AK002';
    END IF;
END $$;

-- Write entries, given as columns, each change behind the entry that it follows, or raise.
CREATE FUNCTION write_entries(
    format_ integer, before_run text[], before_seq bigint[],
    entry_run text[], entry_seq bigint[], entry_at bigint[], entry_kind text[], entry_body bytea[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    found_count bigint;
BEGIN
    IF cardinality(before_run) > 0 THEN
        SELECT count(*) INTO found_count
        FROM unnest(before_run, before_seq) AS given (run_id, seq)
        JOIN journal ON journal.run_id = given.run_id AND journal.seq = given.seq;
        IF found_count <> cardinality(before_run) THEN
            RAISE EXCEPTION 'refused' USING ERRCODE = 'AK001';
        END IF;
    END IF;
    INSERT INTO journal (run_id, seq, at, kind, format, body)
    SELECT given.run_id, given.seq, given.at, given.kind, format_, given.body
    FROM unnest(entry_run, entry_seq, entry_at, entry_kind, entry_body)
        AS given (run_id, seq, at, kind, body);
END $$;

-- Write changes that are nothing but entries, as most are, all or none; tell which.
CREATE FUNCTION append_entries(
    slot_ integer, token_ text, batch_ bigint, format_ integer,
    before_run text[], before_seq bigint[],
    entry_run text[], entry_seq bigint[], entry_at bigint[], entry_kind text[], entry_body bytea[]
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM mark_batch(slot_, token_, batch_, '[]');
    PERFORM write_entries(
        format_, before_run, before_seq, entry_run, entry_seq, entry_at, entry_kind, entry_body
    );
    RETURN true;
EXCEPTION
    WHEN SQLSTATE 'AK001' OR unique_violation THEN
        -- All of the above is undone, the mark included.
        RETURN false;
END $$;

-- Write changes that all fit, or nothing; tell which. The arrays are columns:
-- before_*: the entry that each change follows; empty_*: changes without entries, and the last seq
-- that their run must have; entry_*, notice_*: rows; new_*: rows of new runs; row_*: what changes in
-- rows of others; label_*: rows; settled: ids of notices.
CREATE FUNCTION append_all(
    slot_ integer, token_ text, batch_ bigint, format_ integer,
    before_run text[], before_seq bigint[],
    entry_run text[], entry_seq bigint[], entry_at bigint[], entry_kind text[], entry_body bytea[],
    empty_run text[], empty_seq bigint[],
    new_run text[], new_namespace text[], new_workflow text[], new_version text[],
    new_status text[], new_pool text[], new_priority integer[], new_reference text[],
    new_hash text[], new_parent text[], new_labels text[], new_attempt bigint[],
    new_created bigint[], new_started bigint[], new_ended bigint[], new_ready bigint[],
    new_due bigint[], new_worker text[], new_epoch bigint[],
    row_run text[], row_status text[], row_attempt bigint[], row_started bigint[],
    row_ended bigint[], row_ready bigint[], row_due bigint[], row_worker text[],
    row_epoch bigint[],
    label_namespace text[], label_name text[], label_value text[], label_created bigint[],
    label_run text[],
    notice_id text[], notice_source text[], notice_target text[], notice_kind text[],
    notice_body bytea[],
    settled text[]
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    found_count bigint;
BEGIN
    PERFORM mark_batch(slot_, token_, batch_, '[]');
    PERFORM write_entries(
        format_, before_run, before_seq, entry_run, entry_seq, entry_at, entry_kind, entry_body
    );
    IF cardinality(empty_run) > 0 THEN
        SELECT count(*) INTO found_count
        FROM unnest(empty_run, empty_seq) AS given (run_id, seq)
        WHERE given.seq = (
            SELECT coalesce(max(journal.seq), 0) FROM journal WHERE journal.run_id = given.run_id
        );
        IF found_count <> cardinality(empty_run) THEN
            RAISE EXCEPTION 'refused' USING ERRCODE = 'AK001';
        END IF;
    END IF;
    IF cardinality(new_run) > 0 THEN
        INSERT INTO runs (
            run_id, namespace, workflow, version, status, pool, priority, reference_id,
            input_hash, parent_id, labels, attempt, created_at, started_at, ended_at, ready_at,
            due_at, worker_id, epoch, reference_current
        )
        SELECT given.*, CASE WHEN given.reference_id IS NOT NULL THEN true END
        FROM unnest(
            new_run, new_namespace, new_workflow, new_version, new_status, new_pool,
            new_priority, new_reference, new_hash, new_parent, new_labels, new_attempt,
            new_created, new_started, new_ended, new_ready, new_due, new_worker, new_epoch
        ) AS given (
            run_id, namespace, workflow, version, status, pool, priority, reference_id,
            input_hash, parent_id, labels, attempt, created_at, started_at, ended_at, ready_at,
            due_at, worker_id, epoch
        );
    END IF;
    IF cardinality(row_run) > 0 THEN
        UPDATE runs SET
            status = given.status, attempt = given.attempt, started_at = given.started_at,
            ended_at = given.ended_at, ready_at = given.ready_at, due_at = given.due_at,
            worker_id = given.worker_id, epoch = given.epoch
        FROM unnest(
            row_run, row_status, row_attempt, row_started, row_ended, row_ready, row_due,
            row_worker, row_epoch
        ) AS given (
            run_id, status, attempt, started_at, ended_at, ready_at, due_at, worker_id, epoch
        )
        WHERE runs.run_id = given.run_id;
        GET DIAGNOSTICS found_count = ROW_COUNT;
        IF found_count <> cardinality(row_run) THEN
            RAISE EXCEPTION 'refused' USING ERRCODE = 'AK001';
        END IF;
    END IF;
    IF cardinality(label_run) > 0 THEN
        INSERT INTO run_labels (namespace, name, value, created_at, run_id)
        SELECT * FROM unnest(label_namespace, label_name, label_value, label_created, label_run);
    END IF;
    IF cardinality(notice_id) > 0 THEN
        INSERT INTO notices (id, source_id, target_id, kind, format, body)
        SELECT given.id, given.source_id, given.target_id, given.kind, format_, given.body
        FROM unnest(notice_id, notice_source, notice_target, notice_kind, notice_body)
            AS given (id, source_id, target_id, kind, body)
        ON CONFLICT (id) DO NOTHING;
    END IF;
    IF cardinality(settled) > 0 THEN
        DELETE FROM notices WHERE id = ANY (settled);
    END IF;
    RETURN true;
EXCEPTION
    WHEN SQLSTATE 'AK001' OR unique_violation THEN
        -- All of the above is undone, the mark included.
        RETURN false;
END $$;

-- Write one change, given as JSON, or raise.
CREATE FUNCTION write_change(change json, format_ integer)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    run text := change ->> 'run';
    expected bigint := (change ->> 'first')::bigint - 1;
    is_new boolean := (change ->> 'create')::boolean;
    last bigint;
    new_row runs;
BEGIN
    SELECT coalesce(max(seq), 0) INTO last FROM journal WHERE run_id = run;
    IF last <> expected
        OR (last = 0 AND NOT is_new AND json_array_length(change -> 'entries') > 0)
    THEN
        RAISE EXCEPTION 'refused' USING ERRCODE = 'AK001';
    END IF;
    INSERT INTO journal (run_id, seq, at, kind, format, body)
    SELECT run, (one ->> 0)::bigint, (one ->> 1)::bigint, one ->> 2, format_,
        decode(one ->> 3, 'base64')
    FROM json_array_elements(change -> 'entries') AS one;
    UPDATE runs SET reference_current = NULL WHERE run_id = change ->> 'supersedes';
    IF change -> 'row' IS NOT NULL THEN
        new_row := json_populate_record(NULL::runs, change -> 'row');
        IF is_new THEN
            INSERT INTO runs SELECT new_row.*;
        ELSE
            UPDATE runs SET
                status = new_row.status, attempt = new_row.attempt,
                started_at = new_row.started_at, ended_at = new_row.ended_at,
                ready_at = new_row.ready_at, due_at = new_row.due_at,
                worker_id = new_row.worker_id, epoch = new_row.epoch
            WHERE run_id = run;
            IF NOT FOUND THEN
                RAISE EXCEPTION 'refused' USING ERRCODE = 'AK001';
            END IF;
        END IF;
    END IF;
    INSERT INTO run_labels (namespace, name, value, created_at, run_id)
    SELECT new_row.namespace, one ->> 0, one ->> 1, new_row.created_at, run
    FROM json_array_elements(change -> 'labels') AS one;
    INSERT INTO notices (id, source_id, target_id, kind, format, body)
    SELECT one ->> 0, one ->> 1, one ->> 2, one ->> 3, format_, decode(one ->> 4, 'base64')
    FROM json_array_elements(change -> 'notices') AS one
    ON CONFLICT (id) DO NOTHING;
    DELETE FROM notices WHERE id IN (SELECT json_array_elements_text(change -> 'settled'));
END $$;

-- Write the changes that fit, each on its own, and tell of those that do not: a JSON array of
-- [index], not what comes next in its run, and [index, run_id, input_hash], the reference id is that
-- run's. What follows a refused change of a run in the same call is refused too.
CREATE FUNCTION append_each(
    slot_ integer, token_ text, batch_ bigint, format_ integer, changes_ text
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    change json;
    index integer := -1;
    call bigint := -1;
    refused text[];
    refusals json[] := '{}';
    last bigint;
    holder text;
    holder_hash text;
    outcome_ text;
BEGIN
    -- First, for it takes the lock; the outcome follows.
    PERFORM mark_batch(slot_, token_, batch_, '');
    FOR change IN SELECT json_array_elements(changes_::json) LOOP
        index := index + 1;
        IF (change ->> 'call')::bigint <> call THEN
            call := (change ->> 'call')::bigint;
            refused := '{}';
        END IF;
        IF change ->> 'run' = ANY (refused) THEN
            refusals := refusals || json_build_array(index);
            CONTINUE;
        END IF;
        BEGIN
            PERFORM write_change(change, format_);
        EXCEPTION
            WHEN SQLSTATE 'AK001' THEN
                refused := refused || (change ->> 'run');
                refusals := refusals || json_build_array(index);
            WHEN unique_violation THEN
                refused := refused || (change ->> 'run');
                SELECT coalesce(max(seq), 0) INTO last
                FROM journal WHERE run_id = change ->> 'run';
                IF last <> (change ->> 'first')::bigint - 1 THEN
                    refusals := refusals || json_build_array(index);
                ELSE
                    SELECT run_id, input_hash INTO holder, holder_hash FROM runs
                    WHERE namespace = change -> 'row' ->> 'namespace'
                        AND workflow = change -> 'row' ->> 'workflow'
                        AND reference_id = change -> 'row' ->> 'reference_id'
                        AND reference_current;
                    IF NOT FOUND THEN
                        -- It was given up since; begin again and see the new state.
                        RAISE EXCEPTION 'a reference id changed hands'
                        USING ERRCODE = 'serialization_failure';
                    END IF;
                    refusals := refusals || json_build_array(index, holder, holder_hash);
                END IF;
        END;
    END LOOP;
    outcome_ := array_to_json(refusals)::text;
    UPDATE writers SET outcome = outcome_ WHERE slot = slot_;
    RETURN outcome_;
END $$;

-- Delete ended runs with all that is theirs, the oldest first; return how many. The workflows are
-- walked one by one through the index: what is excluded is never read, however much there is.
CREATE FUNCTION delete_ended(
    slot_ integer, token_ text, batch_ bigint,
    before_ bigint, limit_ bigint, namespace_ text, workflow_ text, excluding_ text[]
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    name text := '';
    candidates text[] := '{}';
    times bigint[] := '{}';
    chosen text[];
    deleted text[];
BEGIN
    PERFORM mark_batch(slot_, token_, batch_, '');
    LOOP
        IF workflow_ IS NOT NULL THEN
            EXIT WHEN name = workflow_;
            name := workflow_;
        ELSE
            SELECT workflow INTO name FROM runs
            WHERE ended_at IS NOT NULL AND workflow > name ORDER BY workflow LIMIT 1;
            EXIT WHEN NOT FOUND;
        END IF;
        CONTINUE WHEN name = ANY (excluding_);
        SELECT candidates || coalesce(array_agg(run_id), '{}'),
            times || coalesce(array_agg(ended_at), '{}')
        INTO candidates, times
        FROM (
            SELECT ended_at, run_id FROM runs
            WHERE workflow = name AND ended_at IS NOT NULL AND ended_at < before_
                AND (namespace_ IS NULL OR namespace = namespace_)
            ORDER BY ended_at, run_id LIMIT limit_
        ) AS oldest;
    END LOOP;
    SELECT array_agg(run_id) INTO chosen FROM (
        SELECT given.run_id FROM unnest(candidates, times) AS given (run_id, ended_at)
        ORDER BY given.ended_at, given.run_id LIMIT limit_
    ) AS oldest;
    -- A run that somebody writes at this moment is left for the next time.
    SELECT array_agg(run_id) INTO deleted FROM (
        SELECT run_id FROM runs WHERE run_id = ANY (chosen) AND ended_at < before_
        FOR UPDATE SKIP LOCKED
    ) AS ours;
    DELETE FROM run_labels USING runs, json_each_text(runs.labels::json) AS label
    WHERE runs.run_id = ANY (deleted) AND run_labels.namespace = runs.namespace
        AND run_labels.name = label.key AND run_labels.value = label.value
        AND run_labels.created_at = runs.created_at AND run_labels.run_id = runs.run_id;
    DELETE FROM journal WHERE run_id = ANY (deleted);
    DELETE FROM runs WHERE run_id = ANY (deleted);
    UPDATE writers SET outcome = coalesce(cardinality(deleted), 0)::text WHERE slot = slot_;
    RETURN coalesce(cardinality(deleted), 0)::text;
END $$;
