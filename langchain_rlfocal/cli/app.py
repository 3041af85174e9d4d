"""Command line: `rlfocal` collects outcomes, trains and evaluates policies, and shows them at work.

Each command imports what it needs when it runs, so that `rlfocal --help` is quick and only `train` loads torch. What a
program reads goes to stdout, progress and errors to stderr. An error of the package is one line and exit code 2, never a
traceback; a file appears whole or not at all.
"""

import errno
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from langchain_rlfocal._version import __version__
from langchain_rlfocal.cli.asking import answer, ask, demo
from langchain_rlfocal.cli.collecting import collect, questions
from langchain_rlfocal.cli.evaluating import certify, diversity, evaluate
from langchain_rlfocal.cli.importing import import_
from langchain_rlfocal.cli.keys import keys
from langchain_rlfocal.cli.logs import log
from langchain_rlfocal.cli.options import BAD_INPUT, INTERRUPTED, end_with
from langchain_rlfocal.cli.pools import pools
from langchain_rlfocal.cli.reporting import report
from langchain_rlfocal.cli.scoring import score
from langchain_rlfocal.cli.serving import serve
from langchain_rlfocal.cli.training import sweep, train
from langchain_rlfocal.errors import RLFocalError

# What a wrong option or argument raises; Typer exports one of its kinds alone.
_UsageError: Any = typer.BadParameter.__base__


class _Commands(TyperGroup):
    """Commands whose expected errors are one red line, unless `--debug` stands anywhere on the line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move `--debug`, which people add at the end, to where it is an option of the program."""
        end = args.index("--") if "--" in args else len(args)
        if "--debug" in args[:end]:
            args.remove("--debug")
            args.insert(0, "--debug")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # who read the output has seen enough: Click ends quietly
        except _UsageError as error:
            path = error.ctx.command_path if error.ctx is not None else ctx.command_path
            said = error.format_message().rstrip(".")
            end_with(f"{said}{'' if said.endswith('?') else '.'} See `{path} --help`.", code=BAD_INPUT)
        except (RLFocalError, OSError) as error:
            if ctx.params.get("debug"):
                raise
            is_full = getattr(error, "errno", None) in {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
            way_out = " Free some space, or write elsewhere; what was there is as it was." if is_full else ""
            end_with(f"{error}{way_out}", code=BAD_INPUT)
        except KeyboardInterrupt:
            kept = {
                "train": "no checkpoint was written",
                "questions": "nothing was written",
                "import": "nothing was written",
            }.get(str(ctx.invoked_subcommand))
            end_with(f"Interrupted: {kept}." if kept else "Interrupted.", code=INTERRUPTED)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="""RL-Focal: a learned team of chat models per query, and a learned fusion of their answers.

    Exit codes: 0 is success, 1 a member that never answered, 2 bad input (one line on stderr says what), 130 an interruption.
    """,
)


def _version(*, value: bool) -> None:
    if value:
        typer.echo(f"rlfocal {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the trace of an error; may stand at the end, too.")
    ] = False,
) -> None:
    del version, debug


_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Record what models answer": (collect, import_, score, questions),
    "Learn": (train, sweep, certify),
    "See what it is worth": (diversity, evaluate, report),
    "Answer": (ask, answer, demo, serve),
}
for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(_command.__name__.rstrip("_"), rich_help_panel=_panel)(_command)
app.add_typer(pools, name="pool", rich_help_panel="Record what models answer")
app.add_typer(log, name="log", rich_help_panel="Record what models answer")
app.add_typer(keys, name="keys", rich_help_panel="Answer")
