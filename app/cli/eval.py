"""`tierway eval`: measures what was learned, and says no where it is not good enough."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import orjson

from app.cli.options import JSON_OPTION, fail
from app.lab import card
from app.lab.card import figure, shown
from app.lab.evaluate import evaluate, judge
from app.lab.plots import calibration_lines, calibration_png
from app.lab.rows import DataUnusable, read_rows
from app.lab.train import built_in_embedder, unseen
from app.routing.classifier import SHIPPED, Classifier
from app.routing.weights import WeightsUnusable, read_weights


@click.group(name="eval")
def evaluation() -> None:
    """Measure what was learned from data.

    \b
    Example:
      tierway eval router --data heldout.jsonl.gz
    """


@evaluation.command()
@click.option(
    "--data",
    required=True,
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Labelled JSON lines, or a folder of them; may be repeated.",
)
@click.option("--weights", type=click.Path(dir_okay=False, path_type=Path), default=SHIPPED, help="Else what ships.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the resampling.")
@click.option("--png", type=click.Path(dir_okay=False, path_type=Path), help="Write the calibration plot here.")
@click.option("--model-card", is_flag=True, help="Print the model card instead of the figures.")
@JSON_OPTION
def router(
    data: tuple[Path, ...],
    weights: Path,
    seed: int,
    png: Path | None,
    model_card: bool,
    as_data: bool,
) -> None:
    """Measure the router on labelled rows. Exits with 1 if it does not beat the cost-matched shuffled control.

    A row has an id, a prompt, and either suite, weak and strong (how well a weak and a strong model answered, 0 to 1),
    or source and tier, or source, kind and task.

    Rows that the weights were fitted on are left out. If those are most, the figures noted at training are shown,
    which are of a fit without the rows it was measured on.

    \b
    Example:
      tierway eval router --data heldout.jsonl.gz --png calibration.png
    """
    try:
        found = read_weights(weights)
        classifier = Classifier(found)
        rows = read_rows(data)
        fresh = unseen(rows, found)
        click.echo(f"{len(rows)} rows, {len(rows) - len(fresh)} of them used in training and left out", err=True)
        report = found.notes.get("figures")
        if len(fresh) >= len(rows) / 2:
            report = evaluate(judge(classifier, built_in_embedder(), fresh), classifier.version, seed)
    except (DataUnusable, WeightsUnusable, ValueError) as error:
        fail(str(error), status=2)
    if report is None:
        fail("These are the rows it was trained on, and the weights hold no figures of their own.", status=2)
    if png is not None and "tier" in report:
        png.write_bytes(calibration_png(report["tier"]["calibration"]))
    click.echo(_shown(report, classifier.notes, model_card, as_data))
    if not report["better"]:
        click.echo("The router does not beat the cost-matched shuffled control.", err=True)
        sys.exit(1)


def _shown(report: dict[str, Any], notes: Mapping[str, Any], as_card: bool, as_data: bool) -> str:
    if as_card:
        return card.model_card(report, notes)
    if as_data:
        return orjson.dumps(report, option=orjson.OPT_INDENT_2).decode()
    return "\n".join(_lines(report))


def _lines(report: dict[str, Any]) -> Iterator[str]:
    """The figures for people."""
    yield f"figures {report['version']}, abstained on {report['abstained']:.1%}"
    if "routing" in report:
        yield f"\n{'suite':<15} {'rows':>5}  {'APGR [95 %]':<21} {'CPT50':>6} {'CPT80':>6} {'length':>7} {'oracle':>7}"
        for suite, found in report["routing"]["suites"].items():
            yield (
                f"{suite:<15} {found['apgr']['rows']:>5}  {figure(found['apgr'])} {shown(found['cpt50'], '.1%'):>6}"
                f" {shown(found['cpt80'], '.1%'):>6} {shown(found['apgr_length']):>7}"
                f" {shown(found['apgr_ideal'], '.2f'):>7}"
            )
        yield _control(report["routing"]["control"])
    if "tier" in report:
        yield f"\ntier: two-way {figure(report['tier']['two_way'])}, AUC {figure(report['tier']['auc'])}"
        yield f"      exact {figure(report['tier']['accuracy'])}"
        yield from calibration_lines(report["tier"]["calibration"])
        yield _control(report["tier"]["control"])
    if "task" in report:
        yield f"\ntask: {figure(report['task']['accuracy'])}"
        for name, found in {**report["task"]["kinds"], **report["task"]["tasks"]}.items():
            yield f"  {name:<18} {found['rows']:>5}  {figure(found)}"
        yield _control(report["task"]["control"])


def _control(control: Mapping[str, Any]) -> str:
    word = "better" if control["better"] else "NOT better"
    return (
        f"cost-matched shuffle: {control['router']:.3f} against {control['control']:.3f},"
        f" difference [{control['low']:.3f}, {control['high']:.3f}]: {word}"
    )
