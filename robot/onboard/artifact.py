"""Loading an artifact: its bytes, its contract, its golden vectors. Nothing native touches the file here; see `admission`."""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import IO

import msgspec
import numpy as np

from robot import artifacts
from robot.contract import SCHEMA, Contract
from robot.errors import FlexorError
from robot.onboard.onnxfile import MAX_FILE_BYTES, OnnxFile, read
from robot.onboard.refusals import (
    AdmissionError,
    BadContractError,
    FileTooLargeError,
    MissingContractError,
    MissingGoldenError,
    StaleContractError,
    TruncatedFileError,
    ZeroGainsError,
)

# Written after the contract by every export: a file cut between two of them still reads as a whole one.
REQUIRED_KEYS = (artifacts.CONTRACT_SHA256_KEY, artifacts.EXPLORATION_KEY, artifacts.NORMALIZER_KEY)
MAX_GOLDEN_BYTES = 16 * 1024 * 1024
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Normaliser:
    """What the network was trained to see, for the out-of-distribution score: mean and std, shape (observation_size,)."""

    mean: np.ndarray
    std: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """An artifact in memory. `admission.admit` says whether it may drive a robot.

    Attributes:
        name, version: As in `models/<name>/<version>`.
        onnx: The bytes of policy.onnx.
        sha256: Their hash; what experience carries.
        file: What is in them.
        contract: From the file's metadata.
        exploration_std: Standard deviation of each action in training, shape (n_actions,); None where the file has none.
        normaliser: From the file's metadata; None where it has none.
        golden: Arrays of golden.npz, under the graph's input and output names, first axis samples.
        card: Text of card.md, "" if there is none.
    """

    name: str
    version: str
    onnx: bytes = field(repr=False)
    sha256: str
    file: OnnxFile = field(repr=False)
    contract: Contract = field(repr=False)
    exploration_std: np.ndarray | None = None
    normaliser: Normaliser | None = field(default=None, repr=False)
    golden: Arrays = field(default_factory=dict, repr=False)
    card: str = field(default="", repr=False)

    @property
    def label(self) -> str:
        return f"{self.name}/{self.version}"


def load(path_or_name: str | Path, models_dir: Path = artifacts.DEFAULT_MODELS_DIR) -> Artifact:
    """Read an artifact.

    Args:
        path_or_name: A folder, its policy.onnx, a shipped name ("hand_reach", newest version) or "hand_reach/v2".
        models_dir: Where names are looked up.

    Raises:
        UnknownNameError: Neither a file nor a known name; the message lists the known ones.
        ArtifactNotFoundError: A folder without a policy.onnx.
        AdmissionError: A file that cannot be read safely; its class says why.
    """
    folder = artifacts.find_artifact(path_or_name, models_dir)
    policy, golden, card = (
        folder / name for name in (artifacts.POLICY_FILE, artifacts.GOLDEN_FILE, artifacts.CARD_FILE)
    )
    try:
        return from_bytes(
            _capped(policy, MAX_FILE_BYTES),
            golden=_capped(golden, MAX_GOLDEN_BYTES) if golden.is_file() else b"",
            card=_capped(card, 1024 * 1024).decode(errors="replace") if card.is_file() else "",
            name=folder.resolve().parent.name,
            version=folder.resolve().name,
        )
    except AdmissionError as error:
        raise type(error)(f"{policy}: {error}") from error


def from_bytes(
    onnx: bytes, *, golden: bytes = b"", card: str = "", name: str = "unnamed", version: str = "v0"
) -> Artifact:
    """An artifact from the contents of its files.

    Raises:
        AdmissionError: Its class says why.
    """
    with refusing(TruncatedFileError, "the file cannot be read"):
        file = read(onnx)
    with refusing(BadContractError, "the metadata cannot be read"):
        contract = read_contract(file)
        exploration, normaliser = _exploration(file, contract), _normaliser(file, contract)
    return Artifact(
        name=name,
        version=version,
        onnx=onnx,
        sha256=hashlib.sha256(onnx).hexdigest(),
        file=file,
        contract=contract,
        exploration_std=exploration,
        normaliser=normaliser,
        golden=read_golden(golden) if golden else {},
        card=card,
    )


def _capped(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise FileTooLargeError(f"{path.name} must have at most {limit} bytes")
    return data


class _Gains(msgspec.Struct):
    schema: int = 0
    servo_stiffness_n_m: list[float] = []
    drive_stiffness_nm_rad: list[float] = []


def read_contract(file: OnnxFile) -> Contract:
    """The contract in a file's metadata.

    Raises:
        MissingContractError: There is none.
        StaleContractError: It has another schema, or is not the one that was exported.
        ZeroGainsError: A servo stiffness of zero, or none at all.
        BadContractError: It cannot be read, or contradicts itself.
    """
    text = file.metadata.get(artifacts.CONTRACT_KEY)
    if text is None:
        keys = ", ".join(sorted(file.metadata)) or "none"
        raise MissingContractError(
            f"no {artifacts.CONTRACT_KEY!r} in the file's metadata (keys: {keys}); export it with flexor export"
        )
    lost = [key for key in REQUIRED_KEYS if key not in file.metadata]
    if lost:
        raise MissingContractError(
            f"the file's metadata has a contract but not {', '.join(lost)}: it was cut off, or not written by flexor export"
        )
    try:
        gains = msgspec.json.decode(text, type=_Gains)
    except msgspec.MsgspecError as error:
        raise BadContractError(f"{artifacts.CONTRACT_KEY} is no contract: {error}") from error
    if gains.schema != SCHEMA:
        raise StaleContractError(f"contract schema: expected {SCHEMA}, got {gains.schema}; export the policy again")
    stiffness = [*gains.servo_stiffness_n_m, *gains.drive_stiffness_nm_rad]  # in the order of the motors
    zero = [i for i, gain in enumerate(stiffness) if not gain > 0.0]
    if zero or not stiffness:
        which = f"zero at motors {zero}" if zero else "missing"
        raise ZeroGainsError(f"servo stiffness must be > 0 for every motor, {which}; the joints would not hold")
    try:
        contract = Contract.from_json(text)
    except FlexorError as error:
        raise BadContractError(str(error)) from error
    announced = file.metadata.get(artifacts.CONTRACT_SHA256_KEY, "").strip('"')
    if announced and announced != contract.sha256:
        raise StaleContractError(
            f"the contract was edited after the export: sha256 {contract.sha256[:12]}, the file announces {announced[:12]}"
        )
    return contract


def _floats(file: OnnxFile, key: str, text_type: type) -> object:
    try:
        return msgspec.json.decode(file.metadata[key], type=text_type)
    except msgspec.MsgspecError as error:
        raise BadContractError(f"{key}: {error}") from error


def _vector(key: str, values: list[float], size: int) -> np.ndarray:
    array = np.array(values, dtype=np.float64)
    if array.shape != (size,) or not np.isfinite(array).all():
        raise BadContractError(f"{key} must hold {size} finite numbers, got {len(values)}")
    array.setflags(write=False)
    return array


def _exploration(file: OnnxFile, contract: Contract) -> np.ndarray | None:
    key = artifacts.EXPLORATION_KEY
    if key not in file.metadata:
        return None
    std = _vector(key, _floats(file, key, list[float]), contract.action_size)  # type: ignore[arg-type]
    if (std < 0.0).any():
        raise BadContractError(f"{key} must be >= 0, got {std.tolist()}")
    return std


class _Statistics(msgspec.Struct):
    mean: list[float]
    std: list[float]


def _normaliser(file: OnnxFile, contract: Contract) -> Normaliser | None:
    key = artifacts.NORMALIZER_KEY
    if key not in file.metadata:
        return None
    statistics = _floats(file, key, _Statistics)
    assert isinstance(statistics, _Statistics)
    size = contract.observation_size
    return Normaliser(
        mean=_vector(f"{key}.mean", statistics.mean, size), std=_vector(f"{key}.std", statistics.std, size)
    )


@contextmanager
def refusing(kind: type[AdmissionError], what: str) -> Iterator[None]:
    """Whatever a reader throws at a stranger's bytes is a refusal: the libraries below have no one class for it."""
    try:
        yield
    except AdmissionError:
        raise
    except Exception as error:
        raise kind(f"{what}: {type(error).__name__}: {error}") from error


def _check_header(member: IO[bytes], size: int) -> None:
    """Refuse an array that announces more than its member of an archive holds; nothing is allocated for it.

    Raises:
        ValueError: It is no array, or announces another size.
    """
    version = np.lib.format.read_magic(member)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(member)
    if prod(shape) * dtype.itemsize > size:
        raise ValueError(f"an array of shape {shape} in {size} bytes")


def read_golden(data: bytes) -> Arrays:
    """The arrays of a golden.npz, read-only; no pickles, and no archive that unpacks to more than it may.

    Raises:
        MissingGoldenError: Not such an archive.
        FileTooLargeError: It unpacks to too much.
    """
    with refusing(MissingGoldenError, f"{artifacts.GOLDEN_FILE} is no archive of arrays"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(info.file_size for info in archive.infolist())
            if size > 4 * MAX_GOLDEN_BYTES:
                raise FileTooLargeError(f"{artifacts.GOLDEN_FILE} unpacks to {size} bytes")
            for info in archive.infolist():
                with archive.open(info) as member:
                    _check_header(member, info.file_size)
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
    for array in arrays.values():
        array.setflags(write=False)
    return arrays
