"""Errors of the fleet layer. Each names what was expected, what was seen, and what to do."""

from robot.errors import FlexorError


class FleetError(FlexorError):
    """Root of the fleet's errors."""


# --- wire -------------------------------------------------------------------------------------------------------------


class WireError(FleetError, ValueError):
    """Frames that are not a message of this protocol."""


class MagicError(WireError):
    """The first frame is not an FLX1 envelope."""


class VersionError(WireError):
    """Another major version."""


class MessageTypeError(WireError):
    """A type or a flag this version does not know."""


class LengthError(WireError):
    """A frame shorter or longer than the envelope says, too many frames, or past a cap."""


class CrcError(WireError):
    """The payload is not what the envelope's checksum is of."""


class MetaError(WireError):
    """The meta frame does not decode to the message the envelope announces."""


# --- keys -------------------------------------------------------------------------------------------------------------


class KeyFileError(FleetError, ValueError):
    """A key file that is missing, malformed, or of another kind."""


class LooseSecretError(FleetError, PermissionError):
    """A secret that others may read."""


class RefusedKeyError(FleetError, PermissionError):
    """The hub does not know this robot's key."""


class SelfTestError(FleetError, RuntimeError):
    """The hub's door does not behave: a stranger was let in, or a known key was not. The hub does not start."""


class ForgedDocumentError(FleetError, ValueError):
    """A document whose signature is missing, wrong, or somebody else's."""


class TokenError(FleetError, PermissionError):
    """A token or a new key that is not taken."""


# --- spool and store --------------------------------------------------------------------------------------------------


class RecordError(FleetError, ValueError):
    """Bytes in a segment that are not a record."""


class SegmentError(FleetError, ValueError):
    """A segment file that cannot be what its name says."""


class SpoolFullError(FleetError, OSError):
    """The spool may take no more and nothing in it may be dropped."""


class RecordTooLargeError(FleetError, ValueError):
    """A record past the cap."""


class StoreSuspectError(FleetError, OSError):
    """The disk refused a sync: nothing more is acknowledged until the log has been read again."""


class StoreFullError(FleetError, OSError):
    """No space for a group of records: none of it was kept, none of it is acknowledged."""


class StoreBusyError(FleetError, OSError):
    """Another process has the folder open."""


# --- hub and robot ----------------------------------------------------------------------------------------------------


class PortInUseError(FleetError, OSError):
    """A port the hub needs is taken."""


class HubAwayError(FleetError, TimeoutError):
    """Nobody answered."""


class AdminError(FleetError, RuntimeError):
    """The hub refused a command; the message is the hub's."""


# --- deployment -------------------------------------------------------------------------------------------------------


class CatalogueError(FleetError, ValueError):
    """An artifact that is not in the signed catalogue, or not as it was signed."""


class StaleCatalogueError(CatalogueError):
    """A catalogue older than one this robot has seen: another hub knows more. Tried again, and no refusal of the artifact."""


class NoRoomError(FleetError, OSError):
    """This robot's disk did not take an artifact. Tried again, and no refusal of the artifact."""


class AssignmentError(FleetError, ValueError):
    """An assignment that must not be followed."""


class ForgedAssignmentError(AssignmentError):
    """Not signed by the director."""


class ReplayedAssignmentError(AssignmentError):
    """An older generation, or another text under the same one."""


class StaleTermError(ReplayedAssignmentError):
    """Signed under another lease than the one in force: by a director that is none any more, or not yet."""


class ExpiredAssignmentError(AssignmentError):
    """Past its time; the robot keeps what it has."""


class MisdirectedAssignmentError(AssignmentError):
    """For another robot."""


class BannedPolicyError(AssignmentError):
    """It names a policy that is banned."""


class RolloutError(FleetError, ValueError):
    """A rollout that cannot be started or changed as asked."""
