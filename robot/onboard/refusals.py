"""Why the runtime does not run a file: one class per reason, so that a refusal can be counted, shown and tested by name."""

from robot.errors import FlexorError


class AdmissionError(FlexorError):
    """An artifact is not fit to drive this robot. Nothing was commanded."""


class FileTooLargeError(AdmissionError):
    """More bytes than a policy has."""


class AlteredFileError(AdmissionError):
    """Not the bytes that were announced."""


class TruncatedFileError(AdmissionError):
    """The file ends inside a field, or is not a protobuf at all."""


class AmbiguousFileError(AdmissionError):
    """A value is given twice, or in two ways: another reader may take the other one."""


class ExternalDataError(AdmissionError):
    """Weights that live in another file."""


class ForbiddenOperatorError(AdmissionError):
    """An operator outside the allow-list, or of another domain."""


class NestedGraphError(AdmissionError):
    """Subgraphs, local functions, training graphs or sparse tensors: nothing a policy needs."""


class OpsetError(AdmissionError):
    """An operator set or file version this runtime was not tested with."""


class GraphInterfaceError(AdmissionError):
    """Inputs and outputs are not obs -> actions, joint_targets of the contract's sizes."""


class DtypeError(AdmissionError):
    """An input, output or weight is not of the expected type."""


class MissingContractError(AdmissionError):
    """No contract in the file's metadata."""


class BadContractError(AdmissionError):
    """A contract that cannot be read or contradicts itself."""


class StaleContractError(AdmissionError):
    """A contract of another schema, or of an older description of this robot."""


class ZeroGainsError(AdmissionError):
    """Servo gains that are zero or missing: the joints would not hold."""


class OtherRobotError(AdmissionError):
    """A contract that was written for another robot."""


class JointOrderError(AdmissionError):
    """The robot's joints or motors in another order than the contract's."""


class ElementsError(AdmissionError):
    """The policy observes elements that this robot has not got by these names, or in another order."""


class MissingNormaliserError(AdmissionError):
    """The file says what its observations were normalised by, and the graph does not do it."""


class UnmeasuredError(AdmissionError):
    """The policy observes what this robot has no sensor for."""


class RateError(AdmissionError):
    """Trained at another control rate than the robot's."""


class OtherTaskError(AdmissionError):
    """Trained for another task than the robot is at."""


class MissingGoldenError(AdmissionError):
    """No golden vectors to replay, or not of the graph's sizes."""


class GoldenMismatchError(AdmissionError):
    """The graph does not give what it gave when it was exported."""


class JointTargetsError(AdmissionError):
    """The graph's joint targets are not what the contract makes of its actions: joints swapped, or another scale."""


class OutputError(AdmissionError):
    """Outputs that are not finite or leave the contract's limits."""


class TooSlowError(AdmissionError):
    """Inference takes too much of the control period on this machine."""


class JudgeError(AdmissionError):
    """The process that tried the file crashed, ran out of its limits or out of time."""


def _all() -> dict[str, type[AdmissionError]]:
    return {kind.__name__: kind for kind in AdmissionError.__subclasses__()}


def by_name(name: str) -> type[AdmissionError]:
    """The class of a reason; `JudgeError` for a name that is none."""
    return _all().get(name, JudgeError)
