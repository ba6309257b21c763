"""Pictures for the report: PNG frames become one animation and one still, both as data URIs."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

WIDTH_PX = 480
FRAME_MS = 60
MAX_FRAMES = 100
QUALITY = 70  # of 100; an animation of 100 frames stays near 1 MB


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """An animation and its last frame, for those who asked for no motion."""

    animation_uri: str
    still_uri: str
    width_px: int
    height_px: int
    frames: int


def _uri(data: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(data).decode()


def animation(folder: Path) -> Pictures | None:
    """The frames of a folder, in the order of their names; None when it holds none.

    Args:
        folder: PNG files of one size.
    """
    from PIL import Image

    paths = sorted(folder.glob("*.png"))
    paths = paths[:: max(1, -(-len(paths) // MAX_FRAMES))]
    if not paths:
        return None
    frames = []
    for path in paths:
        with Image.open(path) as image:
            height_px = round(image.height * WIDTH_PX / image.width)
            frames.append(image.convert("RGB").resize((WIDTH_PX, height_px), Image.Resampling.LANCZOS))
    moving, still = io.BytesIO(), io.BytesIO()
    frames[0].save(
        moving, "WEBP", save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0, quality=QUALITY, method=4
    )
    frames[-1].save(still, "WEBP", quality=QUALITY)
    return Pictures(
        animation_uri=_uri(moving.getvalue()),
        still_uri=_uri(still.getvalue()),
        width_px=WIDTH_PX,
        height_px=frames[0].height,
        frames=len(frames),
    )
