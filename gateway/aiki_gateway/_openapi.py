"""The OpenAPI 3.1 document of a route table."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from typing import Final

from aiki_sdk import JsonValue

from ._problems import PROBLEM_JSON, TITLES, ProblemBody
from ._routes import PATH_SCHEMAS, Access, Answer, Route
from ._schema import Components, Schema

_ABOUT: Final = (
    "Durable execution for Python. Errors are problem documents (RFC 9457) with a stable `code`; "
    "what each means is in the reference, under errors."
)
_KEY: Final = "apiKey"

_ANY_ROUTE: Final = (400, 401, 403, 429, 500, 503)
"""Statuses of problems that every route may answer."""
_WITH_BODY: Final = (408, 413, 415)


def document(routes: Sequence[Route]) -> Schema:
    """Return the document."""
    components = Components(
        {route.body: route.body_optional for route in routes if route.body is not None}
    )
    paths: dict[str, JsonValue] = {}
    # Requests first: what is both asked and answered is described as strictly as it is asked.
    operations = [(route, _operation(route, components)) for route in routes]
    for route, operation in operations:
        methods = paths.setdefault(route.path, {})
        assert isinstance(methods, dict), "a path holds its methods"
        methods[route.method.lower()] = operation
    components.of(ProblemBody)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Aiki on Trio",
            "description": _ABOUT,
            "version": importlib.metadata.version("aiki-trio"),
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "paths": paths,
        "components": {
            "schemas": components.schemas,
            "securitySchemes": {_KEY: {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, components: Components) -> Schema:
    operation: Schema = {
        "operationId": route.operation,
        "summary": route.summary,
        "parameters": _parameters(route),
        # An empty requirement beside the key's: a server without keys needs none.
        "security": [] if route.access is Access.OPEN else [{_KEY: []}, {}],
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": not route.body_may_be_absent,
            "content": {"application/json": {"schema": components.of(route.body, request=True)}},
        }
    responses: Schema = {
        str(status): _response(route, status, answer, components)
        for status, answer in route.answers.items()
    }
    errors = {*_ANY_ROUTE, *route.errors, *(_WITH_BODY if route.body is not None else ())}
    for status in sorted(errors - {*route.answers}):
        responses[str(status)] = _problem(status, components)
    operation["responses"] = responses
    return operation


def _parameters(route: Route) -> list[JsonValue]:
    found: list[JsonValue] = [
        {"name": name, "in": "path", "required": True, "schema": dict(PATH_SCHEMAS[name])}
        for name in route.path_names
    ]
    for param in route.query:
        schema: JsonValue = dict(param.schema)
        if param.many:
            schema = {"type": "array", "items": schema}
        found.append(
            {
                "name": param.name,
                "in": "query",
                "required": param.required,
                "description": param.about,
                "schema": schema,
            }
        )
    if route.access is Access.KEY:
        found.append(
            {
                "name": "Aiki-Namespace",
                "in": "header",
                "description": "The namespace; `default` if it is left out.",
                "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$"},
            }
        )
    if route.idempotency:
        found.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "description": "A repetition with the same key is answered like the first.",
                "schema": {"type": "string", "pattern": "^[!-~]{1,200}$"},
            }
        )
    return found


def _response(route: Route, status: int, answer: Answer, components: Components) -> Schema:
    response: Schema = {"description": answer.about}
    if answer.type is not None:
        response["content"] = {answer.content_type: {"schema": components.of(answer.type)}}
    if route.links and status in (200, 201):
        response["links"] = {
            name: {"operationId": link.operation, "parameters": dict(link.parameters)}
            for name, link in route.links.items()
        }
    return response


def _problem(status: int, components: Components) -> Schema:
    return {
        "description": TITLES[status],
        "content": {PROBLEM_JSON: {"schema": components.of(ProblemBody)}},
    }
