-- Workflows that workers have announced, so that a server without their code accepts starts.
CREATE TABLE workflows (
    namespace text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    definition bytea NOT NULL,
    PRIMARY KEY (namespace, name, version)
);

-- Keep workflows, in place of those with the same key; no key comes twice.
CREATE FUNCTION put_workflows(
    slot_ integer, token_ text, batch_ bigint,
    namespaces text[], names text[], versions text[], definitions bytea[]
) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM mark_batch(slot_, token_, batch_, '');
    INSERT INTO workflows (namespace, name, version, definition)
    SELECT * FROM unnest(namespaces, names, versions, definitions)
    ON CONFLICT (namespace, name, version) DO UPDATE SET definition = excluded.definition;
    RETURN '';
END $$;
