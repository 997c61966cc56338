import io
from pathlib import Path

from PIL import Image
from synthetic_run import write_run

from reconverge.eval.summary_picture import GAP, HEIGHT, write_summary_picture


def read(path: Path) -> Image.Image:
    return Image.open(io.BytesIO(path.read_bytes()))


def test_the_matrix_stands_beside_the_videos_poster_where_there_is_one(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    alone = read(write_summary_picture(folder))
    assert alone.height == HEIGHT
    (folder / "videos").mkdir(exist_ok=True)
    Image.new("RGB", (200, 100), (1, 2, 3)).save(folder / "videos" / "grid.png")
    both = read(write_summary_picture(folder))
    assert both.width == alone.width + GAP + 2 * HEIGHT
    assert both.getpixel((both.width - 5, 5)) == (1, 2, 3)
