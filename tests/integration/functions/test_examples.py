"""The examples, deployed from their folders as they are, with dependencies from their indexes, on one cluster."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from pathlib import Path

import aiohttp
import pytest

EXAMPLES = Path(__file__).parents[3] / "examples"


def png(width: int, height: int) -> bytes:
    """A grey picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\x80" * width for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def post(platform, path, document, **headers):
    return platform.call(path, json.dumps(document).encode(), Content_Type="application/json", **headers)


def test_pillow(platform):
    platform.faas("deploy", str(EXAMPLES / "thumbnails"))
    reply = platform.call("/function/thumbnails?size=16", png(64, 32))
    assert (reply.status, reply.headers["x-size"]) == (200, "16x8")
    assert struct.unpack(">II", reply.body[16:24]) == (16, 8)
    assert platform.call("/function/thumbnails", b"nothing").status == 422


def test_numpy_with_types_and_variables(platform):
    platform.environment["STATISTICS_MAX"] = "3"
    done = platform.faas("deploy", str(EXAMPLES / "statistics"), "-o", "json")
    assert done.json["spec"]["scale"]["max"] == 3
    assert done.json["spec"]["resources"]["limits"]["memory"] == "256Mi"
    reply = post(platform, "/function/statistics", [1, 2, 3, 4])
    assert reply.json == {
        "count": 4,
        "mean": 2.5,
        "deviation": pytest.approx(1.118, abs=0.001),
        "quartiles": [1.75, 2.5, 3.25],
    }
    wrong = post(platform, "/function/statistics", [1, "two"])
    assert (wrong.status, wrong.json["details"]) == (422, [{"loc": ["body", 1], "message": "must be a number"}])
    document = platform.call("/function/statistics/_/openapi.json").json
    assert document["paths"]["/"]["post"]["summary"] == "Summarise a list of numbers."


def test_fastapi(platform):
    platform.faas("deploy", str(EXAMPLES / "books"))
    assert platform.call("/function/books/books/1").json["pages"] == 286
    assert post(platform, "/function/books/books", {"title": "A", "pages": 5}).json == {"number": 2}
    assert post(platform, "/function/books/books", {"title": "", "pages": 5}).status == 422
    assert platform.call("/function/books/books/9").json == {"detail": "there is no book 9"}
    document = platform.call("/function/books/_/openapi.json").json
    assert "/books/{number}" in document["paths"] and document["servers"] == [{"url": "/function/books.default"}]


async def test_a_websocket_through_the_gateway(platform):
    """Of the FastAPI example, deployed by the test before."""
    address = platform.url.replace("http", "ws") + "/function/books/find"
    async with aiohttp.ClientSession() as session, session.ws_connect(address) as client:
        await client.send_str("left")
        assert await client.receive_json() == ["The Left Hand of Darkness"]
        await client.send_str("right")
        assert await client.receive_json() == []


def test_flask_in_one_file_with_script_metadata(platform):
    platform.faas("deploy", str(EXAMPLES / "guestbook" / "app.py"), "--name", "guestbook", "--max", "1")
    assert (
        platform.call("/function/guestbook", b"name=Ada", Content_Type="application/x-www-form-urlencoded").status
        == 201
    )
    assert [each["name"] for each in platform.call("/function/guestbook/").json] == ["Ada"]


def test_node(platform, needs):
    needs(shutil.which("node") and shutil.which("npm"), "node with npm", "apt-get install nodejs npm")
    platform.faas("deploy", str(EXAMPLES / "slugs"))
    assert platform.call("/function/slugs", b"Hello, World!").json == {"slug": "hello-world"}
    assert platform.call("/function/slugs", b" ").status == 422
    assert "INFO slug of Hello, World!" in platform.faas("logs", "slugs").out


def test_one_file_with_three_functions(platform):
    path = str(EXAMPLES / "shop" / "app.py")
    new = platform.faas("diff", path, check=False)
    assert new.code == 1 and new.out.count(": new") == 3
    platform.faas("deploy", path)
    assert platform.faas("diff", path).out.count("no change") == 3
    order = {"customer": "Ada", "lines": [{"sku": "tea", "count": 2}, {"sku": "cake"}]}
    assert post(platform, "/function/create-order?quote=true", order).json == {
        "total": 11,
        "packing": "",
        "quoted": True,
    }
    receipt = post(platform, "/function/create-order", order).json
    assert receipt["total"] == 11
    record = platform.faas("calls", "get", receipt["packing"], "-o", "json", check=False)
    assert record.code == 0, record.err
    unknown = post(platform, "/function/create-order", {"customer": "Ada", "lines": [{"sku": "gold"}]})
    assert (unknown.status, unknown.json["message"]) == (422, "body.lines.0: there is no gold; there are tea, cake")
    assert [each["name"] for each in json.loads(platform.faas("cron", "list", "-o", "json").out)] == ["rest"]


def test_a_change_of_code_alone_uploads_the_code_alone_and_shows_in_diff(platform, tmp_path):
    folder = tmp_path / "sized"
    shutil.copytree(EXAMPLES / "thumbnails", folder)
    flags = ("--name", "thumbnails")
    app = folder / "app.py"
    app.write_text(app.read_text().replace('"X-Size"', '"X-Measure"'))
    changed = platform.faas("diff", str(folder), *flags, "--max", "5", check=False)
    assert changed.code == 1
    assert "file ~ app.py" in changed.out and "scale.max: 8 -> 5" in changed.out
    dry = platform.faas("deploy", str(folder), *flags, "--dry-run")
    assert "file ~ app.py" in dry.out
    assert "x-size" in platform.call("/function/thumbnails", png(4, 4)).headers
    preview = platform.faas("deploy", str(folder), *flags, "--preview")
    assert "uploaded the package: 0." in preview.err and "layer" not in preview.err
    assert "x-measure" in platform.call("/function/thumbnails-preview", png(4, 4)).headers
    assert "x-size" in platform.call("/function/thumbnails", png(4, 4)).headers
    done = platform.faas("deploy", str(folder), *flags)
    assert "uploaded" not in done.err  # the preview has brought it
    assert "x-measure" in platform.call("/function/thumbnails", png(4, 4)).headers
    assert float(done.out.partition(" serves in ")[2].partition(" s:")[0]) < 5


def test_a_preview_is_never_run_by_cron(platform):
    platform.faas("deploy", str(EXAMPLES / "shop" / "app.py"), "--name", "pack", "--preview")
    spec = platform.kube("GET", "/apis/faaslite.dev/v1/namespaces/default/functions/pack-preview").json["spec"]
    assert "cron" not in spec and spec["async"] == {"retries": 5}
