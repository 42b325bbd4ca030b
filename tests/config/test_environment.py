"""Variables are read strictly, and misspelt ones are found."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from app.config.environment import MAX_SECRET_BYTES, VARIABLES, Environment, default_data_dir


def said(environ: dict[str, str]) -> list[str]:
    environment = Environment(environ)
    environment.check_names(())
    return [str(each) for each in environment.problems]


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("TIERWAY_PORT", "9000", 9000),
        ("TIERWAY_PORT", "0", 0),
        ("TIERWAY_WORKERS", " 4 ", 4),
        ("TIERWAY_HOST", "0.0.0.0", "0.0.0.0"),
        ("TIERWAY_LOG_LEVEL", "DEBUG", "debug"),
        ("TIERWAY_LOG_FORMAT", "json", "json"),
        ("TIERWAY_ALLOW_ANONYMOUS", "True", True),
        ("TIERWAY_DATA_DIR", "/data", Path("/data")),
        ("TIERWAY_CONFIG", "/etc/t.yaml", Path("/etc/t.yaml")),
        ("VLLM_BASE_URL", "http://a:1/v1, http://b:1", ("http://a:1", "http://b:1")),
        ("FEATURE_SHADOW", "10%", 0.1),
        ("FEATURE_LOCK", "false", False),
    ],
)
def test_each_variable_is_read_as_its_type(name: str, raw: str, value: Any) -> None:
    environment = Environment({name: raw})
    assert environment.value(name) == value
    assert environment.problems == []


@pytest.mark.parametrize("name", VARIABLES)
@pytest.mark.parametrize("raw", ["", "  "])
def test_an_empty_variable_counts_as_unset(name: str, raw: str) -> None:
    """Docker Compose passes `${X:-}` on as an empty variable."""
    environment = Environment({name: raw})
    assert environment.value(name) == VARIABLES[name].default
    assert environment.secret(name) is None
    assert not environment.names(name)
    assert environment.problems == []


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        *(("TIERWAY_PORT", raw) for raw in ("65536", "-1", "80a", "8e3", "٣")),
        *(("TIERWAY_WORKERS", raw) for raw in ("0", "257")),
        ("TIERWAY_HOST", "a b"),
        ("TIERWAY_LOG_LEVEL", "verbose"),
        ("TIERWAY_LOG_FORMAT", "xml"),
        ("TIERWAY_ALLOW_ANONYMOUS", "yes"),
        ("TIERWAY_DATA_DIR", "a\0b"),
        ("FEATURE_SHADOW", "sometimes"),
        *(("VLLM_BASE_URL", raw) for raw in (",", "http://a,http://a/v1", "http://a,b")),
    ],
)
def test_a_wrong_value_is_a_problem_and_is_not_repeated(name: str, raw: str) -> None:
    environment = Environment({name: raw})
    assert environment.value(name) == VARIABLES[name].default
    (problem,) = environment.problems
    assert (problem.where, problem.key) == ("environment", name)
    assert problem.message.startswith("must be") or "must not" in problem.message


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("TIERWAY_PROT", "TIERWAY_PORT"),
        ("TIERWAY_ADMINKEY", "TIERWAY_ADMIN_KEY"),
        ("TIERWAY_ADMIN_KEY_FIEL", "TIERWAY_ADMIN_KEY_FILE"),
        ("FEATURE_STREAMNG", "FEATURE_STREAMING"),
        ("FEATURE_LOCAL_MODEL", "FEATURE_LOCAL_MODELS"),
        ("TIERWAY_FEATURE_LOCK", "FEATURE_LOCK"),
        ("FEATURE_HOST", "TIERWAY_HOST"),
    ],
)
def test_a_misspelt_variable_names_the_nearest(name: str, meant: str) -> None:
    """A typo in a variable must not pass silently: it may be the one that switches something off."""
    assert said({name: "1"}) == [f"environment: {name}: unknown variable; did you mean {meant}?"]


def test_a_variable_like_no_other_is_still_an_error() -> None:
    assert said({"TIERWAY_XYZZYQQ": "1"}) == ["environment: TIERWAY_XYZZYQQ: unknown variable"]


def test_variables_of_others_are_none_of_our_business() -> None:
    assert said({"PATH": "/bin", "OTEL_SERVICE_NAME": "x", "MY_FEATURE_X": "1", "tierway_prot": "1"}) == []


def test_what_kubernetes_injects_is_passed_over() -> None:
    """A Service called tierway would otherwise stop every gateway in its namespace from starting."""
    environ = {
        "TIERWAY_SERVICE_HOST": "10.0.0.1",
        "TIERWAY_SERVICE_PORT": "80",
        "TIERWAY_SERVICE_PORT_HTTP": "80",
        "TIERWAY_PORT": "tcp://10.0.0.1:80",
        "TIERWAY_PORT_80_TCP": "tcp://10.0.0.1:80",
        "TIERWAY_PORT_80_TCP_ADDR": "10.0.0.1",
        "TIERWAY_VALKEY_SERVICE_HOST": "10.0.0.2",
        "TIERWAY_VALKEY_PORT": "tcp://10.0.0.2:6379",
        "TIERWAY_VALKEY_PORT_6379_TCP_PROTO": "tcp",
    }
    assert said(environ) == []
    assert Environment(environ).value("TIERWAY_PORT") == 8080


def test_a_secret_comes_with_its_source(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("sk-file\n")
    secret = Environment({"ANTHROPIC_API_KEY": "sk-1"}).secret("ANTHROPIC_API_KEY")
    assert secret is not None
    assert (secret[0].get_secret_value(), secret[1]) == ("sk-1", "ANTHROPIC_API_KEY")
    secret = Environment({"ANTHROPIC_API_KEY_FILE": str(path)}).secret("ANTHROPIC_API_KEY")
    assert secret is not None
    assert (secret[0].get_secret_value(), secret[1]) == ("sk-file", "ANTHROPIC_API_KEY_FILE")
    assert said({"TIERWAY_ADMIN_KEY_FILE": str(path), "REDIS_URL_FILE": str(path)}) == []


@pytest.mark.parametrize(
    "content", [b"", b" \n", b"\xff\xfe", b"x" * (MAX_SECRET_BYTES + 1), b"two\nlines", "clé".encode()]
)
def test_a_file_without_a_usable_secret_is_a_problem(tmp_path: Path, content: bytes) -> None:
    """A key with a line break in it would break every request header it is put in."""
    (tmp_path / "key").write_bytes(content)
    environment = Environment({"ANTHROPIC_API_KEY_FILE": str(tmp_path / "key")})
    environment.secret("ANTHROPIC_API_KEY")
    (problem,) = environment.problems
    assert problem.key == "ANTHROPIC_API_KEY_FILE"


@pytest.mark.parametrize(
    "key",
    [
        *("boss", "a-15-char-key-1", "admin", "ADMIN_ADMIN_ADMIN_1", "change-me-please-2026", "your-admin-key-here"),
        *("Tierway-Admin-Key-1!", "sk-1234567890abcdefghijklmnop", "12345678901234567890", "aaaaaaaaaaaaaaaaaaaaaaaab"),
        *("correct-horse-battery-staple", "sk-litellm-master-key-1"),
    ],
)
def test_an_admin_key_that_somebody_guesses_is_refused_with_what_to_do(tmp_path: Path, key: str) -> None:
    """From the variable and from a file; and the key itself is not repeated."""
    path = tmp_path / "key"
    path.write_text(key + "\n")
    for environ in ({"TIERWAY_ADMIN_KEY": key}, {"TIERWAY_ADMIN_KEY_FILE": str(path)}):
        environment = Environment(environ)
        environment.secret("TIERWAY_ADMIN_KEY")
        (problem,) = environment.problems
        assert problem.key in environ and "16 characters" in problem.message and "openssl rand" in problem.message
        assert key not in str(problem)


@given(st.binary(min_size=16, max_size=48))
def test_an_admin_key_as_advised_is_taken(noise: bytes) -> None:
    """Whatever a generator gives: hexadecimal digits, base64, or words that one thought of."""
    random = hashlib.sha256(noise).digest()
    for key in (random.hex(), base64.b64encode(random).decode(), "the-admin-key-of-this-test"):
        environment = Environment({"TIERWAY_ADMIN_KEY": key})
        assert environment.secret("TIERWAY_ADMIN_KEY") is not None and environment.problems == []


@pytest.mark.parametrize("path", ["/nowhere/at/all", "/", "a\0b"])
def test_a_secret_file_that_is_not_there_is_a_problem(path: str) -> None:
    environment = Environment({"ANTHROPIC_API_KEY_FILE": path})
    assert environment.secret("ANTHROPIC_API_KEY") is None
    assert [each.message for each in environment.problems] == ["names a file that cannot be read"]


def test_a_secret_said_twice_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-file")
    environment = Environment({"A_KEY": "sk-1", "A_KEY_FILE": str(tmp_path / "key")})
    environment.secret("A_KEY")
    assert [each.message for each in environment.problems] == ["A_KEY is set as well; set one of them"]


@pytest.mark.parametrize("url", ["redis://:pw@h:6379/0", "rediss://h", "unix:///run/redis.sock"])
def test_a_store_is_named_by_its_url(url: str) -> None:
    environment = Environment({"REDIS_URL": url})
    assert environment.secret("REDIS_URL") is not None
    assert environment.problems == []


@pytest.mark.parametrize("url", ["h:6379", "http://h", "redis://", "unix://", "redis://h:pw", "redis://[::1"])
def test_a_store_that_cannot_be_reached_is_found_out_at_once(url: str) -> None:
    environment = Environment({"REDIS_URL": url})
    environment.secret("REDIS_URL")
    assert [each.key for each in environment.problems] == ["REDIS_URL"]


def test_secrets_that_the_file_names_are_known() -> None:
    environment = Environment({"TIERWAY_GROQ_KEY": "x", "TIERWAY_GROQ_KEY_FILE": "y"})
    environment.check_names(["TIERWAY_GROQ_KEY"])
    assert environment.problems == []


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/tierway"),
        ({"HOME": "/h"}, "/h/.local/state/tierway"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/h"}, "/h/.local/state/tierway"),
        ({"HOME": "/"}, "/var/lib/tierway"),
        ({}, "/var/lib/tierway"),
    ],
)
def test_state_is_kept_per_user(environ: dict[str, str], folder: str) -> None:
    assert default_data_dir(environ) == Path(folder)


@hypothesis(deadline=None)
@given(st.sampled_from(sorted(VARIABLES)), st.text(max_size=30))
def test_no_value_breaks_the_reader(name: str, raw: str) -> None:
    environment = Environment({name: raw})
    environment.value(name)
    environment.secret(name)
    assert all(each.key == name for each in environment.problems)
