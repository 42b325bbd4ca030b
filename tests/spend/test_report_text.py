"""Without these a report says on paper what it does not say in figures."""

from __future__ import annotations

import csv
import io
import re
from datetime import date, timedelta

import pytest

from app.spend.figures import figures
from app.spend.goals import goals_of
from app.spend.report import Day, Report, Wanted, report
from app.spend.report_text import chart, csv_of, markdown, money, percent, seconds, terminal
from app.spend.span import span_of
from app.spend.sums import Sums
from app.store.client import Store
from tests.spend.test_report import busy
from tests.spend.worth import NOON, attempt, record


@pytest.fixture
async def found(store: Store) -> Report:
    """With everything a report may have."""
    service, _ = await busy(store)
    service.note(record("acme/=a|b<c", attempts=(attempt("acme/=a|b<c", cost_nano=None),)))
    return await report(service, Wanted(span_of(NOON), goals_of(["local_share=0.6", "latency_p95=3"]), 0.01, 0.00001))


def test_numbers_for_people() -> None:
    assert [money(each) for each in (None, 0.0, 0.0000075, 12.5, 1234.567, -250.0)] == [
        "unknown",
        "0.00",
        "0.000008",
        "12.500000",
        "1,234.57",
        "-250.00",
    ]
    assert (percent(None), percent(0.754)) == ("unknown", "75.4%")
    assert (seconds(None), seconds(1.23456)) == ("-", "1.23")


async def test_a_terminal_has_every_part(found: Report) -> None:
    lines = terminal(found).splitlines()
    assert lines[0] == "Report on 2024-09-28 to 2024-10-04 (UTC)"
    titles = [line for line in lines[1:] if line and line[0] != " "]
    assert titles == [
        "Summary",
        "Goals: missed",
        "Investment",
        "Local and paid",
        "Models",
        "Machines",
        "Since the beginning",
        "USD a day: # billed, + imputed, ? and what has no known price",
    ]
    assert any(re.match(r"  billed, USD +at least 0.000008 +1 attempt without a known price$", line) for line in lines)
    assert any(re.match(r"  latency_p95 +at most 3 +\d.+ missed$", line) for line in lines)
    assert any(re.match(r"  local +vllm +3 +60.0%", line) for line in lines)
    assert any(re.match(r"  per request, USD +unknown +", line) for line in lines)


async def test_requests_that_no_model_answered_say_so(found: Report) -> None:
    """ "none" in a column of models is read as a name, and savings of nothing are not unknown."""
    lines = [line.split() for line in terminal(found).splitlines()]
    row = next(line for line in lines if line[:2] == ["(no", "model)"])
    assert row[2:5] == ["0", "0", "1"] and row[-2:] == ["-", "0"]
    assert any("0 refused, 1 failed, 0 left by clients" in line for line in terminal(found).splitlines())


async def test_a_machine_without_a_price_is_named_beside_what_it_is_missing_in(found: Report) -> None:
    """Its time is not free; nobody said what it costs."""
    free = [each.model_copy(update={"usd_per_hour": None, "whole_span_usd": None}) for each in found.machines]
    text = terminal(found.model_copy(update={"machines": free}))
    assert "the machines' time, but for gpu: no price an hour is stated" in text
    assert re.search(r"  gpu +not stated .* unknown", text)
    assert "but for" not in terminal(found)


async def test_what_there_is_none_of_is_left_out(found: Report) -> None:
    bare = found.model_copy(update={"goals": [], "investment": None, "machines": [], "all_time": []})
    text = markdown(bare)
    assert not any(word in text for word in ("Goals", "Investment", "Machines", "Since the beginning"))
    assert "## Models" in text and "## Days" in text


async def test_markdown_tables_hold_whatever_a_model_is_called(found: Report) -> None:
    text = markdown(found)
    assert text.startswith("# Report on 2024-09-28 to 2024-10-04 (UTC)\n")
    assert r"| acme/=a\|b&lt;c |" in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 8
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1


async def test_csv_has_every_number_of_the_report(found: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_of(found))))
    values = {(row["part"], row["name"], row["measure"]): row["value"] for row in rows}
    assert len(values) == len(rows)
    assert values["report", "", "first_day"] == "2024-09-28"
    assert values["report", "", "cost_usd_per_request"] == ""
    assert float(values["total", "", "cost_usd"]) == found.total.cost_usd
    assert values["days", "2024-10-03", "requests"] == "2"
    assert values["models", "claude/opus", "fallbacks"] == "1"
    assert values["models", "", "failed"] == "1"
    assert float(values["kinds", "local/vllm", "seconds_p95"]) == found.kinds[1].seconds.p95
    assert values["kinds", "paid/all", "quality"] == ""
    assert float(values["machines", "gpu", "usd_per_hour"]) == 3.6
    assert (values["goals", "latency_p95", "verdict"], values["goals", "latency_p95", "at_least"]) == (
        "missed",
        "false",
    )
    assert values["goals", "local_share", "at_least"] == "true"
    assert values["investment", "", "investment_usd"] == "0.01"
    assert values["all_time", "gpu/qwen", "answers"] == "3"


async def test_a_name_is_no_formula_for_a_spreadsheet(found: Report) -> None:
    bad = found.model_copy(update={"models": [found.models[0].model_copy(update={"model": "=HYPERLINK(1)"})]})
    rows = list(csv.reader(io.StringIO(csv_of(bad))))
    assert {row[1] for row in rows if row[0] == "models"} == {"'=HYPERLINK(1)"}


def test_a_bar_for_each_day() -> None:
    def day(number: int, **sums: int) -> Day:
        return Day(day=date(2024, 10, 1) + timedelta(days=number), **figures(Sums(sums)).model_dump())

    days = [
        day(0, cost=24 * 10**9),
        day(1),
        day(2, cost=12 * 10**9, imputed=6 * 10**9),
        day(3, unpriced=1),
        day(4, cost=1),
    ]
    lines = list(chart(days))[1:]
    assert lines[0] == f"  2024-10-01     24.000000  {'#' * 48}"
    assert lines[1] == "  2024-10-02          0.00"
    assert lines[2] == f"  2024-10-03     18.000000  {'#' * 24}{'+' * 12}"
    assert lines[3] == "  2024-10-04          0.00  ?"
    assert lines[4] == "  2024-10-05      0.000000  #"
    assert list(chart([])) == ["USD a day: # billed, + imputed, ? and what has no known price"]
