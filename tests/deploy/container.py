"""The gateway as a container runs it, without a container engine: the image's command and variables, the pod's on top,
no user of that number, no capabilities, and everything read-only but what the manifests make writable."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.deploy.declared import ROOT
from tests.deploy.kustomize import Object

UID: Final = "10001"
CONFINE: Final = (
    'mount --rbind "$1" "$1" && mount -o remount,bind,ro / && shift &&'
    f' exec unshare --user --map-user={UID} --map-group={UID} -- "$@"'
)
"""In namespaces of its own: one folder stays writable, then the user is nobody of this system."""


def image() -> tuple[list[str], dict[str, str]]:
    """Command and variables of the Dockerfile's last stage."""
    last = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2].replace("\\\n", " ")
    said = {word: re.findall(rf"^{word} (.*)$", last, re.MULTILINE) for word in ("ENV", "ENTRYPOINT", "CMD")}
    (entry,), (command,) = said["ENTRYPOINT"], said["CMD"]
    variables = dict(pair.split("=", 1) for line in said["ENV"] for pair in shlex.split(line))
    return [*yaml.safe_load(entry), *yaml.safe_load(command)], variables


def confined(folder: Path) -> list[str]:
    """What to put before a command so that it writes to this folder only; nothing where the kernel does not let us."""
    if shutil.which("unshare") is None:
        return []
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", CONFINE, "sh", str(folder)]
    tried = subprocess.run([*prefix, "true"], capture_output=True, timeout=30, check=False)
    return prefix if tried.returncode == 0 else []


@dataclass(frozen=True, slots=True)
class Pod:
    """One container of a Deployment, with folders of this machine in place of its volumes."""

    folder: Path
    container: Mapping[str, Any]

    def path(self, inside: str) -> Path:
        """Where a path of the container is on this machine."""
        mounts: dict[str, str] = {mount["mountPath"]: mount["name"] for mount in self.container["volumeMounts"]}
        for at, name in mounts.items():
            if inside == at or inside.startswith(f"{at}/"):
                return self.folder / name / inside.removeprefix(at).lstrip("/")
        raise AssertionError(f"{inside} is on no volume")

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def environment(self) -> dict[str, str]:
        """As the container has it, but for paths, and for an address that only this machine reaches."""
        _, variables = image()
        variables |= {each["name"]: each["value"] for each in self.container["env"]}
        local = {name: str(self.path(value)) for name, value in variables.items() if self._is_mounted(name, value)}
        here = {"PATH": f"{Path(sys.executable).parent}:{os.defpath}", "TMPDIR": str(self.path("/tmp"))}
        here |= {"TIERWAY_HOST": "127.0.0.1", "TIERWAY_PORT": "0"}
        return {**variables, **local, **here, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}

    def _is_mounted(self, name: str, value: str) -> bool:
        return name != "PATH" and value.startswith("/")

    def prepare(self, config: str, secrets: Mapping[str, str]) -> None:
        for mount in self.container["volumeMounts"]:
            self.path(mount["mountPath"]).mkdir()
        (self.path("/etc/tierway") / "tierway.yaml").write_text(config)
        for name, secret in secrets.items():
            self.path(f"/run/secrets/tierway/{name}").write_text(secret)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.subprocess.Process]:
        command, _ = image()
        assert command == ["tierway", *self.container["args"]], "the manifest starts something else than the image"
        command[:1] = [sys.executable, "-c", "from app.cli import main; main()"]
        with self.log.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *confined(self.folder),
                *command,
                env=self.environment(),
                cwd="/",
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def pod_of(objects: list[Object], folder: Path) -> tuple[Pod, str]:
    """The pod of these manifests, and its configuration."""
    found = {each["kind"]: each for each in objects}
    (container,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    return Pod(folder, container), found["ConfigMap"]["data"]["tierway.yaml"]
