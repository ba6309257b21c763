"""Why an export was refused. Nothing is written when one of these is raised."""

from robot.errors import FlexorError


class ExportError(FlexorError, ValueError):
    """The policy cannot become an artifact as it is."""


class UnsupportedLayerError(ExportError):
    """A layer the graph builder has no row for; the message lists the ones it has."""

    def __init__(self, where: str, layer: str, known: list[str]) -> None:
        super().__init__(
            f"layer {where} is a {layer}, which the graph builder cannot write. Known: {', '.join(known)}.\n"
            f"  do: build the policy from those, or add a row to policies/export/layers.py"
        )


class ParityError(ExportError):
    """The file and the network disagree; the message names the input, the output and the values."""

    def __init__(
        self, *, output: str, element: int, source: str, row: int, expected: float, seen: float, tolerance: float
    ) -> None:
        self.output, self.element, self.source, self.row = output, element, source, row
        super().__init__(
            f"exported file and network differ by {abs(expected - seen):.3g}, more than {tolerance:.0e}: "
            f"output {output!r} element {element} on {source} input {row}: network {expected!r}, file {seen!r}"
        )


class BackendError(ExportError):
    """A backend of the robot does not give what the network gives; the message names it."""
