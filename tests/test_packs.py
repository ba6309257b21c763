"""Packs: what went in comes out, in place, and nothing that is not whole is read."""

import json

import numpy as np
import pytest

from robot.errors import UnknownNameError
from robot.experience import Chunk, ChunkHeader
from robot.packs import (
    CUT,
    TERMINATED,
    TRUNCATED,
    CorruptPackError,
    DoubledChunkError,
    EmptyPackError,
    MixedContractError,
    PackError,
    find_packs,
    open_pack,
    open_packs,
    write_pack,
)

CONTRACT = "c" * 64


def chunk(episode, first, steps, ended="no", *, policy="p" * 64, contract=CONTRACT, terms=("a", "b"), obs=3):
    """Identifiable data: observation = 1000 * episode + step, action = -observation."""
    number = 1000.0 * episode + first + np.arange(steps + 1)
    table = np.repeat(number[:, None], obs, axis=1).astype(np.float32)
    return Chunk(
        header=ChunkHeader(
            contract_sha256=contract,
            policy_sha256=policy,
            episode_id=f"{episode:032x}",
            first_step=first,
            steps=steps,
            observation_size=obs,
            action_size=2,
            reward_names=terms,
            ended=ended,
            control_hz=25.0,
        ),
        observation=table[:-1],
        action=-table[:-1, :2],
        reward=np.tile(np.arange(1.0, len(terms) + 1), (steps, 1)),
        log_prob=np.full(steps, -1.5),
        success=np.arange(steps) % 2,
        time_s=number[:-1] / 25.0,
        last_observation=table[-1],
    )


@pytest.fixture
def pack(tmp_path):
    """Episodes 1 and 2 interleaved and out of order; 2 terminated, 1 truncated; 3 has a hole; 4 is cut."""
    chunks = [
        chunk(1, 4, 4, "truncated"),
        chunk(2, 0, 3, "terminated", policy="q" * 64),
        chunk(1, 0, 4),
        chunk(3, 0, 2),
        chunk(3, 5, 2, "terminated"),
        chunk(4, 0, 1),
    ]
    write_pack(tmp_path / "pack", chunks, source={"robots": "a,b"})
    return open_pack(tmp_path / "pack")


def test_every_step_is_there_once_and_episodes_are_contiguous(pack):
    expected = [1000 + n for n in range(8)] + [2000, 2001, 2002, 3000, 3001, 3005, 3006, 4000]
    assert pack.observation[:, 0].tolist() == expected
    assert pack.action[:, 0].tolist() == [-x for x in expected]
    assert len(pack) == 16
    assert pack.reward.tolist() == [3.0] * 16
    assert pack.reward_terms.tolist() == [[1.0, 2.0]] * 16
    assert pack.episode.tolist() == [0] * 8 + [1] * 3 + [2] * 4 + [3]
    assert [(e.row, e.steps, e.first_step, e.ended) for e in pack.meta.episodes] == [
        (0, 8, 0, TRUNCATED),
        (8, 3, 0, TERMINATED),
        (11, 4, 0, TERMINATED),
        (15, 1, 0, CUT),
    ]
    assert [pack.meta.policies[i] for i in pack.policy] == ["p" * 64] * 8 + ["q" * 64] * 3 + ["p" * 64] * 5
    assert pack.meta.source == {"robots": "a,b"}


def test_the_next_observation_is_the_true_one_for_every_row(pack):
    rows = np.arange(16)
    assert (pack.next_observation(rows)[:, 0] == pack.observation[:, 0] + 1).all()
    assert pack.next_observation(rows[::-1])[0, 0] == 4001


def test_value_goes_on_everywhere_but_behind_a_terminated_step(pack):
    assert np.flatnonzero(~pack.bootstraps(np.arange(16))).tolist() == [10, 14]
    assert np.flatnonzero(pack.ended).tolist() == [7, 10, 12, 14, 15]


def test_columns_are_mapped_and_read_only(pack):
    assert isinstance(pack.observation, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        pack.observation[0, 0] = 1.0


@pytest.mark.parametrize(
    "odd",
    [chunk(9, 0, 2, contract="d" * 64), chunk(9, 0, 2, terms=("a",)), chunk(9, 0, 2, obs=4)],
)
def test_one_pack_holds_one_contract(tmp_path, odd):
    with pytest.raises(MixedContractError, match="one pack holds one contract"):
        write_pack(tmp_path / "pack", [chunk(1, 0, 2), odd])
    assert list(tmp_path.iterdir()) == []


def test_the_same_steps_twice_are_refused(tmp_path):
    with pytest.raises(DoubledChunkError, match=r"steps 2..3 twice"):
        write_pack(tmp_path / "pack", [chunk(1, 0, 4), chunk(1, 2, 4)])


def test_nothing_to_pack_and_a_pack_that_exists_are_refused(tmp_path, pack):
    with pytest.raises(EmptyPackError, match="nothing to pack"):
        write_pack(tmp_path / "other", [])
    with pytest.raises(PackError, match="never changed"):
        write_pack(pack.path, [chunk(1, 0, 2)])


def test_a_failed_write_leaves_nothing(tmp_path):
    good = chunk(1, 0, 2)
    bad = Chunk(**{f: getattr(good, f) for f in good.__struct_fields__ if f != "reward"}, reward=np.zeros((2, 3)))
    with pytest.raises(ValueError, match="array"):
        write_pack(tmp_path / "pack", [chunk(2, 0, 2), bad])
    assert list(tmp_path.iterdir()) == []


def test_a_flipped_byte_is_found_in_every_column(pack):
    checked = 0
    for file in sorted(pack.path.glob("*.npy")):
        data = file.read_bytes()
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(CorruptPackError, match=rf"{file.name}: not the bytes that were written"):
            open_pack(pack.path)
        open_pack(pack.path, verify=False)
        file.write_bytes(data)
        checked += 1
    assert checked == 12
    open_pack(pack.path)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda p: (p / "reward.npy").unlink(), r"reward.npy: .*No such file"),
        (lambda p: (p / "reward.npy").write_bytes(b""), "reward.npy"),
        (lambda p: (p / "reward.npy").write_bytes((p / "reward.npy").read_bytes()[:-4]), "reward.npy"),
        (lambda p: np.save(p / "reward.npy", np.zeros(16)), r"expected float32 \(16,\) as meta.json says, got float64"),
        (lambda p: np.save(p / "reward.npy", np.array([{}], dtype=object), allow_pickle=True), "reward.npy"),
        (lambda p: (p / "meta.json").unlink(), "not a pack"),
        (lambda p: (p / "meta.json").write_bytes(b"{"), "meta.json"),
        (lambda p: edit(p, schema=9), "pack schema 9, this version reads 1"),
        (lambda p: edit(p, columns={}), r"columns \['action'"),
        (lambda p: edit(p, steps=15), r"got float32 \(16, 3\)"),
    ],
)
def test_a_damaged_pack_is_refused_by_name(pack, damage, match):
    damage(pack.path)
    with pytest.raises(CorruptPackError, match=match):
        open_pack(pack.path, verify=False)


def edit(path, **changes):
    meta = json.loads((path / "meta.json").read_text())
    (path / "meta.json").write_text(json.dumps({**meta, **changes}))


def test_an_empty_pack_is_refused_by_name(pack):
    edit(pack.path, steps=0)
    with pytest.raises(EmptyPackError, match="holds no steps"):
        open_pack(pack.path)


def test_packs_of_one_contract_open_together(pack):
    assert find_packs(pack.path.parent) == [pack.path]
    assert len(open_packs([pack.path], CONTRACT)) == 1
    with pytest.raises(MixedContractError, match=r"of contract cccccccccccc, expected dddddddddddd"):
        open_packs([pack.path], "d" * 64)
    with pytest.raises(UnknownNameError, match="Known: pack"):
        open_packs([pack.path.parent / "pakc"], CONTRACT)
