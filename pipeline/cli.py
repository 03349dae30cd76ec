"""The command line: arguments in, one call each, words and an exit code out.

Owns: names and help of commands and flags, exit codes (0 done, 1 failed, 2 the user's mistake,
130 interrupted). Refuses: everything else.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.config import SweepConfig, SweepPaths
from pipeline.errors import ConfigError, SweepError, UserError

app = typer.Typer(
    name="gansweep",
    help="Search hyper-parameters of GANs on your images; register the best generator in MLflow.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
_WIDTH = None if sys.stdout.isatty() else 160  # a log or a pipe wraps nothing
out_console = Console(width=_WIDTH, soft_wrap=True, highlight=False)
err_console = Console(stderr=True, soft_wrap=True, highlight=False)

_DEFAULTS = SweepConfig()
_UNLIMITED = 100_000

Model = Annotated[
    str, typer.Argument(help="models:/NAME@ALIAS, models:/NAME/VERSION, or a sweep's folder (its best).")
]
Tracking = Annotated[
    str, typer.Option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", help="MLflow store or server.")
]
Trials = Annotated[int | None, typer.Option(min=1, help="Trials to run (40; no limit with a time budget).")]
TimeBudget = Annotated[str, typer.Option(help="Stop searching after e.g. 90s, 10m, 8h, 2d.")]
GpuHours = Annotated[float | None, typer.Option(min=0.0, help="Stop searching after this many GPU hours.")]
Concurrency = Annotated[int | None, typer.Option(min=0, help="Trials at a time (what the machine allows).")]
Promote = Annotated[
    str, typer.Option(help="How far a new version may rise by itself: never, candidate or champion.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only.")]


@app.command()
def run(
    space: Annotated[str, typer.Option(help="A space: TOML file or shipped name.")] = "mnist5k",
    data: Annotated[
        str, typer.Option(help="mnist5k, digits, cifar10, ..., folder:PATH or npz:PATH.")
    ] = _DEFAULTS.data,
    recipe: Annotated[
        str, typer.Option(help="Begin from a published point: dcgan, sngan, wgan-gp, r1 or r3gan.")
    ] = "",
    name: Annotated[str, typer.Option(help="Name of the sweep and its folder (the space's).")] = "",
    out: Annotated[Path, typer.Option(help="Where sweeps live.")] = Path("runs"),
    trials: Trials = None,
    kimg: Annotated[
        int | None, typer.Option(min=1, help="Length of a full trial in kimg (the space's).")
    ] = None,
    time_budget: TimeBudget = "",
    gpu_hours: GpuHours = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search and of every trial.")] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Fix a hyper-parameter; repeatable."),
    ] = None,
    sampler: Annotated[str, typer.Option(help="tpe or random.")] = _DEFAULTS.sampler,
    pruner: Annotated[str, typer.Option(help="asha, hyperband, median or none.")] = _DEFAULTS.pruner,
    cpus_per_trial: Annotated[float, typer.Option(help="CPU cores (and threads) of one trial.")] = 1.0,
    gpus_per_trial: Annotated[str, typer.Option(help="GPU share of one trial, or auto.")] = "auto",
    concurrency: Concurrency = None,
    address: Annotated[str, typer.Option(help="Ray cluster: local, auto or HOST:PORT.")] = "local",
    storage: Annotated[
        str, typer.Option(envvar="GANSWEEP_STORAGE", help="Optuna database URL (a file of the sweep).")
    ] = "",
    tracking_uri: Tracking = "",
    register: Annotated[str, typer.Option(help="Register the best as this model (the sweep's name).")] = "",
    no_register: Annotated[bool, typer.Option("--no-register", help="Register nothing.")] = False,
    promote: Promote = "champion",
    extractor: Annotated[
        str, typer.Option(help="What fid measures in: auto, classifier, inception, pixels, module:function.")
    ] = _DEFAULTS.extractor,
    extractor_weights: Annotated[str, typer.Option(help="Local weights of the inception extractor.")] = "",
    fid_samples: Annotated[int, typer.Option(help="Generated images per fid.")] = _DEFAULTS.fid_samples,
    final_samples: Annotated[int, typer.Option(help="Per fid of a finalist (2.5 times as many).")] = 0,
    final_seeds: Annotated[
        int | None, typer.Option(min=0, help="Other seeds finalists are trained with (2 beyond ten minutes).")
    ] = None,
    image_size: Annotated[int, typer.Option(help="Side of folder images (chosen).")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the plan, stop.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Search. Repeated with the same arguments, it goes on with the sweep that is there."""
    from pipeline import spaces, sweep

    chosen = spaces.load(space)
    fixed = _settings(set_ or [])
    if kimg is not None:
        fixed["kimg"] = kimg
    if fixed:
        chosen = chosen.override(fixed)
    budget = _seconds(time_budget)
    config = SweepConfig(
        name=name or Path(space).stem,
        data=data,
        space=space,
        image_size=image_size,
        trials=trials or (_UNLIMITED if budget or gpu_hours else _DEFAULTS.trials),
        time_budget_sec=budget,
        gpu_hours=gpu_hours or 0.0,
        seed=seed,
        sampler=sampler,
        pruner=pruner,
        extractor=extractor,
        extractor_weights=extractor_weights,
        fid_samples=fid_samples,
        final_samples=final_samples,
        final_seeds=-1 if final_seeds is None else final_seeds,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=_share(gpus_per_trial),
        concurrency=concurrency or 0,
        address=address,
    )
    outcome = sweep.run(
        sweep.Request(
            space=chosen,
            config=config,
            out=out,
            register=None if no_register else register or config.name,
            promote=promote,
            recipe=recipe,
            kept=frozenset(fixed),
            code=spaces.find(space).absolute().parent,
            tracking_uri=tracking_uri,
            storage=storage,
            dry_run=dry_run,
            live=_live(quiet),
            say=_sayer(quiet),
        )
    )
    _conclude(outcome)


@app.command()
def resume(
    sweep_dir: Annotated[Path, typer.Argument(help="The folder that `run` made.")],
    trials: Trials = None,
    time_budget: TimeBudget = "",
    gpu_hours: GpuHours = None,
    concurrency: Concurrency = None,
    tracking_uri: Tracking = "",
    storage: Annotated[str, typer.Option(envvar="GANSWEEP_STORAGE", help="Optuna database URL.")] = "",
    quiet: Quiet = False,
) -> None:
    """Go on with an interrupted sweep; trials and budgets may grow."""
    from pipeline import sweep

    changes: dict[str, Any] = {"trials": trials, "gpu_hours": gpu_hours, "concurrency": concurrency}
    if time_budget:
        changes["time_budget_sec"] = _seconds(time_budget)
    outcome = sweep.resume(
        sweep_dir,
        {key: value for key, value in changes.items() if value is not None},
        tracking_uri=tracking_uri,
        storage=storage,
        live=_live(quiet),
        say=_sayer(quiet),
    )
    _conclude(outcome)


@app.command()
def report(sweep_dir: Annotated[Path, typer.Argument(help="The folder of a sweep.")]) -> None:
    """Print the leaderboard of a sweep, running or finished, and write its report.html."""
    from pipeline import report as reports
    from pipeline.files import read_json

    summary = read_json(SweepPaths(sweep_dir).summary)
    if not summary:
        raise SweepError(
            "a sweep's folder holds a summary.json",
            seen=str(sweep_dir),
            fix="name the folder that `run` made",
        )
    _leaderboard(summary)
    out_console.print(f"report: {reports.build(sweep_dir)}")


@app.command()
def validate(
    files: Annotated[list[str], typer.Argument(help="Spaces (.toml) and cluster files (.yaml).")],
) -> None:
    """Check spaces and cluster files, offline."""
    from pipeline import jobs, spaces

    for file in files:
        if Path(file).suffix in (".yaml", ".yml"):
            notes = jobs.check(Path(file))
        else:
            space = spaces.load(file)
            notes = [f"{len(space.search)} searched, {len(space.enqueue)} enqueued, hash {space.hash}"]
        out_console.print("\n  ".join([f"{file}: ok", *notes]), markup=False)


@app.command()
def doctor(
    out: Annotated[Path, typer.Option(help="Where sweeps would live.")] = Path("runs"),
    tracking_uri: Tracking = "",
    address: Annotated[str, typer.Option(help="Also look into this Ray cluster.")] = "",
) -> None:
    """Look at what this machine (and a cluster) has for a sweep."""
    from pipeline import doctor as doctors

    findings = doctors.diagnose(out, tracking_uri or None, address or None)
    table = Table(box=None, show_header=False, padding=(0, 2))
    colours = {"ok": "green", "warn": "yellow", "bad": "red"}
    for finding in findings:
        table.add_row(f"[{colours[finding.level]}]{finding.level}[/]", finding.name, escape(finding.text))
    out_console.print(table)
    if doctors.worst(findings) == "bad":
        raise typer.Exit(1)


@app.command()
def register(
    model: Model,
    name: Annotated[str, typer.Option(help="Name in the registry (the sweep's).")] = "",
    alias: Annotated[
        str, typer.Option(help="champion, candidate, ... (champion if it is the best).")
    ] = "auto",
    promote: Promote = "champion",
    tracking_uri: Tracking = "",
) -> None:
    """Register the best of a sweep, or set an alias of a registered version (roll back)."""
    from pipeline import models

    done = models.register(
        model, name=name, alias=alias, promote=promote, tracking_uri=tracking_uri, say=_sayer(False)
    )
    out_console.print(f"{done.uri} (version {done.version}): {done.reason}", markup=False)


@app.command()
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="models:/NAME@ALIAS, models:/NAME/VERSION, a sweep's folder; samples:PATH (PNGs or an npz)."
        ),
    ],
    data: Annotated[str, typer.Option(help="Images to measure against.")],
    n: Annotated[
        int | None, typer.Option("-n", min=16, help="Images per fid (5000; all that samples:PATH has).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the samples.")] = 1,
    image_size: Annotated[int, typer.Option(help="Side of the data's images (the model's).")] = 0,
    extractor: Annotated[
        str, typer.Option(help="auto, classifier, inception, pixels, or module:function in this folder.")
    ] = "auto",
    extractor_weights: Annotated[str, typer.Option(help="Local weights of the inception extractor.")] = "",
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    tracking_uri: Tracking = "",
) -> None:
    """Measure a generator: fid with an interval, kid, precision, recall, memorisation, collapse."""
    from pipeline import models
    from pipeline.evaluation import MEANINGS

    numbers = models.evaluate(
        model,
        data=data,
        n=n or 0,
        seed=seed,
        image_size=image_size,
        extractor=extractor,
        weights=extractor_weights,
        tracking_uri=tracking_uri,
        say=_sayer(json_),
    )
    if json_:
        sys.stdout.write(json.dumps(numbers, indent=1, allow_nan=False) + "\n")
        return
    table = Table(box=None, show_header=False, padding=(0, 2))
    for key, value in numbers.items():
        table.add_row(key, escape(_measured(value)), f"[dim]{MEANINGS.get(key, '')}[/]")
    out_console.print(table)


def _measured(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={_measured(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "; ".join(value) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@app.command()
def sample(
    model: Model,
    out: Annotated[Path, typer.Option(help="FILE.png (a grid), FILE.npz, or DIR/ (a data set, resumable).")],
    n: Annotated[int, typer.Option("-n", help="How many images.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="The same model, n and seed give the same bytes.")] = 0,
    label: Annotated[int | None, typer.Option(help="Only this class (conditional models).")] = None,
    truncation: Annotated[float, typer.Option(help="Scale of z: below 1 is safer and less varied.")] = 1.0,
    format_: Annotated[str, typer.Option("--format", help="Of DIR: folder, npz or parquet (folder).")] = "",
    labels: Annotated[
        str, typer.Option(help="data: as frequent as in the training images; or balanced.")
    ] = "data",
    device: Annotated[str, typer.Option(help="auto (a GPU for DIR, else cpu), cpu or cuda.")] = "auto",
    tracking_uri: Tracking = "",
) -> None:
    """Draw images from a generator into a PNG grid, an npz file, or a data set of any size."""
    from pipeline import models

    with _progress() as advance:
        told = models.sample(
            model,
            out,
            n=n,
            seed=seed,
            label=label,
            truncation=truncation,
            format=format_,
            labels=labels,
            device=device,
            tracking_uri=tracking_uri,
            advance=advance,
        )
    out_console.print(told, markup=False)


@app.command()
def interpolate(
    model: Model,
    out: Annotated[Path, typer.Option(help="FILE.png (a strip), FILE.gif or FILE.mp4 (by ffmpeg).")],
    seeds: Annotated[str, typer.Option(help="Walk over the first image of each (0,1,2,3).")] = "",
    labels: Annotated[str, typer.Option(help="Walk over these classes, or stay in one.")] = "",
    frames: Annotated[int, typer.Option(help="Frames in all (30 between two, 8 in a strip).")] = 0,
    fps: Annotated[int, typer.Option(help="Frames per second.")] = 20,
    truncation: Annotated[float, typer.Option(help="Scale of z.")] = 1.0,
    loop: Annotated[bool, typer.Option("--loop", help="Walk back to the beginning.")] = False,
    tracking_uri: Tracking = "",
) -> None:
    """Walk through latent space, between seeds or labels, along great circles."""
    from pipeline import models

    written = models.interpolate(
        model,
        out,
        seeds=_numbers("--seeds", seeds),
        labels=_numbers("--labels", labels),
        frames=frames,
        fps=fps,
        truncation=truncation,
        loop=loop,
        tracking_uri=tracking_uri,
    )
    out_console.print(f"a walk: {written}", markup=False)


@app.command()
def export(
    model: Model,
    format_: Annotated[str, typer.Option("--format", help="safetensors, pt2 or onnx.")] = "safetensors",
    out: Annotated[Path | None, typer.Option(help="File to write (named after the model).")] = None,
    tracking_uri: Tracking = "",
) -> None:
    """Write a generator as one file for other programs; ONNX is compared with torch first."""
    from pipeline import models

    written, told = models.export(model, out, format=format_, tracking_uri=tracking_uri)
    out_console.print(f"{written}: {told}", markup=False)


@app.command()
def serve(
    model: Model,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on loopback (0: any free).")] = 8000,
    tracking_uri: Tracking = "",
) -> None:
    """Open a page on this machine to sample, fix a seed, walk through latent space, pick a class."""
    from pipeline import models
    from pipeline import serve as pages

    generator = models.open_model(model, tracking_uri)
    pages.serve(generator, model, port, say=lambda line: out_console.print(line, markup=False))


def main() -> None:
    """The entry point of the `gansweep` command."""
    try:
        sys.exit(app(standalone_mode=False))  # a command that raised typer.Exit returns its code here
    except UserError as error:
        _fail(str(error))
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Exception as error:
        if hasattr(error, "format_message"):  # click's own errors: an unknown flag, a value of another type
            _fail(error.format_message())
        if os.environ.get("GANSWEEP_TRACEBACK"):
            raise
        err_console.print(f"failed: {type(error).__name__}: {error}", style="red", markup=False)
        err_console.print("set GANSWEEP_TRACEBACK=1 to see where", markup=False)
        sys.exit(1)


def _fail(message: str) -> None:
    err_console.print("error: " + " ".join(message.split()), markup=False)
    sys.exit(2)


def _conclude(outcome: Any) -> None:
    """Print what came of a sweep, and leave with its exit code."""
    if outcome.state == "planned":
        table = Table(box=None, show_header=False, padding=(0, 2))
        for row in outcome.plan:
            table.add_row(*row)
        out_console.print(table)
        return
    if outcome.state == "interrupted":
        err_console.print(
            f"interrupted; go on with: gansweep resume {shlex.quote(str(outcome.root))}", markup=False
        )
        raise typer.Exit(130)
    _leaderboard(outcome.summary)
    _next_steps(outcome)
    if not outcome.summary.get("best"):
        err_console.print("no trial has a fid; the causes stand in the leaderboard")
        raise typer.Exit(1)


def _leaderboard(summary: dict[str, Any], limit: int = 8) -> None:
    from pipeline.report import text_table

    rows = text_table(summary, limit)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in rows[0]:
        table.add_column(heading, no_wrap=heading != "params", overflow="fold")
    for row in rows[1:]:
        table.add_row(*map(escape, row))
    out_console.print(table)
    for final in summary.get("finalists", []):
        best, numbers = final["best"], final["measurement"]
        out_console.print(
            f"finalist {best['trial']}: fid {best['fid']:.2f} in [{numbers['fid_low']:.2f}, "
            f"{numbers['fid_high']:.2f}] of {numbers['n']} samples{_luck(final)}; "
            f"{'; '.join(numbers['verdicts']) or 'no copies, no collapse'}",
            markup=False,
        )


def _luck(final: dict[str, Any]) -> str:
    """The winner's curse of a finalist, and what its other seeds came to."""
    best, runs = final["best"], final.get("runs", [])
    text = f" (the search saw {best['search_fid']:.2f}"
    if best.get("gap") is not None:
        text += f", {best['fresh_fid']:.2f} with fresh latents: {best['gap']:+.2f} of luck"
    if len(runs) > 1:
        fids = ", ".join("none" if run["fid"] is None else f"{run['fid']:.2f}" for run in runs)
        text += f"; mean over {len(runs)} seeds {best['fid_mean']:.2f}: {fids}"
    return text + ")"


def _next_steps(outcome: Any) -> None:
    from pipeline.tracker import redact

    done, root = outcome.summary.get("registered"), shlex.quote(os.path.relpath(outcome.root))
    uri = shlex.quote(redact(outcome.tracking_uri))
    lines = [
        f"report   {root}/report.html",
        f"MLflow   mlflow ui --backend-store-uri {uri}",
        f"Optuna   optuna-dashboard {root}/study.journal",
    ]
    if done:
        model = f"models:/{done['name']}@{done['alias']}" if done["alias"] else done["uri"]
        out_console.print(f"\n{model} is version {done['version']}: {done['reason']}", markup=False)
        lines.insert(0, f"sample   gansweep sample {model} -n 100 --out samples.png --tracking-uri {uri}")
    out_console.print("\n".join(lines), markup=False)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, a line per tenth elsewhere; nothing for what is done at once."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("images"), TimeRemainingColumn())
    with Progress(*columns, console=err_console, disable=not err_console.is_terminal) as bar:
        task = bar.add_task("", total=None, visible=False)
        told = 0

        def advance(done: int, n: int) -> None:
            nonlocal told
            bar.update(task, completed=done, total=n, visible=True)
            if not err_console.is_terminal and done * 10 // n > told:
                told = done * 10 // n
                err_console.print(f"{done} of {n} images", markup=False)

        yield advance


def _numbers(flag: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ConfigError(f"{flag} are whole numbers", seen=text, fix=f"write {flag} 0,1,2") from None


def _sayer(quiet: bool) -> Any:
    if quiet:
        return lambda text: None
    return lambda text: err_console.print(text, style="dim", markup=False)


def _live(quiet: bool) -> bool:
    return not quiet and err_console.is_terminal


def _seconds(text: str) -> float:
    """`90s`, `10m`, `8h`, `2d` or plain seconds; empty is 0, no bound."""
    if not text:
        return 0.0
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if not match or float(match[1]) == 0:
        raise ConfigError("a time budget is a number with s, m, h or d", seen=text, fix="write 10m")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def _share(text: str) -> float:
    if text == "auto":
        return -1.0
    try:
        share = float(text)
    except ValueError:
        share = float("nan")
    if not share >= 0:
        raise ConfigError("--gpus-per-trial is auto or a number from 0", seen=text, fix="write 0.25 or auto")
    return share


def _settings(pairs: list[str]) -> dict[str, Any]:
    """`key=value` as TOML would read it; what TOML cannot read is a text."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator or not key.strip():
            raise ConfigError("--set takes key=value", seen=pair, fix="write --set batch_size=64")
        try:
            settings[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            settings[key.strip()] = text.strip()
    return settings
