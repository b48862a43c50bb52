# /// script
# requires-python = ">=3.11"
# dependencies = ["flask>=3"]
# ///
"""A Flask application as it is, in one file that says itself what it needs: `faas deploy app.py --name guestbook`."""

from flask import Flask, jsonify, request

app = Flask(__name__)
ENTRIES = []


@app.get("/")
def read():
    return jsonify(ENTRIES)


@app.post("/")
def sign():
    ENTRIES.append({"name": request.form["name"], "from": request.headers.get("User-Agent", "")})
    return jsonify(len(ENTRIES)), 201
