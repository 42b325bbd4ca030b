"""The page at /docs: what the API is, written out of its own OpenAPI document. It asks nobody else for anything and
runs no script: it is there where there is no internet, and no foreign code runs at the address of an API."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any, Final

from fastapi import FastAPI, Request, Response

Json = Mapping[str, Any]

HEADERS: Final = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
summary { cursor: pointer; padding: .3rem 0; } summary b { display: inline-block; width: 4.5rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; } h2 { margin-top: 2rem; }
td, th { border-bottom: 1px solid #ddd; padding: .2rem .6rem .2rem 0; text-align: left; vertical-align: top; }
details > div { margin-left: 1rem; } code { font-size: 90%; }
"""


def add_page(app: FastAPI) -> None:
    """Serves it; the document is made once, by the framework."""

    async def docs(request: Request) -> Response:
        return Response(page(app.openapi()), media_type="text/html", headers=HEADERS)

    app.add_route("/docs", docs, include_in_schema=False)


def page(document: Json) -> str:
    """All of it."""
    about = document["info"]
    schemas: Json = document.get("components", {}).get("schemas", {})
    groups: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            (tag, *_) = operation.get("tags") or ["other"]
            groups.setdefault(tag, []).append("".join(_operation(method, path, operation, schemas)))
    parts = (f"<h2>{escape(tag)}</h2>{''.join(operations)}" for tag, operations in groups.items())
    title = f"{escape(about['title'])} {escape(about['version'])}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body><h1>{title}</h1><p>{_prose(about.get('description', ''))}</p>"
        '<p>The same for programs: <a href="/openapi.json">/openapi.json</a>.</p>'
        f"{''.join(parts)}</body></html>"
    )


def _operation(method: str, path: str, operation: Json, schemas: Json) -> Iterator[str]:
    yield f"<details><summary><b>{escape(method.upper())}</b><code>{escape(path)}</code> "
    yield f"{_prose(operation.get('summary', ''))}</summary><div><p>{_prose(operation.get('description', ''))}</p>"
    yield _table(
        ("parameter", "in", "is", ""),
        (
            (_code(each["name"]), each["in"], _code(_words(each.get("schema", {}))), _prose(_about(each)))
            for each in operation.get("parameters", ())
        ),
    )
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<p>The body, <code>{escape(media)}</code>: {_code(_words(content['schema']))}</p>"
        yield _table(("field", "is", ""), _fields(content["schema"], schemas))
    yield _table(
        ("answer", ""),
        ((escape(status), _prose(each["description"])) for status, each in operation["responses"].items()),
    )
    yield "</div></details>"


def _fields(schema: Json, schemas: Json) -> Iterator[tuple[str, ...]]:
    """Those of an object, or of what a reference leads to."""
    found = schemas.get(schema["$ref"].rpartition("/")[2], {}) if "$ref" in schema else schema
    needed = found.get("required", ())
    for name, each in found.get("properties", {}).items():
        yield _code(name) + (" *" if name in needed else ""), _code(_words(each)), _prose(_about(each))


def _words(schema: Json) -> str:
    """What a value is, in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " | ".join(map(_words, schema[several]))
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_words(schema.get('items', {}))}"
    return str(schema.get("const", schema.get("type", "any")))


def _about(described: Json) -> str:
    return str(described.get("description", ""))


def _table(head: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    """Its cells are HTML already."""
    lines = [f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows]
    return f"<table><tr>{''.join(f'<th>{each}</th>' for each in head)}</tr>{''.join(lines)}</table>" if lines else ""


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _prose(text: str) -> str:
    """Words of ours, and of whoever named something: what is between backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
