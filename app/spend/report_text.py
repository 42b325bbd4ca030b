"""A report as Markdown, as CSV, and as lines for a terminal. Pure; what it says is `report`'s affair."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from app.spend.cells import clean
from app.spend.figures import Figures, Percentiles
from app.spend.goals import Judged
from app.spend.report import Day, Report

UNKNOWN: Final = "unknown"
BAR: Final = 48
FORMULA: Final = ("=", "+", "-", "@")
"""What makes a spreadsheet take a name for a formula."""
NO_MODEL: Final = "(no model)"
"""Of requests that ended before one was asked."""
AMOUNTS: Final = ("billed USD", "imputed USD", "saved USD", "unpriced")
NAMES: Final = {"days": "day", "models": "model", "machines": "upstream", "all_time": "model", "goals": "goal"}


class Section(NamedTuple):
    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


# --- numbers --------------------------------------------------------------------------------------------------------


def money(usd: float | None) -> str:
    if usd is None:
        return UNKNOWN
    return f"{usd:,.2f}" if abs(usd) >= 100 or usd == 0 else f"{usd:,.6f}"


def percent(share: float | None) -> str:
    return UNKNOWN if share is None else f"{share:.1%}"


def seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.4g}"


def _billed(part: Figures) -> str:
    """What was billed; more than that, where something has no price."""
    return f"at least {money(part.cost_usd)}" if part.unpriced and part.cost_usd is not None else money(part.cost_usd)


# --- what is said ---------------------------------------------------------------------------------------------------


def sections(report: Report) -> Iterator[Section]:
    """Everything but the days."""
    yield Section("Summary", ("", "", ""), list(_summary(report)))
    if report.goals:
        yield Section(f"Goals: {report.verdict}", ("goal", "stated", "measured", "verdict"), _goals(report.goals))
    if report.investment is not None:
        yield Section("Investment", ("", "", ""), list(_investment(report)))
    head = (
        "",
        "kind",
        "answers",
        "share",
        "failed attempts",
        *_columns("s"),
        *_columns("first s"),
        "quality",
        "scored",
    )
    yield Section("Local and paid", head, list(_kinds(report)))
    yield Section(
        "Models",
        (*("model", "answers", "refused", "failed", "tokens in", "tokens out"), *AMOUNTS),
        [(each.model or NO_MODEL, *_counts(each), *_amounts(each)) for each in report.models],
    )
    if report.machines:
        yield Section(
            "Machines", ("upstream", "USD an hour", "busy hours", "imputed USD", "all hours USD"), _machines(report)
        )
    if report.all_time:
        yield Section(
            "Since the beginning",
            ("model", "answers", "tokens in", "tokens out", "billed USD"),
            [
                (e.model or NO_MODEL, str(e.answers), str(e.tokens_in), str(e.tokens_out), money(e.cost_usd))
                for e in report.all_time
            ],
        )


def _summary(report: Report) -> Iterator[tuple[str, str, str]]:
    total = report.total
    ended = f"{total.answers} answered, {total.refused} refused, {total.failed} failed, {total.left} left by clients"
    yield "requests", str(total.requests), ended
    yield "availability", percent(report.availability), "answers over answers and failures"
    yield "answered locally", percent(report.local_share), _counted(total.local_answers, "answer")
    estimated = f"{_counted(total.estimated, 'answer')} with estimated tokens"
    yield "tokens", f"{total.tokens_in} in, {total.tokens_out} out", estimated
    yield "billed, USD", _billed(total), f"{_counted(total.unpriced, 'attempt')} without a known price"
    yield "imputed, USD", money(total.imputed_usd), _imputed(report)
    yield "per request, USD", money(report.cost_usd_per_request), "billed and imputed, over the answers"
    yield "a month, USD", money(report.cost_usd_per_month), f"at the rate of {report.observed_days:.1f} days"
    yield "dearest, USD", money(total.dearest_usd), "what the dearest capable model would have taken"
    yield "saved, USD", money(total.savings_usd), f"net of billed and imputed: {percent(report.savings_share)}"
    yield "coverage", percent(total.coverage), f"{_counted(total.compared, 'answer')} could be compared"
    yield (
        "fallbacks",
        percent(report.fallback_share),
        f"{_counted(total.fallbacks, 'answer')}, {money(total.fallback_cost_usd)} USD",
    )
    yield "lost, USD", money(total.lost_usd), "billed for attempts that came to nothing"


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _imputed(report: Report) -> str:
    free = ", ".join(each.upstream for each in report.machines if each.usd_per_hour is None)
    return f"the machines' time, but for {free}: no price an hour is stated" if free else "the machines' time"


def _goals(goals: Iterable[Judged]) -> list[tuple[str, ...]]:
    return [
        (each.goal, f"at {'least' if each.at_least else 'most'} {each.bound:g}", _number(each.measured), each.verdict)
        for each in goals
    ]


def _investment(report: Report) -> Iterator[tuple[str, str, str]]:
    made = report.investment
    assert made is not None, "asked only where there is one"
    yield "invested, USD", money(made.investment_usd), made.says
    yield "saved a month, USD", money(made.savings_usd_per_month), f"{percent(report.total.coverage)} of the answers"
    yield "net a month, USD", money(made.net_usd_per_month), f"less {money(made.running_usd_per_month)} to run it"
    yield "return a year", percent(made.return_per_year), "net savings over the investment"


def _columns(what: str) -> tuple[str, ...]:
    return tuple(f"{what} {name}" for name in Percentiles.model_fields)


def _kinds(report: Report) -> Iterator[tuple[str, ...]]:
    for each in report.kinds:
        times = (seconds(value) for part in (each.seconds, each.first_token_seconds) for _, value in part)
        counts = str(each.answers), percent(each.share), str(each.failed_attempts)
        yield (each.place, each.kind or "all", *counts, *times, _number(each.quality), f"{each.scored:.1f}")


def _counts(part: Figures) -> tuple[str, ...]:
    return tuple(map(str, (part.answers, part.refused, part.failed, part.tokens_in, part.tokens_out)))


def _amounts(part: Figures) -> tuple[str, str, str, str]:
    saved = money(part.savings_usd) if part.answers or part.compared else "-"
    return _billed(part), money(part.imputed_usd), saved, str(part.unpriced)


def _machines(report: Report) -> list[tuple[str, ...]]:
    return [
        (
            each.upstream,
            "not stated" if each.usd_per_hour is None else money(each.usd_per_hour),
            f"{each.busy_hours:.2f}",
            money(each.imputed_usd),
            money(each.whole_span_usd),
        )
        for each in report.machines
    ]


def _days(report: Report) -> Section:
    head = ("day", "requests", "answers", *AMOUNTS)
    rows = [(str(each.day), str(each.requests), str(each.answers), *_amounts(each)) for each in report.days]
    return Section("Days", head, rows)


def _title(report: Report) -> str:
    return f"Report on {report.first_day} to {report.last_day} (UTC)"


# --- Markdown -------------------------------------------------------------------------------------------------------


def markdown(report: Report) -> str:
    lines = [f"# {_title(report)}"]
    for title, head, rows in (*sections(report), _days(report)):
        lines += ["", f"## {title}", "", _row(head), _row("---" for _ in head), *map(_row, rows)]
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |"


def _escaped(cell: str) -> str:
    """Names come from upstreams."""
    return clean(cell).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")


# --- CSV ------------------------------------------------------------------------------------------------------------


def csv_of(report: Report) -> str:
    """Every number of the report is a line: which part, of whom, which measure, its value; unknown is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(("part", "name", "measure", "value"))
    for part, name, values in _parts(report):
        for measure, value in _flat(values):
            writer.writerow((part, _safe(name), measure, _written(value)))
    return text.getvalue()


def _parts(report: Report) -> Iterator[tuple[str, str, dict[str, Any]]]:
    whole = report.model_dump(mode="json")
    yield "report", "", {name: value for name, value in whole.items() if not isinstance(value, dict | list)}
    for part, value in whole.items():
        if isinstance(value, dict):
            yield part, "", value
        elif part == "kinds":
            for each in value:
                yield part, f"{each.pop('place')}/{each.pop('kind') or 'all'}", each
        elif isinstance(value, list):
            for each in value:
                yield part, each.pop(NAMES[part]) or "", each


def _flat(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for measure, value in values.items():
        if isinstance(value, dict):
            yield from ((f"{measure}_{name}", inner) for name, inner in value.items())
        else:
            yield measure, value


def _safe(name: str) -> str:
    return f"'{name}" if name.startswith(FORMULA) else name


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


# --- a terminal -----------------------------------------------------------------------------------------------------


def terminal(report: Report) -> str:
    lines = [_title(report)]
    for title, head, rows in sections(report):
        lines += ["", title, *_table(head, rows)]
    return "\n".join((*lines, "", *chart(report.days)))


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    whole = [tuple(map(clean, row)) for row in ((head, *rows) if any(head) else rows)]
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    for row in whole:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def chart(days: Iterable[Day]) -> Iterator[str]:
    """One bar a day: billed and imputed."""
    spent = [(each, each.cost_usd or 0.0, each.imputed_usd) for each in days]
    most = max((billed + imputed for _, billed, imputed in spent), default=0.0)
    yield "USD a day: # billed, + imputed, ? and what has no known price"
    for day, billed, imputed in spent:
        bars = f"{_bar('#', billed, most)}{_bar('+', imputed, most)}{'?' if day.unpriced else ''}"
        yield f"  {day.day}  {money(billed + imputed):>12}  {bars}".rstrip()


def _bar(sign: str, amount: float, most: float) -> str:
    return sign * max(1, round(BAR * amount / most)) if amount > 0 else ""
