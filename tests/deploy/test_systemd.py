"""The unit: it starts what is there, lets streams end, keeps its secret, and can be hurt by little."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Final

import pytest

from app.config.environment import VARIABLES
from app.config.load import load
from tests.deploy.declared import ROOT
from tests.deploy.test_kubernetes import METADATA, SETTLING_SECONDS

UNIT: Final = ROOT / "deploy" / "systemd" / "tierway.service"


def settings() -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for line in UNIT.read_text().splitlines():
        if "=" in line and not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            found[name].append(value)
    return found


def test_systemd_takes_it(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub(r"^(ExecStart)=\S+", r"\1=/bin/true", UNIT.read_text(), flags=re.MULTILINE))
    done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_streams_are_let_end() -> None:
    found = settings()
    assert found["KillMode"] == ["mixed"], "the embedded store must outlive the gateway's last word"
    assert int(found["TimeoutStopSec"][0]) >= load({}).streaming.grace + SETTLING_SECONDS


def test_its_environment_is_the_gateways(tmp_path: Path) -> None:
    said = dict(pair.split("=", 1) for pair in settings()["Environment"])
    secret = {name for name, variable in VARIABLES.items() if variable.secret}
    assert not said.keys() & secret, "a secret in a unit is read by everybody"
    assert said["TIERWAY_DATA_DIR"] == f"/var/lib/{settings()['StateDirectory'][0]}"
    (credential,) = settings()["LoadCredential"]
    assert said["TIERWAY_ADMIN_KEY_FILE"] == f"%d/{credential.partition(':')[0]}"
    key, config = tmp_path / "key", tmp_path / "tierway.yaml"
    key.write_text("an-admin-key-that-nobody-guesses")
    config.write_text("{}")
    assert load({**said, "TIERWAY_ADMIN_KEY_FILE": str(key), "TIERWAY_CONFIG": str(config)}).admin_key is not None


def test_it_may_do_little_and_not_reach_the_metadata_services() -> None:
    found = settings()
    assert (
        found["DynamicUser"] == ["yes"]
        and found["ProtectSystem"] == ["strict"]
        and found["CapabilityBoundingSet"] == [""]
    )
    denied = found["IPAddressDeny"][0].split()
    assert {"169.254.0.0/16", "168.63.129.16", "100.100.100.200", "fd00:ec2::/32", "fd20:ce::254"} <= set(denied)
    assert len(METADATA) == 8
