"""A FastAPI application as it is: paths, models, documentation at /docs, a WebSocket."""

from fastapi import FastAPI, HTTPException, WebSocket
from pydantic import BaseModel, Field

app = FastAPI(title="Books")
BOOKS = {1: {"title": "The Left Hand of Darkness", "pages": 286}}


class Book(BaseModel):
    title: str = Field(min_length=1)
    pages: int = Field(gt=0)


@app.get("/books/{number}")
async def read(number: int) -> Book:
    if number not in BOOKS:
        raise HTTPException(404, f"there is no book {number}")
    return Book(**BOOKS[number])


@app.post("/books", status_code=201)
async def add(book: Book) -> dict[str, int]:
    number = max(BOOKS) + 1
    BOOKS[number] = book.model_dump()
    return {"number": number}


@app.websocket("/find")
async def find(socket: WebSocket) -> None:
    """A list of titles for each word that comes, until the client leaves."""
    await socket.accept()
    async for word in socket.iter_text():
        await socket.send_json([book["title"] for book in BOOKS.values() if word.lower() in book["title"].lower()])
