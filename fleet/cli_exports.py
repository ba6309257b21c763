"""`flexor fleet export FORMAT OUT`: thin functions whose signatures are the command line. Heavy imports are inside."""

from pathlib import Path


def lerobot(
    out: Path, dir: Path = Path("hub"), contract: str = "", include_banned: bool = False, json: Path | None = None
) -> None:
    """Write a hub's experience as a LeRobot dataset of version 3.0, without video. The hub may be running.

    Example:
        flexor fleet export lerobot out/dataset --dir hub

    Args:
        out: The dataset's folder; it must not exist. An interrupted export begins anew.
        dir: The hub's folder.
        contract: Only experience of this contract (sha256, or how it begins); needed where there are several.
        include_banned: Also that of policies that were rolled back.
        json: Also write the figures here.
    """
    from fleet.exports.lerobot import write_lerobot

    _export("lerobot", write_lerobot, out, dir, contract, include_banned, json)


def parquet(
    out: Path, dir: Path = Path("hub"), contract: str = "", include_banned: bool = False, json: Path | None = None
) -> None:
    """Write a hub's experience as Parquet, one file per episode. An interrupted export goes on. The hub may be running.

    Example:
        flexor fleet export parquet out/episodes --dir hub

    Args:
        out: Folder of the files; those that are there stay.
        dir: The hub's folder.
        contract: Only experience of this contract (sha256, or how it begins); needed where there are several.
        include_banned: Also that of policies that were rolled back.
        json: Also write the figures here.
    """
    from fleet.exports.parquet import write_parquet

    _export("parquet", write_parquet, out, dir, contract, include_banned, json)


def mcap(
    out: Path, dir: Path = Path("hub"), contract: str = "", include_banned: bool = False, json: Path | None = None
) -> None:
    """Write a hub's experience as MCAP, one file per episode, for Foxglove and Rerun. An interrupted export goes on.

    Example:
        flexor fleet export mcap out/logs --dir hub

    Args:
        out: Folder of the files; those that are there stay.
        dir: The hub's folder.
        contract: Only experience of this contract (sha256, or how it begins); needed where there are several.
        include_banned: Also that of policies that were rolled back.
        json: Also write the figures here.
    """
    from fleet.exports.mcap import write_mcap

    _export("mcap", write_mcap, out, dir, contract, include_banned, json)


def packs(
    out: Path, dir: Path = Path("hub"), contract: str = "", include_banned: bool = False, json: Path | None = None
) -> None:
    """Seal a hub's experience into packs that a learner reads in place, one per contract; the same as `flexor fleet export`.

    Example:
        flexor fleet export packs out/packs --dir hub

    Args:
        out: Where the packs go.
        dir: The hub's folder.
        contract: Only experience of this contract (sha256); all if not given.
        include_banned: Also that of policies that were rolled back.
        json: Also write what was made here.
    """
    from fleet.cli import export

    export(dir=dir, out=out, contract=contract, include_banned=include_banned, json=json)


def manifest(out: Path, dir: Path | None = None, packs: Path | None = None) -> None:
    """List a hub's sealed segments and packs by their hashes, for trainers elsewhere (Ray Data reads it).

    Example:
        flexor fleet export manifest out/manifest.json --packs out/packs

    Args:
        out: The manifest; paths in it are relative to its folder where they lie below it.
        dir: A hub's folder, for its sealed segments.
        packs: A folder of packs.
    """
    from fleet.exports.manifest import write_manifest

    made = write_manifest(dir, packs, out)
    size = sum(part.bytes for part in made.parts)
    print(f"{out}: {len(made.parts)} parts, {made.steps} steps, {size / 1e6:.1f} MB")


def _export(name: str, write, out: Path, dir: Path, contract: str, include_banned: bool, json: Path | None) -> None:
    import sys

    from fleet.exports.source import Source

    def reading(share: float) -> None:
        if sys.stderr.isatty():
            print(f"\rreading the log, {100 * share:.0f} % \x1b[K", end="", file=sys.stderr, flush=True)

    source = Source(dir, contract, include_banned=include_banned, progress=reading)
    made = write(source, out)
    rate = made["episodes"] / max(made["seconds"], 1e-9)
    print(
        f"{out}: {made['episodes']} episodes, {source.steps} steps in {made['seconds']:.1f} s ({rate:.0f} episodes/s)"
    )
    if source.left_out or source.bad_records:
        print(f"left out: {source.left_out} records of banned policies, {source.bad_records} that could not be read")
    for what in source.odd:
        print(f"left out, does not fit the others: {what}")
    if json is not None:
        from robot.report import write_json

        write_json(json, command=f"fleet export {name}", seed=None, results={**made, "episodes_per_s": rate})
