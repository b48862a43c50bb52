"""A small JSON API with paths: GET and POST /notes, GET and DELETE /notes/ID.

Notes live in the memory of one instance (`max: 1`) and go with it; a real one would keep them in a database.
"""

import itertools

NOTES = {}
NUMBERS = itertools.count(1)


async def handle(event, context):
    parts = [part for part in event.path.split("/") if part]
    if not parts or parts[0] != "notes" or len(parts) > 2:
        return {"error": f"there is nothing at {event.path}; try /notes"}, 404
    if len(parts) == 1:
        return collection(event)
    return item(event, parts[1])


def collection(event):
    if event.method == "GET":
        return {"notes": list(NOTES.values())}
    if event.method != "POST":
        return {"error": "use GET or POST"}, 405, {"Allow": "GET, POST"}
    try:
        text = event.json()["text"]
    except (ValueError, TypeError, KeyError):
        return {"error": 'send {"text": "..."}'}, 400
    note = {"id": next(NUMBERS), "text": str(text)}
    NOTES[note["id"]] = note
    return note, 201, {"Location": f"/notes/{note['id']}"}


def item(event, key):
    note = NOTES.get(int(key)) if key.isdigit() else None
    if note is None:
        return {"error": f"there is no note {key}"}, 404
    if event.method == "DELETE":
        del NOTES[note["id"]]
        return None
    return note
