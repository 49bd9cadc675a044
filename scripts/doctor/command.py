"""`doctor`: looks at everything that a deployment rests on, and says for each finding what to do.

`findings.py` says what a finding is; `machine.py` and `database.py` find them. A further check is a function that
yields findings, called in `examine`. Proved by tests/cli/test_doctor.py and tests/cli/test_examination.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import click
from click.core import ParameterSource

from api.audits.service import folder_beside, state_folder
from ledger.opening import database_file
from scripts.cli import exits
from scripts.cli.configuration import Configuration
from scripts.cli.options import Format, output_format
from scripts.cli.output import Columns, print_line, show
from scripts.cli.server_keys import network_settings, sign_in_settings
from scripts.cli.settings import chosen, config_file, configuration_fault, settings
from scripts.doctor import database, machine, providers
from scripts.doctor.acknowledge import clock, head
from scripts.doctor.findings import Finding
from scripts.doctor.log import log_

_COLUMNS: Final[Columns] = {
    "check": lambda finding: finding["check"],
    "": lambda finding: finding["status"],
    "finding": lambda finding: finding["detail"],
}


@click.group(invoke_without_command=True)
@settings("database", lenient=True)
@output_format
@click.pass_context
def doctor(context: click.Context, /, format_: Format, **values: Any) -> int:
    """Look at what a deployment rests on, and say what to do.

    Without a verb of its own it checks the configuration, where serve would listen and its certificate, the OpenID
    Connect providers, the database, its format, its head, the clock, the stored timelines, the log, the disks, and who
    may read the files. It writes nothing. Exits with 2 if the configuration is wrong, 3 if the ledger cannot be opened,
    1 if anything else is. Warnings exit with 0.

    \b
      inforce doctor
      inforce doctor --config /etc/inforce.toml --format json
      inforce doctor clock
      inforce doctor log
    """
    if context.invoked_subcommand is not None:
        for name, option in (("database", "--db"), ("format_", "--format")):
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                raise click.UsageError(f"{option} belongs behind {context.invoked_subcommand}", context)
        return exits.OK
    findings = list(examine(chosen(values)))
    rows = [finding._asdict() for finding in findings]
    show(format_, {"findings": rows}, rows, Finding._fields, _COLUMNS)
    if format_ == "table":
        for finding in findings:
            if finding.advice is not None:
                print_line(f"{finding.check}: {finding.advice}")
    return _exit_code(findings)


doctor.add_command(clock)
doctor.add_command(head)
doctor.add_command(log_)


def examine(keys: Configuration) -> Iterator[Finding]:
    file = config_file()
    ledger_file = database_file(keys.database)
    audits = keys.audits_folder or (state_folder() if ledger_file is None else folder_beside(ledger_file.absolute()))
    yield from machine.configuration(configuration_fault(), file)
    yield from machine.network(network_settings(keys))
    yield from providers.providers(sign_in_settings(keys))
    yield from database.ledger(keys)
    yield from machine.disk_room(keys, audits)
    yield from machine.permissions(keys, file, audits)


def _exit_code(findings: list[Finding]) -> int:
    failed = {finding.check for finding in findings if finding.status == "failed"}
    if "configuration" in failed:
        return exits.BAD_INPUT
    if failed & {"database", "ledger"}:
        return exits.UNAVAILABLE
    return exits.PROBLEM_FOUND if failed else exits.OK
