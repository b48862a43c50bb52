"""POST a picture, get a thumbnail as PNG: `?size=128` sets its longer side."""

import io

from PIL import Image, UnidentifiedImageError

LARGEST = 1024


def handle(event, context):
    try:
        size = int(event.query.get("size", 128))
    except ValueError:
        return {"error": "size must be a whole number"}, 400
    if not 1 <= size <= LARGEST:
        return {"error": f"size must be between 1 and {LARGEST}"}, 400
    try:
        picture = Image.open(io.BytesIO(event.body))
        picture.thumbnail((size, size))
    except (UnidentifiedImageError, OSError) as error:
        context.logger.warning("not a picture: %s", error)
        return {"error": "the body is not a picture that can be read"}, 422
    reply = io.BytesIO()
    picture.convert("RGBA").save(reply, "PNG")
    return reply.getvalue(), 200, {"Content-Type": "image/png", "X-Size": f"{picture.width}x{picture.height}"}
