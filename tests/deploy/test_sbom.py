"""A list of what we are made of that leaves something out hides the one thing that somebody is looking for."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from deploy.sbom import LOCKS, ROOT, document, locked, pins, text

HASH = "a" * 64


def test_everything_that_is_locked_is_listed_once() -> None:
    listed = [(each["name"], each["version"]) for each in document()["components"]]
    assert len(listed) == len(set(listed))
    for lock in LOCKS:
        heads = re.findall(r"^([\w.-]+)(?:\[.*?\])?==([^\s;]+)", (ROOT / lock).read_text(), re.MULTILINE)
        assert heads and set(heads) <= set(listed), lock


def test_what_runs_is_told_from_what_only_tests() -> None:
    scopes = {each["name"]: each["scope"] for each in document()["components"]}
    assert scopes["uvicorn"] == scopes["orjson"] == "required"
    assert scopes["opentelemetry-sdk"] == "optional"
    assert scopes["pytest"] == scopes["setuptools"] == "excluded"
    (own, *_) = document()["dependencies"]
    assert {ref.partition("@")[0] for ref in own["dependsOn"]} == {
        f"pkg:pypi/{name.lower().replace('_', '-')}" for name, scope in scopes.items() if scope == "required"
    }


def test_what_the_project_asks_for_is_there_at_the_version_that_is_installed() -> None:
    """The list is of what is really used."""
    listed = {(pin.name, pin.version) for pin in locked()}
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for wanted in map(Requirement, asked):
        if wanted.marker is None or wanted.marker.evaluate():
            assert (wanted.name, importlib.metadata.version(wanted.name)) in listed


def test_it_is_cyclonedx() -> None:
    """The members that readers of version 1.6 demand; every reference leads somewhere."""
    made = document()
    assert (made["bomFormat"], made["specVersion"], made["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", made["serialNumber"])
    refs = {made["metadata"]["component"]["bom-ref"], *(each["bom-ref"] for each in made["components"])}
    assert len(refs) == 1 + len(made["components"])
    assert {each["ref"] for each in made["dependencies"]} == refs
    for each in made["components"]:
        assert each["type"] == "library" and re.fullmatch(r"pkg:pypi/[a-z0-9-]+@[^@\s]+", each["purl"])
        (source,) = each["externalReferences"]
        assert source["hashes"] and all(len(digest["content"]) == 64 for digest in source["hashes"])


def test_the_same_locks_give_the_same_bytes(tmp_path: Path) -> None:
    """Also from another process, which hashes in another order; and a changed lock gives others."""
    out = tmp_path / "sbom.json"
    subprocess.run([sys.executable, "-m", "deploy.sbom", str(out)], cwd=ROOT, check=True, timeout=60)
    assert out.read_text() == text() and json.loads(text()) == document()
    for name in (*LOCKS, "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    assert text(tmp_path) == text()
    lock = tmp_path / "requirements.lock"
    lock.write_text(lock.read_text() + f"added==1.0 ; sys_platform == 'win32' \\\n    --hash=sha256:{HASH}\n")
    assert document(tmp_path)["serialNumber"] != document()["serialNumber"]
    (added,) = [each for each in document(tmp_path)["components"] if each["name"] == "added"]
    assert added["properties"] == [{"name": "tierway:marker", "value": "sys_platform == 'win32'"}]


@pytest.mark.parametrize(
    "lock", ["a==1.0\n", "a>=1.0\n", f"a==1.0 \\\n    --hash=md5:{HASH}\n", "-r other.txt\n", "a @ ./y.whl\n"]
)
def test_what_is_not_pinned_by_hash_is_refused(lock: str) -> None:
    """Better no list than one that names another file than the one that is installed."""
    with pytest.raises(ValueError, match=r"no hash|not a pinned"):
        list(pins(lock, "required"))


def test_make_writes_it() -> None:
    assert "deploy.sbom" in (ROOT / "Makefile").read_text()
