"""From a trained network to a file that explains itself. docs/artifacts.md describes the format."""

from policies.export.errors import BackendError, ExportError, ParityError, UnsupportedLayerError
from policies.export.write import export, write_card

__all__ = ["BackendError", "ExportError", "ParityError", "UnsupportedLayerError", "export", "write_card"]
