"""``isthmus lab demo``: tell the story on a lab of its own, with figures. Adapter."""

import time

from rich.console import Console

from kind import story
from kind.lab import down, up
from kind.lab.topology import LabError

LAB = "demo"


def run(keep: bool = False, name: str = LAB) -> int:
    """Exit status: 0 only if every step held."""
    console = Console(highlight=False)
    start = time.monotonic()
    passed = failed = 0
    console.print(f"[bold]Lab {name}[/bold]: two clusters, two nodes each")
    try:
        up.run(
            up.Request(name, 2, 2, 1500, ""),
            lambda where, text, seconds: console.print(
                f"  {seconds:5.1f} s  {where + ': ' if where else ''}{text}", style="dim"
            ),
        )
        for step in story.tell(story.Mesh(name)):
            passed, failed = passed + step.held, failed + (not step.held)
            _show(console, step)
        failed += len(story.STEPS) - passed - failed
    except (LabError, story.StoryError) as error:
        console.print(f"[red]{error}[/red]")
        failed = len(story.STEPS) - passed
    finally:
        if keep:
            console.print(f"The lab stays: isthmus lab status {name}, isthmus lab down {name}")
        else:
            down.remove(name)
    console.print(f"{time.monotonic() - start:.0f} s in all", style="dim")
    console.print(f"demo: {passed} passed, {failed} failed")
    return 0 if not failed else 1


def _show(console: Console, step: story.Step) -> None:
    mark = "[green]✔[/green]" if step.held else "[red]✘[/red]"
    console.print(f"{mark} [bold]{step.number}. {step.title}[/bold] ({step.seconds:.1f} s)")
    for what, good in step.checks:
        console.print(f"    {'✓' if good else '✗'} {what}", style="" if good else "red")
    for name, value in step.figures.items():
        console.print(f"    • {name}: {value}")
