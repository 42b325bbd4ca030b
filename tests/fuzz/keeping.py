"""Everything that is read again after it was kept: in the store, in journals, in files between two processes. Another
release wrote it, or a disk that was full, or somebody by hand."""

from __future__ import annotations

import zlib
from random import Random
from typing import Any, Final, cast

import orjson

from app.access.idempotency import Answer, Idempotency, asked_of
from app.access.keys import Keys
from app.config.load import load
from app.config.schema import Rollout
from app.core.caller import ANONYMOUS
from app.core.clock import SystemClock
from app.core.spending import CostCell, Counter, Lease
from app.gateway.audit import Audit
from app.gateway.rollback import Rollouts
from app.gateway.tuning import tuned
from app.gateway.versions import Versions
from app.learning import asks, decision, outcome
from app.learning.decisions import Decisions
from app.learning.explained import explained
from app.learning.success import Success
from app.routing.rollouts import experiment, started
from app.sessions.export import as_json, as_markdown
from app.sessions.said import Kept, read_kept, said, write_fields
from app.sessions.window import staying
from app.spend.entries import SETTLED, decode, encode, entry_of
from app.store.client import Store
from app.store.leases import OpenLeases
from tests.fuzz.mutating import in_bytes, in_json, in_lines
from tests.fuzz.parser import Parser
from tests.learning.records import record
from tests.sessions.talk import calls, result, turns

SETTINGS: Final = load({"OLLAMA_BASE_URL": "http://127.0.0.1:1"})
COUNTER: Final = Counter("global:*:day", "global", "day", "spend:g:2026-11-20", 1_000, 0, 1_800_000_000_000, 0)
LEASE: Final = Lease("lease-1", "req-1", "up/m", 5, (COUNTER,), "epoch-1")
ENTRIES: Final = [
    encode(entry_of("R", LEASE, 1)),
    encode(entry_of(SETTLED, LEASE, 2, 5, "settled", [CostCell("costs:2026-11-20", "cost|up/m", 5, 86_400)])),
]


class Fake:
    """A store that answers every call with the same."""

    def __init__(self, answer: Any, *others: Any) -> None:
        self._answers = [answer, *others]
        self.healthy = True

    async def call(self, *command: Any, again: bool = False) -> Any:
        return self._answers[0]

    async def run(self, *script: Any, again: bool = False) -> Any:
        return self._answers[0]


def store(answer: Any) -> Store:
    return cast(Store, Fake(answer))


def journal_line(data: bytes, dice: Random) -> None:
    for line in data.splitlines():
        entry = decode(line)
        if entry is not None:
            assert decode(encode(entry)) == entry


async def lease(data: bytes, dice: Random) -> None:
    """What cannot be read stays held; it must not keep the others from being settled."""
    row = [b"held", b"5", b"req-1", b"up/m", data, b"1", b'{"key":"k"}']
    if dice.random() < 0.5:
        row[dice.randrange(7)] = data
    leases = OpenLeases(cast(Store, Rows(row)))
    for found in await leases.all(10):
        found.lease("epoch-1")
        assert isinstance(found.about, dict)


class Rows(Fake):
    """One open lease, and its record."""

    async def call(self, *command: Any, again: bool = False) -> Any:
        return self._answers[0] if command[0] == "HMGET" else [b"lease-1", b"1800000000000"]


def session(data: bytes, dice: Random) -> None:
    """The entry, or another part of the session, is not what was written."""
    entries = [said(message, None, 1.0).data for message in (*turns(2), calls("c1"), result("c1"))]
    fields = list(write_fields(Kept(model="up/m", system=({"role": "system", "content": "x"},), turns=1)))
    about: list[bytes] = [each if isinstance(each, bytes) else each.encode() for each in fields]
    about += [b"born", b"1", b"version", b"2"]
    match dice.randrange(3):
        case 0:
            entries[dice.randrange(len(entries))] = data
        case 1:
            about[dice.choice((1, 3))] = data
        case _:
            entries.append(zlib.compress(data))
    kept = read_kept(about, entries)
    as_markdown("s", kept)
    as_json("s", kept)
    staying([each.message["role"] for each in kept.said], [1] * len(kept.said), 100)


async def answer(data: bytes, dice: Random) -> None:
    """Sealed, or changed since."""
    asked = asked_of(ANONYMOUS, b"key", "/v1/chat/completions", {}, b"{}")
    owner = dice.choice((b"owner", data[:20]))
    kept = Idempotency(store([b"answer", owner, data]))
    found = await kept.claim(asked)
    assert isinstance(found, Answer)


async def keys(data: bytes, dice: Random) -> None:
    made = Keys(store([b"key_1", data]), SystemClock())
    await made.refresh()
    for each in made.ring.records:
        each.model_dump_json()


async def decisions(data: bytes, dice: Random) -> None:
    rest = [b"outcome:finish", dice.choice((data, OUTCOMES[0])), b"text:reason", data]
    kept = Decisions(store([b"decision", data, *rest]), cast(Success, None), cast(Any, None), SystemClock())
    for row in await kept.training("2026-11-20"):
        outcome.evidence(row.outcomes)
    found = await kept.get("req-1")
    orjson.dumps(explained(found))
    outcome.evidence(found.outcomes)
    if found.decision.features:
        try:
            decision.unpack_features(found.decision.features)
        except ValueError:
            pass


def earlier(data: bytes, dice: Random) -> None:
    found = asks.read_earlier(data, "place")
    if found is not None:
        asks.likeness(found.ask.vector, found.ask.vector[:1])
        asks.judged(found.ask, found, found)


async def versions(data: bytes, dice: Random) -> None:
    """Flags and settings that were changed at run time: what cannot be used does not count."""
    kept = Versions(store([b"3", data]), cast(Audit, None), SystemClock())
    for version in await kept.list():
        tuned(SETTINGS, version.settings)


async def audit(data: bytes, dice: Random) -> None:
    orjson.dumps(await Audit(store([data, b"{}"]), SystemClock()).entries())


async def rollouts(data: bytes, dice: Random) -> None:
    made = Rollouts(store([b"trial", data]), cast(Audit, None), lambda name, arm, share: None)
    await made.standings()


OUTCOMES: Final = [decision.write_outcome(each) for each in outcome.of_record(record())]
DECISIONS: Final = [decision.write(made) for each in (record(),) if (made := decision.of_record(each))]
STORED_KEYS: Final = [
    orjson.dumps(
        {"name": "x", "id": "key_1", "created_at": 1, "sha256": "0" * 64, "budgets": {"day": 5.0}, "models": ["a*"]}
    ),
]
STORED_VERSIONS: Final = [
    orjson.dumps(
        {
            "number": 3,
            "at": 1.0,
            "flags": {"STREAMING": {"value": 0.5, "over": 1.0}},
            "settings": {
                "strategy": "cost",
                "breaker": {"failures": 3, "open": 10},
                "max_concurrency": 5,
                "cloud": "never",
            },
            "file": {"print": "abc", "text": "{}"},
        }
    ),
]
TRIAL: Final = Rollout.model_validate(
    {"kind": "canary", "share": "10%", "to": {"strategy": "quality"}, "steps": ["5%"]}
)
STORED_ROLLOUTS: Final = [orjson.dumps(started(experiment("trial", TRIAL), None, 1.0, "said so", None))]
AUDITS: Final = [b'{"at":1.0,"actor":"admin","action":"flag.put","subject":"STREAMING","reason":""}']
EARLIER: Final = [orjson.dumps({"r": "req-1", "d": "abc", "n": "1 2", "v": "AQID"})]
SAID: Final = [said(each, "up/m", 1.0).data for each in (*turns(1), calls("c1", "c2"), result("c1"))]
ABOUT: Final = [fields for fields in write_fields(Kept(model="up/m", turns=1)) if isinstance(fields, bytes)]
SEALED: Final = [b'[200,[["content-type","application/json"]]]\n{}', b""]

PARSERS: Final = (
    Parser("journal lines", ENTRIES, in_lines, journal_line),
    Parser("stored leases", [orjson.dumps([tuple(COUNTER)]), b"5"], in_json, lease),
    Parser("stored sessions", [*SAID, *ABOUT], in_json, session),
    Parser("sealed answers", SEALED, in_bytes, answer),
    Parser("stored keys", STORED_KEYS, in_json, keys),
    Parser("stored decisions", DECISIONS, in_json, decisions),
    Parser("stored asks", EARLIER, in_json, earlier),
    Parser("stored versions", STORED_VERSIONS, in_json, versions),
    Parser("stored rollouts", STORED_ROLLOUTS, in_json, rollouts),
    Parser("audit entries", AUDITS, in_json, audit),
)
