"""Writes what Tierway is made of as CycloneDX JSON, from the locks alone: `make sbom`, or `python -m deploy.sbom FILE`.

No network, no clock and no chance: the same locks give the same bytes, so that a difference is a changed dependency.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[1]
LOCKS: Final = {
    "requirements.lock": "required",
    "requirements-extras.lock": "optional",
    "requirements-build.lock": "excluded",
    "requirements-dev.lock": "excluded",
}
"""Each lock, and whether what it names is part of what runs, always or where somebody wants it. What several name
counts by the first."""
PIN: Final = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)\s*(?:;\s*([^\\]+?))?\s*\\?")
HASH: Final = re.compile(r"\s+--hash=sha256:([0-9a-f]{64})\s*\\?")


class Pin(NamedTuple):
    name: str
    version: str
    marker: str | None
    """Where it is needed; None: everywhere."""
    hashes: tuple[str, ...]
    scope: str

    @property
    def purl(self) -> str:
        return f"pkg:pypi/{re.sub(r'[-_.]+', '-', self.name).lower()}@{self.version}"


def pins(text: str, scope: str) -> Iterator[Pin]:
    """The dependencies of one lock. Raises ValueError for a line it does not know, and for a pin without a hash."""
    head: re.Match[str] | None = None
    hashes: list[str] = []
    for line in [*text.splitlines(), ""]:
        if head is not None and (found := HASH.fullmatch(line)):
            hashes.append(found[1])
            continue
        if head is not None:
            if not hashes:
                raise ValueError(f"{head[1]} has no hash")
            yield Pin(head[1], head[2], head[3], tuple(sorted(hashes)), scope)
            head, hashes = None, []
        if line.strip() and not line.lstrip().startswith("#") and (head := PIN.fullmatch(line)) is None:
            raise ValueError(f"not a pinned dependency: {line}")


def locked(root: Path = ROOT) -> list[Pin]:
    """All dependencies, each once, by name."""
    found: dict[str, Pin] = {}
    for file, scope in LOCKS.items():
        for pin in pins((root / file).read_text(), scope):
            found.setdefault(pin.purl, pin)
    return sorted(found.values(), key=lambda pin: pin.purl)


def document(root: Path = ROOT) -> dict[str, Any]:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    every = locked(root)
    own = f"pkg:pypi/{project['name']}@{project['version']}"
    made: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": project["name"],
                "version": project["version"],
                "description": project["description"],
                "licenses": [{"license": {"id": project["license"]}}],
                "purl": own,
            }
        },
        "components": [_component(pin) for pin in every],
        "dependencies": [
            {"ref": own, "dependsOn": [pin.purl for pin in every if pin.scope == "required"]},
            *({"ref": pin.purl} for pin in every),
        ],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(made, sort_keys=True))
    return {**made, "serialNumber": f"urn:uuid:{serial}"}


def _component(pin: Pin) -> dict[str, Any]:
    """A lock names the hash of every file of a release; which one is installed depends on the machine."""
    made = {
        "type": "library",
        "bom-ref": pin.purl,
        "name": pin.name,
        "version": pin.version,
        "scope": pin.scope,
        "purl": pin.purl,
        "externalReferences": [
            {
                "type": "distribution",
                "url": pin.purl,
                "hashes": [{"alg": "SHA-256", "content": digest} for digest in pin.hashes],
            }
        ],
    }
    if pin.marker is not None:
        made["properties"] = [{"name": "tierway:marker", "value": pin.marker}]
    return made


def text(root: Path = ROOT) -> str:
    return json.dumps(document(root), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "sbom.cdx.json").write_text(text())
