"""Other gateways are found where they are installed, and asked as their configuration expects."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import yaml

from bench.peers import PEERS, installed
from bench.targets import KEY, filled
from bench.workloads import PAUSES

VALUES = {"upstream": "http://127.0.0.1:1", "port": "2", "run": "/run", "url_file": "/run/url"}


def test_only_what_is_installed_takes_part(tmp_path: Path) -> None:
    assert installed(None) == installed(tmp_path) == []
    (tmp_path / "portkey").mkdir()
    [target] = installed(tmp_path)
    assert target.name == "portkey" and str(tmp_path / "portkey") in target.command[1]


def test_their_configurations_can_be_read_and_name_the_upstream(tmp_path: Path) -> None:
    for name in PEERS:
        (tmp_path / name).mkdir()
    targets = {target.name: target for target in installed(tmp_path)}
    assert set(targets) == set(PEERS)
    lite = yaml.safe_load(filled(targets["litellm"].files["litellm.yaml"], VALUES))
    assert lite["general_settings"]["master_key"] == KEY
    assert lite["model_list"][0]["litellm_params"]["api_base"] == "http://127.0.0.1:1/v1"
    zero = tomllib.loads(filled(targets["tensorzero"].files["tensorzero.toml"], VALUES))
    assert {name: zero["models"][name]["providers"]["up"]["api_base"] for name in PAUSES} == dict.fromkeys(
        PAUSES, "http://127.0.0.1:1/v1"
    )
    ast.parse(filled(targets["tensorzero"].files["serve.py"], VALUES))
    assert targets["tensorzero"].writes_url
    assert "x-portkey-custom-host: http://127.0.0.1:1/v1" in [
        filled(header, VALUES) for header in targets["portkey"].headers
    ]
