"""``isthmus policy``: policies, before and after they are applied. Adapter."""

from collections.abc import Iterator

import click

from cli import options, output
from cli.lazy import Lazy, LazyGroup
from cli.policy_files import Judged, documents, judge
from policy.objects.settings import Settings

COMMANDS = {
    "explain": Lazy("cli.policy_explain", "explain", "Why a connection is allowed or not."),
    "get": Lazy("cli.policy_show", "get", "One policy, and what it was read as."),
    "list": Lazy("cli.policy_show", "list_", "All policies, valid or not."),
    "selectors": Lazy("cli.policy_show", "selectors", "Selectors in use, and whom they select."),
    "validate": Lazy("cli.policy", "validate", "Check policies in files, without a cluster."),
    "whatif": Lazy("cli.policy_whatif", "whatif", "Verdicts that policies in files would change."),
    "facts": Lazy("cli.policy_show", "facts", ""),
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
@options.group
def policy() -> None:
    """Policies."""


@click.command("validate")
@click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    required=True,
    metavar="FILE",
    help="File or directory; - for standard input. Repeatable.",
)
@click.option(
    "--cluster-name", default="default", show_default=True, help="Where it is to be applied."
)
@click.option("--enable-node-selector-labels", is_flag=True, help="As the cluster has it set.")
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@output.option
def validate(
    files: tuple[str, ...],
    cluster_name: str,
    enable_node_selector_labels: bool,
    strict: bool,
    how: str,
) -> None:
    """Check policies in files, without a cluster.

    Errors are what an API server or an agent would refuse. Warnings are what is legal and seldom
    meant. Exit 1 when there is an error, or no policy.
    """
    settings = Settings(cluster=cluster_name, node_selectors=enable_node_selector_labels)
    read = [judge(file, document, settings) for file, document in documents(files)]
    found = [judged for judged in read if judged is not None]
    if not found:
        raise click.ClickException(f"there is no policy in {', '.join(files)}")
    if how == "json":
        click.echo(output.as_json([judged.as_json() for judged in found]))
    else:
        for judged in found:
            for line in _lines(judged):
                click.echo(line)
    if not all(judged.valid and not (strict and judged.warnings) for judged in found):
        raise click.exceptions.Exit(1)


def _lines(judged: Judged) -> Iterator[str]:
    yield f"{judged.file}: {judged.kind} {judged.name}: {'valid' if judged.valid else 'invalid'}"
    for word, findings in (
        ("error", (*judged.errors, *judged.unknown)),
        ("warning", judged.warnings),
        ("not enforced", judged.unenforced),
    ):
        for finding in findings:
            yield f"  {word}: {finding}"
