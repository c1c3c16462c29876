"""The OpenAPI document is the route table, and every type in it is described."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import jsonschema_rs

from aiki_gateway import GatewaySettings
from aiki_gateway._problems import STATUSES, TITLES
from aiki_gateway._routes import Access
from aiki_gateway._table import ROUTES
from aiki_sdk._errors import ERRORS_BY_CODE
from tests.gateway.serving import openapi, served

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"
PAGE = REFERENCE / "http-errors.md"


def test_the_document_has_every_route_and_no_other() -> None:
    document = {
        (method.upper(), path) for path, methods in openapi()["paths"].items() for method in methods
    }
    assert document == {(route.method, route.path) for route in ROUTES}


async def test_every_route_of_the_document_is_served() -> None:
    """A path of the table answers something else than "no such path" or "no such method"."""
    async with served() as server:
        served_document = (await server.http.get("/openapi.json")).json()
        assert served_document == openapi()
        for route in ROUTES:
            if route.stream is not None and route.path == "/v1/stream":
                continue  # it would not end
            path = route.path.format(run_id="none", name="go")
            answer = await server.http.request(route.method, path)
            assert answer.status_code != 405, path
            assert "does not exist; see" not in answer.text, path


def test_operations_have_unique_names_and_links_lead_to_one() -> None:
    names = [route.operation for route in ROUTES]
    assert len(set(names)) == len(names)
    for route in ROUTES:
        assert all(link.operation in names for link in route.links.values())


def test_only_probes_and_the_description_are_open_to_everybody() -> None:
    """A new route needs a key unless somebody says otherwise here."""
    open_paths = {route.path for route in ROUTES if route.access is Access.OPEN}
    assert open_paths == {"/healthz", "/readyz", "/openapi.json"}


def test_every_schema_is_a_valid_one_and_every_reference_leads_somewhere() -> None:
    document = openapi()
    for name, schema in document["components"]["schemas"].items():
        jsonschema_rs.meta.validate(schema)
        jsonschema_rs.validator_for({"components": document["components"], **schema})
        assert schema, name


def test_every_code_has_a_status_and_every_status_a_title() -> None:
    assert ERRORS_BY_CODE.keys() <= STATUSES.keys()
    assert set(STATUSES.values()) <= TITLES.keys()


def test_the_page_of_errors_has_an_entry_with_the_status_of_every_code() -> None:
    entries = re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \|", PAGE.read_text(), re.MULTILINE)
    assert dict(entries) == {code: str(status) for code, status in STATUSES.items()}
    assert len(entries) == len(STATUSES)


def test_the_page_of_the_interface_has_every_route_and_every_setting() -> None:
    text = (REFERENCE / "http.md").read_text()
    routes = re.findall(r"^\| `([A-Z]+ /[^`]*)` \|", text, re.MULTILINE)
    websockets = ["WS /v1/stream", "WS /v1/worker"]
    assert routes == [*(f"{route.method} {route.path}" for route in ROUTES), *websockets]
    settings = re.findall(r"^\| `((?!aiki_)\w+)` \| ([^|]*) \|", text, re.MULTILINE)
    assert settings == [(one.name, str(one.default)) for one in attrs.fields(GatewaySettings)]
