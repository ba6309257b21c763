"""The robot's side of the catalogue: the official TUF client over our own transport, so a hub that was taken over can neither change an artifact,
nor bring back an old catalogue, nor freeze a robot on one without its noticing.

Apart from `fleet.catalogue` because a hub needs none of it, and the client takes a fifth of a second to load.
"""

# pyright: reportPrivateImportUsage=false
# tuf.api.metadata re-exports its documented classes without saying so in __all__.

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tuf.api.exceptions import BadVersionNumberError, DownloadError, DownloadHTTPError, RepositoryError
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from fleet.assignment import ArtifactRef
from fleet.catalogue import FILES, MAX_FILE_BYTES
from fleet.disk import Disk
from fleet.errors import CatalogueError, HubAwayError, NoRoomError, StaleCatalogueError
from robot.artifacts import POLICY_FILE


class Fetcher(FetcherInterface):
    """TUF's transport: asks the hub piece by piece.

    Args:
        ask: (path, offset) -> (size of the file or -1, piece).
    """

    def __init__(self, ask: Callable[[str, int], tuple[int, bytes]]) -> None:
        self._ask = ask
        self.away: HubAwayError | None = None  # TUF wraps what we raise; this says that it was only the line

    def _fetch(self, url: str) -> Iterator[bytes]:
        total, data = self._piece(url, 0)
        if total < 0:
            raise DownloadHTTPError(f"the hub has no {url}", 404)
        return self._pieces(url, total, data)

    def _pieces(self, url: str, total: int, data: bytes) -> Iterator[bytes]:
        offset = 0
        while True:
            yield data
            offset += len(data)
            if offset >= total:
                return
            if not data:
                raise DownloadError(f"{url}: the hub stopped at {offset} of {total} bytes")
            _, data = self._piece(url, offset)

    def _piece(self, url: str, offset: int) -> tuple[int, bytes]:
        try:
            return self._ask(url, offset)
        except HubAwayError as error:
            self.away = error
            raise


def download(ref: ArtifactRef, folder: Path, trust: Path, ask: Callable[[str, int], tuple[int, bytes]]) -> Path:
    """Get an artifact through TUF and put it where the runtime finds it.

    Args:
        ref: Which one; the policy's hash must be the one the assignment names.
        folder: The robot's: `metadata/` (remembered between downloads) and `models/<name>/<version>`.
        trust: The robot's root.json.
        ask: Transport, as in `Fetcher`.

    Returns:
        The artifact's folder.

    Raises:
        CatalogueError: It is not in the signed catalogue, not as signed, or not the one assigned; nothing of it is kept.
        HubAwayError, NoRoomError: The line broke, or our own disk does not take it; try again later.
    """
    metadata, models = folder / "metadata", folder / "models"
    draft, final = models / f".{ref.name}-{ref.version}.tmp", models / ref.name / ref.version
    fetcher = Fetcher(ask)
    try:
        for path in (metadata, models):
            path.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(draft, ignore_errors=True)
        updater = Updater(
            str(metadata),
            "metadata/",
            str(draft),
            "targets/",
            fetcher=fetcher,
            config=UpdaterConfig(max_root_rotations=32),
            bootstrap=trust.read_bytes(),
        )
        updater.refresh()
        for file in FILES:
            info = updater.get_targetinfo(f"{ref.label}/{file}")
            if info is None:
                raise CatalogueError(f"{ref.label}/{file} is not in the signed catalogue; refused")
            if info.length > MAX_FILE_BYTES:
                raise CatalogueError(f"{ref.label}/{file} has {info.length} bytes; at most {MAX_FILE_BYTES}")
            if file == POLICY_FILE and info.hashes.get("sha256") != ref.sha256:
                raise CatalogueError(
                    f"{ref.label}: the assignment names policy {ref.sha256[:12]}, the catalogue {info.hashes.get('sha256', '')[:12]}; "
                    "both must sign the same one"
                )
            draft.mkdir(parents=True, exist_ok=True)
            updater.download_target(info, str(draft / file))
        final.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(final, ignore_errors=True)
        draft.rename(final)
        Disk().sync_folder(final.parent)
    except (RepositoryError, DownloadError, ValueError, OSError) as error:
        if fetcher.away is not None:
            raise fetcher.away from error
        if isinstance(error, CatalogueError):
            raise
        if isinstance(error, OSError):
            raise NoRoomError(f"{ref.label}: {error}; put off until this robot's disk takes it") from error
        if isinstance(error, BadVersionNumberError):
            raise StaleCatalogueError(
                f"{ref.label}: {error}: this hub's catalogue is older than one seen before; refused until it has caught up"
            ) from error
        raise CatalogueError(f"{ref.label}: {type(error).__name__}: {error}; refused") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return final
