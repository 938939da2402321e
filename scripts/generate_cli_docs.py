"""Write docs/cli.md from the help of the commands themselves.

python scripts/generate_cli_docs.py            write it
python scripts/generate_cli_docs.py --check    exit 1 where it is out of date
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from adapterctl.cli.main import PROGRAM, cli

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
WIDTH = 96

HEADER = """\
# Command line

<!-- Made by scripts/generate_cli_docs.py from the commands' own help; do not edit. -->

Results go to standard output, progress and errors to standard error; off a terminal every line of progress begins with
the time in UTC. With `--json` standard output is one JSON object; a failure is then
`{"error": {"type", "message", "hint", "problems"}, "exit_code"}`.

| exit code | meaning |
|---|---|
| 0 | done, or nothing to do (`--skip-exit-code 99` gives the latter a code of its own) |
| 1 | an error nobody foresaw |
| 2 | called wrongly, or the configuration is not valid, or the workspace is not ready for it |
| 3 | the gate, or a person, did not let the candidate pass; the champion is untouched |
| 4 | another adapterctl works on the workspace or on the project's releases, or has moved an alias; `--wait` waits |
| 5 | the registry cannot be reached or refuses; worth another try |
| 6 | rows, an adapter, stored files or a base model cannot be used |
| 7 | the disk is full, read-only or not permitted |
| 130 | interrupted (Ctrl-C); the same command goes on |
| 143 | terminated (SIGTERM), within ten seconds; the same command goes on |
"""


def commands(command: click.Command, above: click.Context | None, name: str) -> Iterator[click.Context]:
    """Yield a context for a command and, after it, for each of its subcommands."""
    ctx = click.Context(command, parent=above, info_name=name, terminal_width=WIDTH, **command.context_settings)
    yield ctx
    if isinstance(command, click.Group):
        for sub in command.list_commands(ctx):
            found = command.get_command(ctx, sub)
            assert found is not None
            yield from commands(found, ctx, sub)


def page() -> str:
    """Return the whole page."""
    parts = [HEADER]
    for ctx in commands(cli, None, PROGRAM):
        level = "##" if ctx.parent is None or ctx.parent.parent is None else "###"
        with ctx:
            help_text = "\n".join(line.rstrip() for line in ctx.command.get_help(ctx).splitlines())
        parts.append(f"{level} {ctx.command_path}\n\n```text\n{help_text}\n```\n")
    return "\n".join(parts)


def main() -> int:
    """Write or check the page."""
    text = page()
    if "--check" in sys.argv:
        current = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
        if current != text:
            print("docs/cli.md is out of date; renew it with: make docs")
            return 1
        return 0
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
