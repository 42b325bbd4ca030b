"""`tierway ledger`: compares the store's counters of spend with the gateways' journals, restores them from those, or
begins with empty ones; directly in the store."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import orjson

from app.cli.options import CONFIG_OPTION, JSON_OPTION, fail, run, settings_of
from app.config.settings import Settings
from app.core.money import NANO_PER_USD
from app.spend.entries import Entry
from app.spend.epochs import REBUILT, RESET, new_epoch
from app.spend.journal import files_of, place_of, read
from app.spend.lines import Tally
from app.spend.outbox import left_in
from app.spend.rebuild import (
    Books,
    Difference,
    Kept,
    Look,
    Open,
    correctable,
    costs_of,
    differences,
    expected,
)
from app.store.ledger import OPEN_MS
from app.store.opening import open_store
from app.store.restoring import Amounts, LedgerKeys, Unsettled, Written, counts_spend, sums_costs
from app.store.settling import KEPT_MS

T = TypeVar("T")

JOURNAL_OPTION: Final = click.option(
    "--journal",
    "folders",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A data folder, or the journal files of one; may be repeated, one for each machine. Else TIERWAY_DATA_DIR.",
)
LINE: Final = "{:<44} {:<5} {:>20} {:>20}"
PATIENT_SECONDS: Final = 10.0
LAG_SECONDS: Final = (0.0, 1.0)
"""How long gateways are given to write down what the store knew already when it was looked at."""


@click.group(short_help="Check, restore or empty the books of what was spent.")
def ledger() -> None:
    """The books of what was spent: the store's counters, and the journals of all gateways that prove them.

    \b
    Example:
      tierway ledger verify
      tierway ledger rebuild --journal /mnt/gateway-1 --journal /mnt/gateway-2
    """


@ledger.command(short_help="Compare the counters with the journals.")
@CONFIG_OPTION
@JOURNAL_OPTION
@JSON_OPTION
def verify(config_path: Path | None, folders: tuple[Path, ...], as_data: bool) -> None:
    """Compare the store's counters with what the journals say they should hold. Gateways may go on meanwhile. Give the
    journals of all gateways of this store. Exit status 1: there is a difference.

    \b
    Example:
      tierway ledger verify --journal /mnt/gateway-1 --journal /mnt/gateway-2
    """
    settings = settings_of(config_path)
    places = _places(settings, folders)
    found = _with_keys(settings, lambda keys: _verify(keys, places, settings.budget.on_crash))
    click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2) if as_data else _as_table(found))
    if not found["ok"]:
        raise SystemExit(1)


async def _verify(keys: LedgerKeys, places: Sequence[Path], on_crash: str) -> dict[str, Any]:
    epoch = await keys.epoch()
    if not epoch:
        fail("The store holds no books of spend: it is new, or was emptied. See tierway ledger rebuild --help.")
    reading = _Reading(places)
    before = reading.again().of_epoch(epoch)
    opened = await keys.open_leases()
    counters = await keys.counters()
    look = Look(
        await keys.now_ms(),
        {key: Kept(*counted) for key, counted in counters.items()},
        {id: Open(*lease) for id, lease in opened.items()},
        {id: Open(*lease) for id, lease in (await keys.open_leases()).items()},
        {entry.lease for place in places for entry in left_in(place)},
    )
    for seconds in LAG_SECONDS:
        await asyncio.sleep(seconds)
        books = reading.again().of_epoch(epoch)
        found = differences(before, books, look, on_crash)
        if not found:
            break
    unknown = sum(id not in books for id in look.open_before)
    return {
        "ok": not found,
        "epoch": epoch,
        "leases": len(books),
        "open": len(look.open_before),
        "open_without_entry": unknown,
        "waiting": len(look.waiting),
        "counters": len(look.counters),
        **reading.told(),
        "differences": [_as_json(each) for each in found],
    }


def _as_json(each: Difference) -> dict[str, Any]:
    return {**each._asdict(), "id": each.id or None}


def _as_table(found: Mapping[str, Any]) -> str:
    said = [
        f"{found['leases']} leases in {found['files']} journal files, {found['counters']} counters,"
        f" {found['open']} leases open, {found['waiting']} settlements waiting for the store."
    ]
    if odd := ", ".join(f"{found[what]} {what}" for what in ("torn", "foreign", "damaged") if found[what]):
        said.append(f"Not read in those files: {odd}.")
    if found["ok"]:
        return "\n".join([*said, "The counters hold what the journals say."])
    said.append(LINE.format("counter", "", "journals say", "store says"))
    for each in found["differences"]:
        low, high = _usd(each["low"]), _usd(each["high"])
        wanted = low if low == high else f"{low}..{high}"
        said.append(LINE.format(each["id"] or each["key"], each["what"], wanted, _usd(each["found"])))
    return "\n".join([*said, "Amounts are in USD. Were the journals of all gateways given?"])


@ledger.command(short_help="Restore the counters of an emptied store from the journals.")
@CONFIG_OPTION
@JOURNAL_OPTION
@click.option("--dry-run", is_flag=True, help="Only say what would be written.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Also where the store holds spend: counters in the journals are replaced.")
def rebuild(config_path: Path | None, folders: tuple[Path, ...], dry_run: bool, yes: bool, force: bool) -> None:
    """Restore the counters of an emptied store from the journals of all its gateways. Gateways may run: they lend
    nothing until it is done, and go on by themselves then.

    \b
    Example:
      tierway ledger rebuild --journal /mnt/gateway-1 --journal /mnt/gateway-2 --dry-run
    """
    settings = settings_of(config_path)
    places = _places(settings, folders)
    books = _Reading(places, with_cells=True).again()
    waiting = [entry for place in places for entry in left_in(place)]
    for entry in waiting:
        books.add(entry)
    if not books.leases:
        fail("There is not one entry in these journals, so nothing can be restored.")

    async def work(keys: LedgerKeys) -> None:
        plan = await _plan(keys, books, settings.budget.on_crash, force)
        click.echo(plan.said)
        if dry_run:
            return
        if not yes:
            click.confirm("Write this?", abort=True)
        await plan.write(keys, waiting)
        click.echo(f"The books are restored; the epoch is {plan.epoch}.")

    _with_keys(settings, work)


class _Plan:
    """What a rebuild writes."""

    def __init__(self, leases: Mapping[str, Entry], epoch: str, now_ms: int, on_crash: str, with_costs: bool) -> None:
        sums = expected(leases, on_crash)
        self.epoch = epoch
        self.counters = [
            Written(each.counter, each.low, 0 if not each.counter.keep_ms else each.over_ms)
            for each in sums.values()
            if each.over_ms + (KEPT_MS if each.counter.ends_ms else 0) > now_ms
        ]
        self.unsettled = [
            Unsettled(
                entry.lease, entry.held_nano, charged, [(cell.key, cell.field, cell.amount) for cell in entry.cells]
            )
            for entry, charged in correctable(leases, on_crash)
            if entry.at_ms + OPEN_MS > now_ms
        ]
        self.costs = [
            Amounts(key, costs.fields, costs.over_ms)
            for key, costs in (costs_of(leases) if with_costs else {}).items()
            if not costs.over_ms or costs.over_ms > now_ms
        ]
        charged = sum(lease.charged_nano for lease in self.unsettled)
        self.said = (
            f"{len(leases)} leases make {len(self.counters)} counters and {len(self.costs)} days of costs;"
            f" {len(self.unsettled)} leases were never settled and are charged {_usd(charged)} USD."
        )

    async def write(self, keys: LedgerKeys, waiting: Iterable[Entry]) -> None:
        """`waiting` settlements are in the sums already, and must not be taken again."""
        counted = [Unsettled(each.lease, each.held_nano, each.amount_nano, final=each.final) for each in waiting]
        leases = [*self.unsettled, *counted]
        total = len(self.counters) + len(leases) + len(self.costs)
        await keys.end()
        await keys.clear()
        with click.progressbar(length=total, label="Writing", file=sys.stderr) as bar:
            await keys.write(self.counters, leases, self.costs, bar.update)
        await keys.begin(self.epoch)


async def _plan(keys: LedgerKeys, books: Books, on_crash: str, force: bool) -> _Plan:
    epoch = await keys.epoch()
    spent = any(each.used_nano or each.held_nano for each in (await keys.counters()).values())
    if epoch and spent and not force:
        fail(
            "The store holds spend, so it was not emptied: nothing is written. tierway ledger verify compares it with"
            " the journals; with --force its counters are replaced by what they say."
        )
    latest = max(books.leases.values(), key=lambda entry: entry.at_ms).epoch
    known = {entry.epoch for entry in books.leases.values()}  # an old copy may have been before a reset
    leases = books.of_epoch(epoch if epoch.startswith(RESET) and epoch not in known else latest)
    return _Plan(leases, new_epoch(REBUILT), await keys.now_ms(), on_crash, with_costs=not spent)


@ledger.command(short_help="Begin with empty counters.")
@CONFIG_OPTION
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(config_path: Path | None, yes: bool) -> None:
    """Begin with empty counters: nothing was spent so far, in any period. Gateways go on at once, and what runs now is
    not counted.

    \b
    Example:
      tierway ledger reset --yes
    """
    settings = settings_of(config_path)
    if not yes:
        click.confirm("All budgets begin anew, as if nothing had been spent. Empty the counters?", abort=True)

    async def work(keys: LedgerKeys) -> None:
        await keys.end()
        gone = await keys.clear()
        epoch = new_epoch(RESET)
        await keys.begin(epoch)
        click.echo(f"{gone} counters and leases are removed; the epoch is {epoch}.")

    _with_keys(settings, work)


class _Reading:
    """The journals of some folders. Reading them again reads only what changed."""

    def __init__(self, places: Sequence[Path], *, with_cells: bool = False) -> None:
        self._places = places
        self._books = Books(with_cells=with_cells)
        self._tallies: dict[Path, Tally] = {}
        self._sizes: dict[Path, int] = {}

    def again(self) -> Books:
        files = [path for place in self._places for path in files_of(place)]
        if not files:
            fail(f"There are no journal files in {', '.join(map(str, self._places))}.")
        changed = [path for path in files if (size := _size(path)) is None or size != self._sizes.get(path)]
        with click.progressbar(changed, label="Reading", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
            for path in bar:
                self._read(path)
        return self._books

    def _read(self, path: Path) -> None:
        self._sizes[path] = _size(path) or 0
        tally = self._tallies[path] = Tally()
        try:
            for entry in read(path, tally):
                if _is_ours(entry):
                    self._books.add(entry)
                else:
                    tally.foreign += 1
        except OSError as error:
            fail(f"{path} cannot be read: {error.strerror or error}")

    def told(self) -> dict[str, int]:
        tallies = self._tallies.values()
        return {
            what: sum(getattr(tally, what) for tally in tallies) for what in ("files", "torn", "foreign", "damaged")
        }


def _size(path: Path) -> int | None:
    """None for one that is gone."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _is_ours(entry: Entry) -> bool:
    """What names other keys than ours must not be written to the store."""
    return all(counts_spend(each.key) for each in entry.counters) and all(sums_costs(each.key) for each in entry.cells)


def _usd(nano: int) -> str:
    return f"{nano // NANO_PER_USD}.{nano % NANO_PER_USD:09}" if nano >= 0 else f"-{_usd(-nano)}"


def _places(settings: Settings, folders: Iterable[Path]) -> list[Path]:
    return [place_of(folder) for folder in (tuple(folders) or (settings.data_dir,))]


def _with_keys(settings: Settings, work: Callable[[LedgerKeys], Coroutine[Any, Any, T]]) -> T:
    url = None if settings.redis_url is None else settings.redis_url.get_secret_value()

    async def with_store() -> T:
        async with open_store(url, settings.data_dir, timeout=PATIENT_SECONDS) as store:
            return await work(LedgerKeys(store))

    return run(with_store())
